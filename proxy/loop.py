"""The event loop's own health: how late it is, and where it stands when it does not move."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import FrameType

from proxy.core import events
from proxy.core.metrics import Registry
from proxy.ticks import next_tick

#: Seconds between two beats, and between two looks at them.
_EVERY = 0.1

#: Tasks are counted at every so many beats: counting 20,000 of them takes 9 ms.
_TASKS_EVERY = 10

_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)

#: A loop that has not moved for longer is blocked, in seconds.
BLOCKED = 0.25

#: Frames of a stack that are told, the innermost.
_FRAMES = 12

#: Told where the loop stands, and for how many seconds by now.
Tell = Callable[[float, list[str]], None]


class LagMeter:
    """How late a timer fires: what every request waits beside its own work. Ten times a second; once a second, tasks are counted."""

    def __init__(self, metrics: Registry) -> None:
        self._lag = metrics.histogram("comporta_event_loop_lag_seconds", "How late the event loop is.", _BOUNDS).labels()
        self._tasks = metrics.gauge("comporta_tasks", "Tasks of the event loop that have not ended, once a second.").labels()
        self._beats = 0
        self._handle: asyncio.TimerHandle | None = None
        self._due = 0.0
        self.beat = 0.0  # `time.monotonic()` when the loop was last seen to move
        self.late: Callable[[float, float], None] | None = None

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self.beat = time.monotonic()
        self._due = next_tick(loop.time(), _EVERY)
        self._handle = loop.call_at(self._due, self._tick)

    def _tick(self) -> None:
        self._lag.observe(max(0.0, asyncio.get_running_loop().time() - self._due))
        if self._beats % _TASKS_EVERY == 0:
            self._tasks.set(len(asyncio.all_tasks()))
        self._beats += 1
        before = self.beat
        self.start()
        if self.late is not None and self.beat - before > BLOCKED:
            self.late(before, self.beat - before)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()


class Watchdog:
    """A thread that sees when the loop does not move, and says where it stands: files, lines and functions, no values.

    What holds the interpreter's lock hides the loop from every thread; it is counted and told afterwards, without its place.
    """

    def __init__(self, meter: LagMeter, metrics: Registry, *, tell: Tell | None = None) -> None:
        self._meter = meter
        self._blocked = metrics.counter("comporta_event_loop_blocked_total", "Times that the loop stood still for over 250 ms.").labels()
        self._tell = tell or _log
        self._told = 0.0
        self._ending = threading.Event()
        self._watched = 0
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        """Watch the loop of the calling thread."""
        self._watched = threading.get_ident()
        self._meter.late = self._was_late
        self._thread.start()

    def stop(self) -> None:
        self._meter.late = None
        self._ending.set()

    def _watch(self) -> None:
        while not self._ending.wait(_EVERY):
            beat = self._meter.beat
            still = time.monotonic() - beat
            if still > BLOCKED and beat != self._told:
                self._note(beat, still, stack_of(sys._current_frames().get(self._watched)))

    def _was_late(self, beat: float, seconds: float) -> None:
        """The loop moves again."""
        if beat == self._told:
            events.warning("event_loop_moves_again", seconds=round(seconds, 3))
        else:
            self._note(beat, seconds, [])

    def _note(self, beat: float, seconds: float, stack: list[str]) -> None:
        self._told = beat
        self._blocked.value += 1
        self._tell(seconds, stack)


def stack_of(frame: FrameType | None) -> list[str]:
    """`file:line:function` of the innermost frames, the outermost of them first."""
    if frame is None:
        return []
    return [f"{summary.filename}:{summary.lineno}:{summary.name}" for summary in traceback.extract_stack(frame, limit=None)[-_FRAMES:]]


def _log(seconds: float, stack: list[str]) -> None:
    events.warning("event_loop_blocked", seconds=round(seconds, 3), place=stack[-1] if stack else None, frames=stack)
