"""OpenAI's event streams, decoded with as little reading as each event needs.

Most events differ from one that was read in their text alone, and go through without being parsed (`frame.py`).
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from providers.openai.errors import error_in_body
from providers.openai.frame import Frame, frame_of
from proxy.core.call import Usage
from proxy.core.errors import UpstreamError
from proxy.core.splice import remove_member
from proxy.core.sse import Event, EventDecoder, ProtocolError

_CHAT_NAMES = ("prompt_tokens", "completion_tokens", "prompt_tokens_details", "completion_tokens_details")
_RESPONSE_NAMES = ("input_tokens", "output_tokens", "input_tokens_details", "output_tokens_details")

DONE = b"data: [DONE]\n\n"
_DELTA = b".delta"
_BETWEEN = b"\n\ndata: "
_USAGE = b'"usage"'
_NULL_USAGES = (b',"usage":null', b', "usage": null')

#: Frames in a row that fitted nothing, after which all of a stream's events are read: each is different (they tell probabilities, say).
_FRAMES = 8

_TOO_LARGE = "The provider sent an event that is larger than the limit."
_CUT = "The provider's stream ended before the answer was complete."


def read_usage(usage: Any) -> Usage | None:
    """Tokens of a usage object in either of OpenAI's spellings; None if it is none."""
    if type(usage) is not dict:
        return None
    names = _CHAT_NAMES if "prompt_tokens" in usage else _RESPONSE_NAMES
    prompt, completion, prompt_details, completion_details = map(usage.get, names)
    cached = _count(prompt_details.get("cached_tokens")) if type(prompt_details) is dict else 0
    reasoning = _count(completion_details.get("reasoning_tokens")) if type(completion_details) is dict else 0
    return Usage(_count(prompt), _count(completion), cached, reasoning, True)


def _count(value: Any) -> int:
    return value if type(value) is int and value >= 0 else 0


def _canonical(data: bytes) -> int:
    """How many events `data` is, which begins and ends like one; 0 unless each is `data: `, one line of it, and a blank one."""
    count = data.count(_BETWEEN) + 1
    return count if data.count(b"\n") == 2 * count else 0


class ChatDecoder:
    """Streams of chat and legacy completions, which end with `[DONE]` after a finish_reason for each choice.

    `choices` is how many finish reasons make the stream whole. Usage is asked for on the client's behalf; unless `wants_usage`,
    it is taken out again.
    """

    def __init__(self, limit: int, *, choices: int = 1, wants_usage: bool = False) -> None:
        self.usage: Usage | None = None
        self.tokens = 0
        self.started = False
        self.done = False
        self.mended = False
        self.failure: UpstreamError | None = None
        self._choices = choices
        self._limit = limit
        self._finished = 0
        self._wants_usage = wants_usage
        self._events = EventDecoder(limit)
        self._whole = True
        self._frame: Frame | None = None
        self._hidden = b""
        self._framed = 0
        self._frames_left = _FRAMES

    def feed(self, data: bytes) -> bytes:
        frame = self._frame
        if frame is None or not self._whole or len(data) > self._limit:
            return self._fed(data)
        passed, size = 0, len(data)
        while end := frame.end(data, passed):
            self.tokens += 1
            passed = end
            if end == size:
                return data.replace(self._hidden, b"") if self._hidden else data
        if not passed:
            return self._fed(data)
        events = data[:passed]
        return (events.replace(self._hidden, b"") if self._hidden else events) + self._fed(data[passed:])

    def _fed(self, data: bytes) -> bytes:
        """The same for what is not known by its frame."""
        if self._whole and data[:6] == b"data: " and data[-2:] == b"\n\n":
            # Mostly one event comes at a time: its first line ends where it does.
            count = 1 if data.find(b"\n") == len(data) - 2 else _canonical(data)
            if count and b"\r" not in data and len(data) <= self._limit:
                self._events.start()
                return self._decoded([data[6:-2]] if count == 1 else data[6:-2].split(_BETWEEN))
        try:
            events = self._events.feed(data)
        except ProtocolError as error:
            frames = self._decoded([event.data for event in error.events])
            if self.failure is None and not self.done:
                self.failure = UpstreamError("response_too_large", _TOO_LARGE)
            return frames
        self._whole = self._events.is_clean
        return self._decoded([event.data for event in events])

    def _decoded(self, events: list[bytes]) -> bytes:
        """The client's events for the data of the provider's."""
        frames = []
        try:
            for data in events:
                if self.done:
                    break
                frames.append(self._event(data))
        except UpstreamError as error:
            self.failure = error
        return b"".join(frames)

    def _event(self, data: bytes) -> bytes:
        if data.startswith(b"[DONE]"):
            return self._end()
        chunk = _parsed(data)
        if chunk.get("error"):
            raise error_in_body(chunk["error"])
        choices = chunk.get("choices")
        tokens, finished = self.tokens, self._finished
        if isinstance(choices, list):
            self._read(choices)
        shown = data
        if "usage" in chunk:
            usage = chunk["usage"]
            if usage:
                self.usage = read_usage(usage) or self.usage
            if not self._wants_usage:
                if usage and not choices:
                    return b""
                shown = _without_usage(data)
        if self._frames_left and self.tokens == tokens + 1 and self._finished == finished and not chunk.get("usage"):
            self._remember(data, shown)
        return b"data: %b\n\n" % shown.replace(b"\n", b" ")

    def _remember(self, data: bytes, shown: bytes) -> None:
        """The frame of an event that brought one content and nothing else, and what of it is not `shown`."""
        self._frames_left = self._frames_left - 1 if self._framed == self.tokens - 1 else _FRAMES
        self._framed = self.tokens
        self._frame, self._hidden = None, b""
        if shown != data:
            self._hidden = next((null for null in _NULL_USAGES if data.replace(null, b"") == shown), b"")
        if self._frames_left and b"\n" not in data and (self._hidden or shown == data):
            self._frame = frame_of(b"data: %b\n\n" % data)

    def _read(self, choices: list[Any]) -> None:
        for choice in choices:
            if not isinstance(choice, dict):
                continue
            if choice.get("finish_reason"):
                self._finished += 1
                self.started = True
            delta = choice.get("delta")
            if choice.get("text") or (isinstance(delta, dict) and any(delta[name] for name in delta if name != "role")):
                self.tokens += 1
                self.started = True

    def _end(self) -> bytes:
        self.done = True
        if not self.started:
            raise UpstreamError("invalid_response", "The provider's stream holds no choices.")
        return DONE

    def eof(self) -> bytes:
        if self.done:
            return b""
        rest = self._events.eof()
        if rest.startswith(b"[DONE]") or self._finished >= self._choices:
            self.mended = True
            return self._decoded([b"[DONE]"])
        if self.started:
            self.failure = UpstreamError("stream_truncated", _CUT)
        else:
            self.failure = UpstreamError("invalid_response", "The provider's stream ended before it began.")
        return b""


class TypedEventDecoder:
    """Streams of named events: responses, audio, images, threads. They go through as they came, event by event.

    With `terminal` (the Responses API), a stream that ends without one of its closing events was cut.
    """

    _NUMBER = re.compile(rb'"sequence_number": ?(\d{1,15})')
    _CLOSING = frozenset({"response.completed", "response.failed", "response.incomplete", "error"})

    def __init__(self, limit: int, *, terminal: bool) -> None:
        self.usage: Usage | None = None
        self.tokens = 0
        self.started = False
        self.done = False
        self.mended = False
        self.failure: UpstreamError | None = None
        self._terminal = terminal
        self._closed = False
        self._last = b""
        self._limit = limit
        self._events = EventDecoder(limit)
        self._whole = True

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
            events, too_large = error.events, UpstreamError("response_too_large", _TOO_LARGE)
        self._whole = self._events.is_clean
        try:
            for event in events:
                frames.append(self._event(event))
            self.failure = too_large
        except UpstreamError as error:
            self.failure = error
        return b"".join(frames)

    def _event(self, event: Event) -> bytes:
        if not event.data.startswith(b"[DONE]"):
            self._read(event)
        self._last = event.data
        self.tokens += b"delta" in (event.name or event.data[:80])
        self.started = True
        name = b"event: %b\n" % event.name if event.name else b""
        lines = event.data.replace(b"\n", b"\ndata: ")
        return b"%bdata: %b\n\n" % (name, lines)

    def _read(self, event: Event) -> None:
        if self.started and event.name.endswith(_DELTA):
            return  # a piece of text: it ends nothing
        if not (event.name in (b"", b"error") or b"completed" in event.name or b"done" in event.name or b"response." in event.name):
            return
        value = _parsed(event.data)
        kind = value.get("type")
        if not self.started and (kind == "error" or (event.name in (b"", b"error") and value.get("error"))):
            raise error_in_body(value.get("error") or value)
        if isinstance(kind, str) and kind in self._CLOSING:
            self._closed = True
        inner = value.get("response")
        usage = inner.get("usage") if isinstance(inner, dict) else value.get("usage")
        if usage:
            self.usage = read_usage(usage) or self.usage

    @property
    def following(self) -> int:
        """The number of the event after the last one, where they are numbered (the Responses API); else 0."""
        number = self._NUMBER.search(self._last)
        return int(number[1]) + 1 if number else 0

    def eof(self) -> bytes:
        if self._events.eof() or (self._terminal and not self._closed):
            self.failure = UpstreamError("stream_truncated", _CUT)
        return b""


def _without_usage(data: bytes) -> bytes:
    """An event's object without its own member `usage`; what is deeper inside stays."""
    name = data.find(_USAGE)
    if data.find(b"}", name) == len(data) - 1 and data.find(_USAGE, name + 1) < 0:
        # It is the only one, and nothing but the event's own object is closed after it.
        for null in _NULL_USAGES:
            at = name - null.index(_USAGE)
            if data.startswith(null, at):
                return data[:at] + data[at + len(null) :]
    return remove_member(data, "usage")


def _is_delta(data: bytes) -> bool:
    """Whether `data` is one canonical event that brings a piece of text, as `event: response.output_text.delta` does."""
    if data[:7] != b"event: " or data[-3:] != b"}\n\n":
        return False
    end = data.find(b"\n")
    is_piece = data[end - len(_DELTA) : end] == _DELTA and data[end + 1 : end + 8] == b"data: {"
    return is_piece and data.count(b"\n") == 3 and b"\r" not in data


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        try:
            # The event stream's own rule for bytes that are not UTF-8 is to replace them.
            value = orjson.loads(data.decode("utf-8", "replace"))
        except orjson.JSONDecodeError as error:
            raise UpstreamError("invalid_response", "The provider sent an event that is not valid JSON.", detail=str(error)) from None
    if not isinstance(value, dict):
        raise UpstreamError("invalid_response", "The provider sent an event that is not a JSON object.")
    return value
