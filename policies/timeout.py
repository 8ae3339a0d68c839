"""How long one attempt may take. The decision is here; the transport and the dispatch keep to it."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import replace

from pydantic import Field

from proxy.core.call import Call, Timeouts
from proxy.core.errors import CapacityError
from proxy.core.protocols import Handler, Services
from proxy.core.reply import Reply
from proxy.fields import Section

#: The official SDKs tell how long they will wait for the next byte. Source: openai-python, `_base_client.py`.
CLIENT_READ_TIMEOUT = "x-stainless-read-timeout"

#: Seconds beyond the client's patience: its own time-out, not our answer in the same moment, is what its caller is written for.
_AFTER_CLIENT = 0.25

_UNTOLD = 0.0


class TimeoutSettings(Section):
    """Whose patience counts beside the provider's own."""

    honour_client: bool = Field(True, description=f"end an attempt when the client that sent {CLIENT_READ_TIMEOUT} will have given up")


class Timeout:
    Settings = TimeoutSettings

    def __init__(self, settings: TimeoutSettings, services: Services) -> None:
        self._honour_client = settings.honour_client
        self._clock = services.clock

    def __call__(self, call: Call, call_next: Handler) -> Awaitable[Reply]:
        # Without a coroutine of its own: nothing is waited for here.
        if self._honour_client:
            patience = call.memo.get(self)
            if patience is None:
                told = call.headers.get(CLIENT_READ_TIMEOUT)
                patience = call.memo[self] = (told is not None and parse_patience(told)) or _UNTOLD
            if patience is not _UNTOLD:
                self._narrow(call, patience)
        if call.deadline is not None and call.timeouts is not None:
            call.timeouts = until(call.timeouts, call.deadline - self._clock.monotonic())
        return call_next(call)

    @staticmethod
    def _narrow(call: Call, patience: float) -> None:
        """A whole answer must begin within the client's read timeout; of a stream each silence must be shorter than it."""
        if call.timeouts is None:
            return
        if call.stream:
            limits = call.timeouts
            call.timeouts = replace(limits, first_token=_least(limits.first_token, patience), idle=_least(limits.idle, patience))
        elif call.deadline is None or call.started + patience < call.deadline:
            call.deadline = call.started + patience


def parse_patience(text: str) -> float | None:
    """Seconds until the client will have given up, or None for what makes no sense."""
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds + _AFTER_CLIENT if 0 < seconds < float("inf") else None


def until(limits: Timeouts, left: float) -> Timeouts:
    """`limits` cut to the `left` seconds. Raises CapacityError (504) when nothing is left."""
    if left <= 0:
        raise CapacityError("The request's deadline has passed.", status=504, code="deadline_exceeded")
    return replace(
        limits, connect=_least(limits.connect, left), first_token=_least(limits.first_token, left), total=_least(limits.total, left)
    )


def _least(limit: float | None, other: float) -> float:
    return other if limit is None or other < limit else limit
