"""Requests that go on with what lies at one provider, a response or a conversation: what they name, and in which order providers are asked.

Ids say nothing of where they come from. Sources: https://platform.openai.com/docs/api-reference/responses and .../conversations
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import msgspec

from proxy.core.call import Call, Target
from proxy.core.errors import GatewayError, UpstreamError
from proxy.core.reply import Reply

#: Operations whose requests make, name or go on with such things.
BINDING = ("responses", "stored_response", "conversations")

#: Members of a request that name one.
_MEMBERS = ("previous_response_id", "conversation")

#: A key of `Call.notes`: the one provider that may be asked now, whatever fails there. Others do not know what the request goes on with,
#: and some would answer all the same.
ONLY = "only"

#: So many items of a request's input are looked at for one that names another item.
_MOST_ITEMS = 64

#: What OpenAI says of an id that is none of its own, having another shape: these codes, with what named it as the parameter.
_FOREIGN = frozenset({"invalid_value", "string_above_max_length"})
_NAMING = frozenset({"previous_response_id", "conversation", "conversation.id", "response_id", "conversation_id"})

#: An answer as all known servers begin it.
_BEGINNING = re.compile(rb'\s*\{\s*"id"\s*:\s*"([^"\\]+)"')


class _Made(msgspec.Struct, gc=False):
    id: str | None = None


_decode = msgspec.json.Decoder(_Made).decode


def is_bound(call: Call) -> bool:
    """Whether its body goes on with what lies at one provider."""
    return any(call.body.get(member) for member in _MEMBERS) or _item(call) is not None


def named(call: Call) -> str | None:
    """The id of what a request of `BINDING` is about, or goes on with; None: nothing that is there already."""
    if call.operation != "responses":
        segments = call.path.split("/", 3)  # "", "responses" or "conversations", the id
        return segments[2] if len(segments) > 2 else None
    for member in _MEMBERS:
        value = call.body.get(member)
        found = value.get("id") if isinstance(value, dict) else value
        if isinstance(found, str) and found:
            return found
    return _item(call)


def _item(call: Call) -> str | None:
    """The first item of an earlier answer that its input names instead of repeating it."""
    items = call.body.get("input")
    for item in islice(items, _MOST_ITEMS) if isinstance(items, list) else ():
        if isinstance(item, dict) and item.get("type") == "item_reference":
            found = item.get("id")
            return found if isinstance(found, str) and found else None
    return None


def made(call: Call, reply: Reply) -> str | None:
    """The id of the response that a good answer to `POST /responses` says is kept."""
    if call.path != "/responses" or call.body.get("store") is False:
        return None
    if reply.stream is not None:
        found: str | None = getattr(reply.stream, "made", None)
        return found
    beginning = _BEGINNING.match(reply.body)
    try:
        # The whole answer is gone through only where it begins with something else.
        return beginning[1].decode() if beginning is not None else _decode(reply.body).id
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def in_order(targets: Sequence[Target], preferred: Iterable[str | None]) -> tuple[Target, ...]:
    """`targets`, those of the first of the `preferred` providers that has any before all others."""
    for provider in preferred:
        before = [each for each in targets if each.provider == provider]
        if before:
            return (*before, *(each for each in targets if each.provider != provider))
    return tuple(targets)


def further(targets: Sequence[Target], most: int) -> Iterator[Target]:
    """Whom to ask when the first of `targets` does not know it: one of each other provider, `most` in all with the first."""
    asked = {targets[0].provider}
    for target in targets:
        if len(asked) >= most:
            return
        if target.provider not in asked:
            asked.add(target.provider)
            yield target


def is_unknown(error: GatewayError) -> bool:
    """Whether a provider says that it has not what is named: it has done nothing then."""
    if not isinstance(error, UpstreamError) or error.kind != "rejected" or error.code == "model_not_found":
        return False
    if error.status == 404 or error.code == "previous_response_not_found":
        return True
    return error.code in _FOREIGN and error.param in _NAMING
