"""Responses in the background: their answer comes before their end, and so before anybody knows what they cost.

What is asked for is estimated at once, and what it cost beyond that goes with the first answer that tells of its end.
Source: https://platform.openai.com/docs/guides/background
"""

from __future__ import annotations

from collections.abc import Awaitable
from functools import partial

from proxy.core.call import Call
from proxy.core.protocols import Handler
from proxy.core.reply import Reply
from proxy.core.unpaid import READ, Unpaid
from proxy.routing.binding import made


class Bill:
    """Of what makes responses in the background, and of what reads their end: its usage is what is not accounted for yet."""

    def __init__(self, unpaid: Unpaid) -> None:
        self._unpaid = unpaid

    def __call__(self, call: Call, call_next: Handler) -> Awaitable[Reply]:
        # Without a coroutine of its own: most have nothing to do with it.
        if call.operation == "responses":
            return self._begun(call, call_next) if call.body.get("background") is True else call_next(call)
        id = _read(call)
        return self._ended(call, call_next, id) if id is not None and id in self._unpaid else call_next(call)

    async def _begun(self, call: Call, call_next: Handler) -> Reply:
        reply = await call_next(call)
        if reply.stream is not None:
            reply.on_close(partial(self._note, call, reply))
        elif call.usage is None and 200 <= reply.status < 300:
            call.usage = call.estimated_usage()
            self._note(call, reply, None)
        return reply

    def _note(self, call: Call, reply: Reply, _error: BaseException | None) -> None:
        """It has not ended, or its end has not come through here."""
        if call.usage is not None and not call.usage.reported and (id := made(call, reply)) is not None:
            self._unpaid.note(id, call.usage)

    async def _ended(self, call: Call, call_next: Handler, id: str) -> Reply:
        call.notes[READ] = True
        reply = await call_next(call)
        reply.on_close(partial(self._settle, call, id))
        return reply

    def _settle(self, call: Call, id: str, _error: BaseException | None) -> None:
        usage = call.usage
        call.usage = self._unpaid.settle(id, usage) if usage is not None and usage.reported else None


def _read(call: Call) -> str | None:
    """The id of a response whose answer is asked for, or which is cancelled: that answers with it, too."""
    match call.path.split("/"):
        case ["", "responses", id] if call.method == "GET":
            return id
        case ["", "responses", id, "cancel"]:
            return id
    return None
