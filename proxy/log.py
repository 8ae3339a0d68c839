"""The log: events as JSON lines, or as structlog shows them to people.

Nothing that logs waits for the disk or the pipe: lines are gathered, and written by a thread of their own. JSON is rendered where it is
logged, which takes a microsecond or two; a thread that renders would take the interpreter from the event loop. When writing falls behind by
more than `MOST` lines, the newest are dropped and counted: to stand still because nobody reads the log is the worse failure.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache, lru_cache
from io import FileIO
from itertools import islice
from math import floor
from select import PIPE_BUF
from typing import Any, BinaryIO

import orjson

from proxy.core import events

MOST = 100_000

#: Seconds that lines are gathered for one write.
_GATHERED = 0.05


class LineWriter:
    """Writes events in batches, on a thread. `dropped` counts the lines that it was too late for."""

    def __init__(self, stream: BinaryIO, *, pretty: bool, worker: int | None = None) -> None:
        """`pretty`: as people read it. `worker`: others write to the same pipe, and each line says who wrote it."""
        self._stream = stream
        self._worker = worker
        self._pretty = pretty
        # How a line goes on after the second that it is of.
        wrote = b"" if worker is None else b'"worker":%d,' % worker
        self._moments = tuple(b'%03dZ","level":"info",%b' % (thousandths, wrote) for thousandths in range(1000))
        # The second that the last line is of, a float as the clock's, and how lines begin in it.
        self._second = self._next = 0.0
        self._beginning = b""
        self._lines: deque[Any] = deque()  # bytes; events where they are shown in colours
        self._wanted = threading.Event()
        # What `_wanted.is_set()` would say, for less.
        self._is_wanted = False
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self.dropped = 0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Write what is left, for at most a second: the pipe may be stuck for good."""
        self._stopping = True
        self._wanted.set()
        self._thread.join(1.0)

    def __call__(self, event: dict[str, Any]) -> None:
        """Take one event; its `time` is seconds since the epoch. Never blocks."""
        if len(self._lines) >= MOST:
            self.dropped += 1
            return
        if self._worker is not None:
            event["worker"] = self._worker
        # Colours take long to render, and people read slowly: that is left to the thread.
        if not self._pretty:
            self._lines.append(_json(event))
        else:
            event.setdefault("time", time.time())
            self._lines.append(event)
        if not self._is_wanted:
            self._want()

    def members(self, shared: bytes, own: bytes) -> None:
        """Take an event of this moment that is JSON already; see `proxy.core.protocols.JSONLog`. Never blocks."""
        if self._pretty:
            self(orjson.loads(b"{%b,%b" % (shared, own[1:])))
            return
        lines = self._lines
        if len(lines) >= MOST:
            self.dropped += 1
            return
        moment = time.time()
        if not self._second <= moment < self._next:
            seconds = int(moment)
            self._second, self._next = float(seconds), seconds + 1.0
            self._beginning = b'{"timestamp":"%b.' % _told(seconds).encode()
        goes_on = self._moments[floor((moment - self._second) * 1e3)]
        lines.append(b"".join((self._beginning, goes_on, shared, b",", own[1:], b"\n")))
        if not self._is_wanted:
            self._want()

    def _want(self) -> None:
        self._is_wanted = True
        self._wanted.set()

    def _run(self) -> None:
        while not (self._stopping and not self._lines):
            self._wanted.wait()
            if not self._stopping:
                time.sleep(_GATHERED)
            self._wanted.clear()
            self._is_wanted = False  # in this order: what is appended between the two is written now
            self._write()

    def _write(self) -> None:
        gathered = self._lines
        # As many as there are now: others append meanwhile.
        taken = islice(iter(gathered.popleft, None), len(gathered))
        lines = list(map(_shown(self._stream.isatty()), taken)) if self._pretty else list(taken)
        if lines:
            try:
                for piece in [b"".join(lines)] if self._worker is None else whole_lines(lines):
                    _write_whole(self._stream, piece)
            except (OSError, ValueError):
                # Nowhere to say it: the log itself is what failed. The lines count as lost.
                self.dropped += len(lines)


def _write_whole(stream: BinaryIO, data: bytes) -> None:
    """Raises OSError, also where `stream` takes nothing now and would not wait."""
    left = memoryview(data)
    while left:
        written = stream.write(left)
        if written is None:
            raise BlockingIOError
        left = left[written:]
    stream.flush()


def whole_lines(lines: list[bytes], most: int = PIPE_BUF) -> Iterator[bytes]:
    """`lines` joined to pieces of at most `most` bytes: such a write to a pipe is one (pipe(7)), so that no other's comes into it."""
    piece = b""
    for line in lines:
        if piece and len(piece) + len(line) > most:
            yield piece
            piece = b""
        piece += line
    yield piece


def configure(writer: LineWriter) -> None:
    """Send our events, and what libraries log, to `writer`."""
    # Of aiohttp and asyncio only what somebody must act on.
    logging.basicConfig(level=logging.WARNING, handlers=[_Bridge(writer)], force=True)
    events.EAR.hear = writer


def writer_for(stream: BinaryIO | None = None, *, worker: int | None = None) -> LineWriter:
    """A writer to standard error, in colours where that is a terminal."""
    if stream is not None:
        return LineWriter(stream, pretty=False, worker=worker)
    # Not through `sys.stderr.buffer`: a write that is stuck holds its lock, for which the interpreter's end waits.
    standard = FileIO(sys.stderr.fileno(), "wb", closefd=False)
    return LineWriter(standard, pretty=standard.isatty(), worker=worker)


@lru_cache(maxsize=4)
def _told(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _json(event: dict[str, Any]) -> bytes:
    moment = event.pop("time", None) or time.time()
    seconds = int(moment)
    line = {"timestamp": f"{_told(seconds)}.{int((moment - seconds) * 1000):03d}Z", "level": "info", **event}
    return orjson.dumps(line, default=str, option=orjson.OPT_APPEND_NEWLINE)


@cache
def _shown(colours: bool) -> Callable[[dict[str, Any]], bytes]:
    """Makes lines for people. Loaded for the first of them: with structlog come rich and pygments, which are a tenth of a start."""
    import structlog

    console = structlog.dev.ConsoleRenderer(colors=colours)

    def render(event: dict[str, Any]) -> bytes:
        moment = datetime.fromtimestamp(event.pop("time"))
        known = {key: value for key, value in event.items() if value is not None}
        text = console(None, "", {"timestamp": moment.strftime("%H:%M:%S"), "level": "info", **known})
        return (str(text) + "\n").encode("utf-8", "replace")

    return render


class _Bridge(logging.Handler):
    """Hands over where libraries' records come from, and their type: the text may hold a client's bytes."""

    def __init__(self, writer: LineWriter) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        level = record.levelname.lower()
        error = record.exc_info[1] if record.exc_info else None
        place, kind = f"{record.module}:{record.lineno}", type(error).__name__ if error else None
        self._writer({"logger": record.name, "place": place, "error": kind, "event": "library", "level": level})
