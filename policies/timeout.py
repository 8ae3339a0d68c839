"""How long one attempt may take. The decision is here; the transport and the dispatch keep to it."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field, replace

from pydantic import Field

from proxy.core.call import Call, Timeouts
from proxy.core.errors import CapacityError
from proxy.core.protocols import Handler, Services
from proxy.core.reply import Reply
from proxy.fields import Section

#: How long a client waits for the next byte, in seconds. Sources: openai-python, `_base_client.py`; openai-java, `OkHttpClient.kt`.
CLIENT_READ_TIMEOUT = "x-stainless-read-timeout"

#: How long it waits for an answer, in whole seconds cut off: openai-node for its head (`client.js`), openai-go (`requestconfig.go`) and
#: openai-java for all of it. openai-node and openai-go say it only where their caller has set it.
CLIENT_TIMEOUT = "x-stainless-timeout"

#: Seconds that a client's word, or a deadline, may lengthen our defaults to: what waits longer than that is no client of an answer.
CLIENT_WAITS_AT_MOST = 3600.0

#: Operations whose answers are read whole before anything of them goes out, unless they are streamed: to the client such an answer's first
#: byte is its last, too.
READ_WHOLE = frozenset({"chat", "completion", "embedding", "responses"})

#: Seconds beyond the client's patience: its own time-out, not our answer in the same moment, is what its caller is written for.
_AFTER_CLIENT = 0.25

_TOTAL = frozenset({"total"})

#: What may have been cut off of a time that is told in whole seconds.
_CUT_OFF = 1.0


class TimeoutSettings(Section):
    """Whose patience counts beside the provider's own."""

    honour_client: bool = Field(
        True,
        description=f"go by what the client says of its own time-outs ({CLIENT_READ_TIMEOUT}, {CLIENT_TIMEOUT}): wait no longer than it "
        "does, and as long as it does where nobody has set first_token, idle or total",
    )


@dataclass(slots=True)
class Patience:
    """What a client says of its own time-outs, in seconds, None where it does not.

    silence  how long it waits for the next byte
    answer   how long it waits for the answer's beginning, if not for all of it
    """

    silence: float | None = None
    answer: float | None = None
    _kept: tuple[Timeouts, bool, Timeouts] | None = field(default=None, compare=False, repr=False)

    @property
    def whole(self) -> float | None:
        """How long it waits for an answer that comes all at once."""
        return self.answer if self.silence is None else _least(self.answer, self.silence)

    def kept(self, limits: Timeouts, *, awaits_answer: bool) -> Timeouts:
        """As `narrowed`; a client's requests are much alike, so the last outcome is kept."""
        kept = self._kept
        if kept is None or kept[0] is not limits or kept[1] is not awaits_answer:
            kept = self._kept = limits, awaits_answer, narrowed(limits, self, awaits_answer=awaits_answer)
        return kept[2]


_UNTOLD = Patience()


class Timeout:
    Settings = TimeoutSettings

    def __init__(self, settings: TimeoutSettings, services: Services) -> None:
        self._honour_client = settings.honour_client
        self._clock = services.clock

    def __call__(self, call: Call, call_next: Handler) -> Awaitable[Reply]:
        # Without a coroutine of its own: nothing is waited for here.
        if call.deadline is not None and call.timeouts is not None:
            call.timeouts = lengthened(call.timeouts, call.deadline - self._clock.monotonic())
        if self._honour_client:
            patience = call.memo.get(self)
            if patience is None:
                patience = call.memo[self] = patience_of(call.headers)
            if patience is not _UNTOLD and call.timeouts is not None:
                self._keep_to(patience, call, call.timeouts)
        if call.deadline is not None and call.timeouts is not None:
            flows = call.stream or call.content is not None or call.operation not in READ_WHOLE
            call.timeouts = until(call.timeouts, call.deadline - self._clock.monotonic(), flows=flows)
        return call_next(call)

    def _keep_to(self, patience: Patience, call: Call, limits: Timeouts) -> None:
        awaits_answer = not call.stream and call.content is None
        call.timeouts = patience.kept(limits, awaits_answer=awaits_answer)
        call.patience = patience.whole if awaits_answer else patience.silence
        if not call.stream and call.operation in READ_WHOLE:
            # Of what is passed on as it comes, each silence is bounded and not the whole. The client began to wait when it had sent its
            # body, which had come before the first attempt: a later attempt's deadline is later, and so is not taken.
            whole = patience.whole
            ends = self._clock.monotonic() + whole if whole is not None else None
            if ends is not None and (call.deadline is None or ends < call.deadline):
                call.deadline = ends


def lengthened(limits: Timeouts, left: float) -> Timeouts:
    """`limits` whose defaults give way to a deadline that is further off: who set it bears an answer that takes so long.

    Not to `idle`: of silences between contents it says nothing.
    """
    first, total = limits.first_token, limits.total
    bears = min(left, CLIENT_WAITS_AT_MOST)
    if total is None or bears <= total or "total" not in limits.defaults:
        return limits
    if first is not None and "first_token" in limits.defaults:
        first = max(first, bears)
    return replace(limits, first_token=first, total=bears)


def narrowed(limits: Timeouts, patience: Patience, *, awaits_answer: bool) -> Timeouts:
    """`limits` for a client of this patience.

    The lesser of the two holds, but what is a mere default gives way. `awaits_answer`: the answer is all that the client waits for. Of a
    stream it may have the head long since, with a ping; and of a form it may still be sending.
    """
    first, idle, total = limits.first_token, limits.idle, limits.total
    silence, answer = patience.silence, patience.answer
    told = silence if silence is not None else answer
    bears = None if told is None else min(told, CLIENT_WAITS_AT_MOST)
    if silence is not None:
        first = bears if "first_token" in limits.defaults else _least(first, silence)
        idle = bears if "idle" in limits.defaults else _least(idle, silence)
    elif bears is not None:
        # What waits so long for the whole, or for its beginning, bears a silence that is as long.
        first = max(first, bears) if first is not None and "first_token" in limits.defaults else first
        idle = max(idle, bears) if idle is not None and "idle" in limits.defaults else idle
    if bears is not None and total is not None and "total" in limits.defaults and bears > total + _AFTER_CLIENT:
        total = bears
    if answer is not None and awaits_answer:
        first = _least(first, answer)
    return replace(limits, first_token=first, idle=idle, total=total)


def patience_of(headers: Mapping[str, str]) -> Patience:
    """What a request's headers say; always the same object where they say nothing."""
    silence, answer = headers.get(CLIENT_READ_TIMEOUT), headers.get(CLIENT_TIMEOUT)
    if silence is None and answer is None:
        return _UNTOLD
    waits = parse_patience(silence) if silence is not None else None
    ends = parse_patience(answer) if answer is not None else None
    if waits is None and ends is None:
        return _UNTOLD
    return Patience(waits, None if ends is None else ends + _CUT_OFF)


def parse_patience(text: str) -> float | None:
    """Seconds until the client will have given up, or None for what makes no sense."""
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds + _AFTER_CLIENT if 0 < seconds < float("inf") else None


def until(limits: Timeouts, left: float, *, flows: bool = False) -> Timeouts:
    """`limits` cut to the `left` seconds. Raises CapacityError (504) when nothing is left.

    `flows`: what goes on may outlast a total that nobody has set, but not these seconds.
    """
    if left <= 0:
        raise CapacityError("The request's deadline has passed.", status=504, code="deadline_exceeded")
    if limits.total is not None and limits.total <= left:
        # The total bounds the others.
        return replace(limits, left=left) if flows and "total" in limits.defaults else limits
    # What is left is somebody's word, as the total was not.
    return replace(
        limits,
        connect=_least(limits.connect, left),
        first_token=_least(limits.first_token, left),
        total=_least(limits.total, left),
        defaults=limits.defaults - _TOTAL,
    )


def _least(limit: float | None, other: float) -> float:
    return other if limit is None or other < limit else limit
