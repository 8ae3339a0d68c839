"""What a request asks of its own configuration: in headers `x-comporta-*`, in the body's member `comporta`, and in OpenAI's own members."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from proxy.core.call import Call, Principal
from proxy.core.errors import ClientError
from proxy.core.hierarchy import PARAMS, Asked
from proxy.core.splice import remove_member
from proxy.core.units import parse_duration

#: The body's member that is for the gateway; the provider never sees it.
MEMBER = "comporta"

#: Seconds that a request may ask for at most.
LONGEST = 3600.0
MOST_RETRIES = 10

MODEL_LENGTH = 256
TASK_TYPE_LENGTH = 100

#: What OpenAI's operations call the longest answer.
LENGTHS = ("max_tokens", "max_completion_tokens", "max_output_tokens")

Reader = Callable[[Any, str], Any]


@dataclass(frozen=True, slots=True)
class Wishes:
    """What was asked. `explain`: the answer is to say where each value came from."""

    asked: Asked = field(default_factory=Asked)
    task_type: str | None = None
    explain: bool = False


def is_name(value: Any, most: int) -> bool:
    """Whether it can stand in a header, a line of the log, a table."""
    return isinstance(value, str) and 0 < len(value) <= most and value.isprintable()


def invalid(where: str, expected: str) -> ClientError:
    return ClientError(f"{where!r} must be {expected}.", param=where, code="invalid_value")


def _model(value: Any, where: str) -> str:
    if not is_name(value, MODEL_LENGTH):
        raise invalid(where, "a model's name")
    return str(value)


def _task_type(value: Any, where: str) -> str:
    if not is_name(value, TASK_TYPE_LENGTH):
        raise invalid(where, f"a name of at most {TASK_TYPE_LENGTH} printable characters")
    return str(value)


def _timeout(value: Any, where: str) -> float:
    seconds = 0.0
    if isinstance(value, str):
        try:
            seconds = float(value) if value.replace(".", "", 1).isascii() and value.replace(".", "", 1).isdigit() else parse_duration(value)
        except ValueError:
            seconds = 0.0
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = float(value)
    if not 0 < seconds <= LONGEST:
        raise invalid(where, f'seconds, or a duration such as "45s", above 0 and at most {LONGEST:.0f} s')
    return seconds


def _retries(value: Any, where: str) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 4:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_RETRIES:
        raise invalid(where, f"a whole number from 0 to {MOST_RETRIES}")
    return value


def _number(least: float, most: float) -> Reader:
    def read(value: Any, where: str) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
            raise invalid(where, f"a number from {least:g} to {most:g}")
        return value

    return read


def _length(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise invalid(where, "a whole number of tokens, at least 1")
    return value


_FIELDS: dict[str, Reader] = {
    "model": _model,
    "fallback_model": _model,
    "timeout": _timeout,
    "max_retries": _retries,
    "task_type": _task_type,
}
_PARAMS: dict[str, Reader] = {"temperature": _number(0.0, 2.0), "top_p": _number(0.0, 1.0), "max_tokens": _length}

#: One attempt's, as in a provider's `timeouts`; a key that may set `timeout` may set these.
_TIMEOUTS: dict[str, Reader] = {
    **dict.fromkeys(("connect", "first_token", "idle", "total", "window"), _timeout),
    "min_tokens_per_second": _number(0.001, 10_000.0),
}

#: What a key's `may_set` may name.
SETTABLE = (*_FIELDS, *_PARAMS)

_HEADERS = {name: f"x-comporta-{name.replace('_', '-')}" for name in _FIELDS}
EXPLAIN = "x-comporta-explain"

#: Every header that is read here: a request with none of them, and no member of ours, asks for nothing.
HEADERS = (*_HEADERS.values(), EXPLAIN)


def wishes_of(call: Call) -> Wishes:
    """What the call asks for. The member `comporta` is taken out of its body and its bytes.

    A header goes before the body's member, both before OpenAI's `model` (which is not read here). Raises ClientError: 400 that names what
    is wrong, 403 for what the key may not set.
    """
    found: dict[str, Any] = {}
    if MEMBER in call.body:
        member = call.body.pop(MEMBER)
        call.raw = remove_member(call.raw, MEMBER)
        found = _from_member(member, call.principal.may_set)
    for name, header in _HEADERS.items():
        value = call.headers.get(header)
        if value is not None:
            require_settable(name, header, call.principal.may_set)
            found[name] = _FIELDS[name](value, header)
    task_type = found.pop("task_type", None) or task_type_of(call)
    require_task_type(task_type, call.principal)
    explain = call.headers.get(EXPLAIN, "").lower() in ("true", "1")
    return Wishes(Asked(**found), task_type, explain)


def _from_member(member: Any, may_set: frozenset[str] | None) -> dict[str, Any]:
    if not isinstance(member, dict):
        raise invalid(MEMBER, "an object")
    inner = {name: member.pop(name) for name in ("params", "timeouts") if name in member}
    found = _read(member, _FIELDS, MEMBER, may_set)
    for name, readers in (("params", _PARAMS), ("timeouts", _TIMEOUTS)):
        given, where = inner.get(name), f"{MEMBER}.{name}"
        if given is None:
            continue
        if not isinstance(given, dict):
            raise invalid(where, "an object")
        if name == "timeouts":
            require_settable("timeout", where, may_set)
        found[name] = _read(given, readers, where, may_set if name == "params" else None)
    return found


def _read(given: Mapping[str, Any], readers: Mapping[str, Reader], at: str, may_set: frozenset[str] | None) -> dict[str, Any]:
    """The members that are set, checked. Null is not a value."""
    found = {}
    for name, value in given.items():
        where = f"{at}.{name[:100]}"
        if name not in readers:
            near = get_close_matches(name[:100], readers, n=1) or list(readers)
            raise ClientError(f"There is no {where!r}; there is: {', '.join(near)}.", param=where, code="unknown_parameter")
        if value is not None:
            require_settable(name, where, may_set)
            found[name] = readers[name](value, where)
    return found


def require_settable(name: str, where: str, may_set: frozenset[str] | None) -> None:
    """Raises ClientError (403) for a field, here called `where`, that a key's `may_set` does not have."""
    if may_set is not None and name != "task_type" and name not in may_set:
        raise ClientError(f"This key may not set {where!r}.", status=403, code="permission_denied", param=where)


def require_task_type(task_type: str | None, principal: Principal) -> None:
    """Raises ClientError (403) for one that the key may not use."""
    if task_type is not None and principal.task_types is not None and task_type not in principal.task_types:
        raise ClientError(f"This key may not use the task type {task_type!r}.", status=403, code="permission_denied", param="task_type")


def task_type_of(call: Call) -> str | None:
    """A task type that stands in OpenAI's own `metadata`, which is the client's to use: what is no name there is none of ours."""
    metadata = call.body.get("metadata")
    value = metadata.get("task_type") if isinstance(metadata, dict) else None
    return value if is_name(value, TASK_TYPE_LENGTH) else None


def own_params(call: Call) -> dict[str, Any]:
    """The members of `PARAMS` that the body sets itself, whatever the operation calls them. Raises ClientError (403)."""
    body = call.body
    found = {name: body[name] for name in PARAMS[:2] if body.get(name) is not None}
    for name in LENGTHS:
        if body.get(name) is not None:
            found["max_tokens"] = body[name]
    for name in found if call.principal.may_set is not None else ():
        require_settable(name, name, call.principal.may_set)
    return found


def end_user_of(call: Call) -> str | None:
    """On whose behalf it is asked: who was named where the caller was checked, else OpenAI's `user`, if that can be a name."""
    user = call.end_user or call.body.get("user")
    # Every request asks it: `is_name`, without a call.
    return user if type(user) is str and 0 < len(user) <= MODEL_LENGTH and user.isprintable() else None
