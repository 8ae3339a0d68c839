"""Stand-ins for what `proxy.core.protocols` describes: a clock moved by hand, answers from a script, a loop without waiting."""

from __future__ import annotations

import asyncio
import selectors
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Any, TypeVar

from proxy.core.call import Call, Timeouts
from proxy.core.errors import UpstreamError
from proxy.core.protocols import ShortCut, UpstreamRequest

T = TypeVar("T")

#: One step of a scripted body: bytes, an error to raise, or `STALL` to say nothing until failed or cancelled.
Step = bytes | UpstreamError | None
STALL: Step = None


class HandClock:
    """Stands still until it is moved."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return 1_700_000_000.0 + self.now

    def move(self, seconds: float) -> None:
        self.now += seconds


class _Selector(selectors.DefaultSelector):
    """Instead of waiting for a timer, moves the clock to it."""

    def __init__(self, clock: HandClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready:
            return ready
        if timeout is None:
            raise AssertionError("everything waits, and nothing will come: no timer is set")
        self._clock.move(timeout)
        return ready


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self, clock: HandClock) -> None:
        super().__init__(_Selector(clock))
        self._hand_clock = clock

    def time(self) -> float:
        return self._hand_clock.now


def in_virtual_time(main: Callable[[HandClock], Coroutine[Any, Any, T]]) -> T:
    """Run `main` on a loop whose time is the clock that it is given: no wait takes any, and timers fall due in their order."""
    clock = HandClock()
    with asyncio.Runner(loop_factory=lambda: _Loop(clock)) as runner:
        return runner.run(main(clock))


class ScriptedResponse:
    """An answer whose head is there and whose body follows a script; see `proxy.core.protocols.UpstreamResponse`."""

    def __init__(
        self, script: Iterable[Step] = (), *, status: int = 200, headers: Mapping[str, str] | None = None, arrived: bytes | None = None
    ) -> None:
        self.arrived = arrived
        self.status = status
        self.headers = {"content-type": "application/json"} if headers is None else dict(headers)
        self.script = deque(script)
        self.closed = 0
        self.reused: bool | None = None
        self.failed: UpstreamError | None = None
        self.flows = False
        self.attached = 0
        self._woken = asyncio.Event()

    def attach(self, take: Callable[[bytes], bool], short_cut: ShortCut | None = None) -> Awaitable[None] | None:
        """With `flows`, the bytes of the script go to `take` until it has had enough or something else comes."""
        return self._flow(take) if self.flows and self.script else None

    async def _flow(self, take: Callable[[bytes], bool]) -> None:
        self.attached += 1
        while self.script and isinstance(piece := self.script[0], bytes):
            self.script.popleft()
            if not take(piece):
                return

    def ready(self) -> bytes | None:
        return self.arrived

    async def receive(self) -> bytes:
        if self.failed is not None:
            raise self.failed
        if not self.script:
            return b""
        step = self.script.popleft()
        if step is None:
            await self._woken.wait()
            assert self.failed is not None
            raise self.failed
        if isinstance(step, UpstreamError):
            raise step
        return step

    def fail(self, error: UpstreamError) -> None:
        self.failed = error
        self._woken.set()

    def close(self, *, reuse: bool = False) -> None:
        self.closed += 1
        if self.reused is None:
            self.reused = reuse


class ScriptedTransport:
    """Gives the answers of its script in turn, and keeps what was sent."""

    def __init__(self, *answers: ScriptedResponse | UpstreamError) -> None:
        self.answers = deque(answers)
        self.sent: list[UpstreamRequest] = []
        self.timeouts: list[Timeouts] = []
        self.closed = False

    async def send(self, request: UpstreamRequest, timeouts: Timeouts) -> ScriptedResponse:
        self.sent.append(request)
        self.timeouts.append(timeouts)
        answer = self.answers.popleft()
        if isinstance(answer, UpstreamError):
            raise answer
        return answer

    async def close(self) -> None:
        self.closed = True


async def no_body(_call: Call) -> None:
    """There is none to receive."""


def make_call(operation: str = "chat", **members: Any) -> Call:
    """A call as the edge makes it; `members` are set on it."""
    call = Call("req_1", operation, "POST", "/chat/completions", "", {}, 1000.0, no_body)
    for name, value in members.items():
        setattr(call, name, value)
    return call


def every_cut(data: bytes) -> Iterable[tuple[bytes, ...]]:
    """`data` whole, byte by byte, and in two at every point."""
    yield (data,)
    yield tuple(data[at : at + 1] for at in range(len(data)))
    for at in range(1, len(data)):
        yield (data[:at], data[at:])
