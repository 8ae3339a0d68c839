"""OpenAI's streams of named events: responses, audio, images, threads. Each event says what it is, and goes through as it came."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from providers.openai.errors import error_in_body
from providers.openai.stream import CUT, DONE, TOO_LARGE
from providers.openai.usage import read_usage, with_later
from providers.openai.value import read_event
from proxy.core.call import Usage
from proxy.core.errors import UpstreamError
from proxy.core.sse import Event, EventDecoder, ProtocolError

_DELTA = b".delta"
_DATA = b"\ndata: {"
_CR, _LF = b"\r\n"  # to look for a byte by its number costs less than to look for bytes

#: So many beginnings of events are known, each of at most so many bytes.
_MOST_BEGINNINGS = 256
_LONGEST = 128

_NUMBER = re.compile(rb'"sequence_number": ?(\d{1,15})')

#: What a response begins with before the model has begun to work, each at most once: as a chat does with the role. See decision 005.
_OPENING = ("response.created", "response.queued", "response.in_progress")

#: What a response ends with that has not failed. The last two are no events of OpenAI's own streams: others send them, as OpenAI's
#: webhooks and its realtime API do.
_CLOSING = ("response.completed", "response.incomplete", "response.cancelled", "response.done")
_FAILED = "response.failed"


class TypedEventDecoder:
    """They go through event by event.

    `terminal`: the stream (of the Responses API) ends with an event of its own, and is cut without one. Its opening events are held, and
    start it not, unless it starts `at_once`: a response in the background is its client's from its id on, and may wait for long.
    `subscribed`: it tells of what is asked for elsewhere, often only once this one is there. So it starts with its head, and goes on behind
    an error, which is told of something else.
    """

    def __init__(self, limit: int, *, terminal: bool, at_once: bool = False, subscribed: bool = False) -> None:
        self.made: str | None = None  # the response's id
        self.tokens = 0
        self.started = self._subscribed = subscribed
        self.done = False
        self.mended = False
        self.failure: UpstreamError | None = None
        #: The usage that was reported last, and how many contents had come by then.
        self._usage: Usage | None = None
        self._told = 0
        self._terminal = terminal
        self._opening = list(_OPENING) if terminal and not at_once else []
        self._last = b""
        self._limit = limit
        self._events = EventDecoder(limit)
        self._whole = True

    @property
    def usage(self) -> Usage | None:
        return with_later(self._usage, self.tokens, self._told)

    def feed(self, data: bytes) -> bytes:
        if self.started and self._whole and len(data) <= self._limit and _is_delta(data):
            self.tokens += 1
            self._last = data
            return data
        frames = []
        too_large = None
        try:
            events = self._events.feed(data)
        except ProtocolError as error:
            events, too_large = error.events, UpstreamError("response_too_large", TOO_LARGE)
        self._whole = self._events.is_clean
        try:
            for event in events:
                frames.append(self._event(event))
                if self.done:
                    return b"".join(frames)  # what follows the end is nobody's
            self.failure = too_large
        except UpstreamError as error:
            self.failure = error.with_traceback(None)  # whose frames know this decoder
        return b"".join(frames)

    def _event(self, event: Event) -> bytes:
        """What is shown of an event. Raises UpstreamError for one that is an error, or nonsense."""
        data = event.data
        if not data:
            return b""  # it keeps the connection open
        self.tokens += b"delta" in (event.name or data[:80])
        kind = None
        if data.startswith(DONE):
            if self._terminal:
                return b""  # it says nothing of the response: whether that is whole, its own last event has told, or none has
            self.started = True
        else:
            kind = self._read(event)
            if not self.started and kind in self._opening:
                self._opening.remove(kind)
            else:
                self.started = True
        self._last = data
        self.done = self._terminal and kind in _CLOSING
        return _shown(event)

    def _read(self, event: Event) -> str | None:
        """Take what is told of usage and of an end. Returns the event's type, where that is looked for."""
        name = event.name
        if name.endswith(_DELTA) and (self.started or self._last):
            if not _is_object(event.data):
                read_event(event.data)  # which says what is wrong with it, if anything is
            return None  # a piece of text: it ends nothing
        if not (name in (b"", b"error") or b"completed" in name or b"done" in name or b"response." in name):
            return None
        value = read_event(event.data)
        kind = value.get("type")
        inner = value.get("response")
        if self.made is None and self._terminal and isinstance(inner, dict) and isinstance(inner.get("id"), str):
            self.made = inner["id"]
        usage = inner.get("usage") if isinstance(inner, dict) else value.get("usage")
        if usage and (found := read_usage(usage) or _by_time(usage)) is not None:
            self._usage, self._told = found, self.tokens
        if not self._subscribed and (kind == "error" or (name in (b"", b"error") and value.get("error"))):
            error = value.get("error") or {member: value[member] for member in value if member != "type"}
            raise self._failed(error_in_body(error), event if name or kind == "error" else None)
        if kind == _FAILED and self._terminal:
            raise self._failed(error_in_body(inner.get("error") if isinstance(inner, dict) else None, of_response=True), event)
        return kind if isinstance(kind, str) else None

    def _failed(self, failure: UpstreamError, event: Event | None) -> UpstreamError:
        """What the provider says went wrong; with its own event, if that may be shown, where content has gone out already."""
        if self.started and event is not None and failure.kind != "provider_auth":
            failure.event = _shown(event)
        return failure

    @property
    def following(self) -> int:
        """The number of the event after the last one, where they are numbered (the Responses API); else 0."""
        number = _NUMBER.search(self._last)
        return int(number[1]) + 1 if number else 0

    def eof(self) -> bytes:
        rest = self._events.eof()
        if rest.startswith(DONE) and not self._terminal:
            self.mended = True
            return _shown(Event(DONE))
        if rest or self._terminal:
            self.failure = UpstreamError("stream_truncated", CUT)
        return b""


def _by_time(usage: Any) -> Usage | None:
    """No tokens, where sound is charged by its length; there is nothing to estimate then."""
    return Usage(reported=True) if isinstance(usage, dict) and usage.get("type") == "duration" else None


def _shown(event: Event) -> bytes:
    name = b"event: %b\n" % event.name if event.name else b""
    lines = event.data.replace(b"\n", b"\ndata: ")
    return b"%bdata: %b\n\n" % (name, lines)


class _Beginnings(dict[bytes, bool]):
    """An event up to its object's brace -> whether it brings a piece of text, as `event: response.output_text.delta` does."""

    def __missing__(self, begin: bytes) -> bool:
        found = begin.startswith(b"event: ") and begin.endswith(_DELTA + _DATA)
        if found and len(begin) <= _LONGEST:
            if len(self) >= _MOST_BEGINNINGS:
                self.clear()
            self[begin] = found
        return found


_begins_delta: Final = _Beginnings().__getitem__


class _Object(msgspec.Struct, gc=False):
    """What it holds is passed over."""


_decode: Final = msgspec.json.Decoder(_Object).decode


def _is_object(data: bytes) -> bool:
    """Whether it is a JSON object for certain."""
    try:
        _decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False
    return True


def _is_delta(data: bytes) -> bool:
    """Whether `data` is one canonical event that brings a piece of text, and an object."""
    end = data.find(_LF) + len(_DATA)
    if not _begins_delta(data[:end]) or data[-3:] != b"}\n\n" or data.count(_LF) != 3 or _CR in data:
        return False
    return _is_object(data[end - 1 : -2])
