"""From a body's JSON to what a call needs of it. One pass; only what the gateway uses is checked."""

from __future__ import annotations

import re
from typing import Any

import orjson

from proxy.core.ambiguity import require_one_model
from proxy.core.call import Call
from proxy.core.errors import ClientError
from proxy.core.splice import set_member

MAX_DEPTH = 64

#: Operations that take bodies which are neither JSON nor a form: files, descriptions of sessions (SDP).
_RAW = frozenset({"files", "uploads", "containers", "skills", "realtime", "live"})

#: Control characters never belong into a name that ends up in a header, a log line or a metric.
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

#: Operation -> the member that must be there, with what it must be. `model` may also come from the configuration: `resolve` asks for it.
_REQUIRED: dict[str, tuple[str, tuple[type, ...], str]] = {
    "chat": ("messages", (list,), "an array of messages"),
    "embedding": ("input", (str, list), "a string or an array"),
}

#: Members that the gateway reads, checks or changes. Servers in Go take `Model` for `model`, and the last of them counts.
_OURS = frozenset(
    {
        "background",
        "comporta",
        "input",
        "instructions",
        "max_completion_tokens",
        "max_output_tokens",
        "max_tokens",
        "messages",
        "metadata",
        "model",
        "n",
        "prompt",
        "prompt_cache_key",
        "store",
        "stream",
        "stream_options",
        "temperature",
        "tools",
        "top_p",
        "user",
    }
)


def invalid_json(message: str) -> ClientError:
    return ClientError(message, code="invalid_json")


def is_json(operation: str, content_type: str) -> bool:
    """Whether a body is to be read as JSON: where no other kind has a meaning, whatever it calls itself, so that nothing asks unseen."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind in ("", "application/json", "text/json") or kind.endswith("+json"):
        return True
    return operation not in _RAW and not kind.startswith("multipart/")


def parse_object(raw: bytes) -> dict[str, Any]:
    """The JSON object of a body. Raises ClientError (400 `invalid_json`) for everything else, nesting deeper than 64 included."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        message = f"The request's body is not valid JSON: {error}" if raw else "The request has no body."
        raise invalid_json(message) from None
    except RecursionError:
        raise invalid_json(f"The request's body is nested deeper than {MAX_DEPTH}.") from None
    if not isinstance(value, dict):
        raise invalid_json("The request's body is not a JSON object.")
    # What is deep has many brackets. Searching for as many as matter is faster than `count`, which looks at every byte.
    brackets = len(raw) - len(raw.replace(b"{", b"", MAX_DEPTH + 1).replace(b"[", b"", MAX_DEPTH + 1))
    if brackets > MAX_DEPTH and _is_deep(value):
        raise invalid_json(f"The request's body is nested deeper than {MAX_DEPTH}.")
    return value


def _is_deep(value: dict[str, Any]) -> bool:
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in (outer.values() if type(outer) is dict else outer) if type(inner) in (dict, list)]
        if not level:
            return False
    return True


def read_members(call: Call, body: dict[str, Any]) -> None:
    """Check and take what the gateway uses of a body. Raises ClientError that names the member.

    An empty model says nothing where the path has named one (`call.model`): Azure's clients send it.
    """
    names = "".join(body)
    if not names.isascii() or names != names.lower():
        _refuse_look_alikes(body)
    required = _REQUIRED.get(call.operation)
    if required is not None:
        name, kinds, expected = required
        value = body.get(name)
        if value is None:
            raise ClientError(f"You must provide the parameter {name!r}, {expected}.", param=name, code="missing_required_parameter")
        if type(value) not in kinds:
            raise ClientError(f"{name!r} must be {expected}.", param=name, code="invalid_type")
    model = body.get("model")
    if model is not None:
        call.model = checked_model(call.model or model if model == "" else model)
        if call.principal.models is not None:
            require_one_model(call.raw, model)
    stream = body.get("stream")
    if stream is not None:
        if not isinstance(stream, bool):
            raise ClientError("'stream' must be true or false.", param="stream", code="invalid_type")
        call.stream = stream
    options = body.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise ClientError("'stream_options' must be an object.", param="stream_options", code="invalid_type")
    call.body = body


def ask_for(call: Call, model: str) -> None:
    """Have a call ask for `model`, whatever its body says. Raises ClientError (400) where it can stand nowhere."""
    if call.content is not None:
        call.content = call.content.named(model)
    elif not call.raw:
        raise invalid_json("The request has no body.")
    elif call.body.get("model") != model:
        call.raw = set_member(call.raw, "model", orjson.dumps(model), present="model" in call.body)
        call.body["model"] = model
    call.model = model


def _refuse_look_alikes(body: dict[str, Any]) -> None:
    """Raises ClientError where a provider could take a member for one that was looked at under another name."""
    for name in body:
        meant = name.casefold()
        if meant != name and meant in _OURS:
            raise ClientError(f"{name!r} must be written {meant!r}.", param=name, code="unknown_parameter")


def checked_model(model: Any) -> str:
    if not isinstance(model, str):
        raise ClientError("'model' must be a string.", param="model", code="invalid_type")
    if not model or len(model) > 256 or not (model.isprintable() or _CONTROL.search(model) is None):
        raise ClientError("'model' is no valid name.", param="model", code="invalid_value")
    return model
