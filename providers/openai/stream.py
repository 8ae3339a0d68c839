"""OpenAI's streams of chunks, decoded with as little reading as each event needs.

Most events differ from one that was read in their text alone, and go through without being parsed (`frame.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

import msgspec

from providers.openai.errors import error_beside_success, error_in_body
from providers.openai.frame import Frame, frame_of
from providers.openai.usage import read_usage, with_later
from providers.openai.value import read_event
from proxy.core.call import Usage
from proxy.core.errors import UpstreamError
from proxy.core.recast import PLAIN, SHORT
from proxy.core.splice import remove_member, set_member
from proxy.core.sse import Event, EventDecoder, ProtocolError

_CR, _LF, _BRACE = b"\r\n}"  # to look for a byte by its number costs a tenth of what it costs to look for bytes
_BETWEEN = b"\n\ndata: "
_USAGE = b'"usage"'
_BASE_RESP = b'"base_resp"'
_AROUND = len(b"data: \n\n")
_LAST_NULL = b',"usage":null}'
_NULL_USAGES = (_LAST_NULL[:-1], b', "usage": null')

#: A choice that says nothing, of a chat and of a completion.
_NO_DELTA = b'{"index":0,"delta":{},"finish_reason":null}'
_NO_TEXT = b'{"index":0,"text":"","logprobs":null,"finish_reason":null}'

#: Frames in a row that fitted nothing, after which all of a stream's events are read: each is different (they tell probabilities, say).
_FRAMES = 8

DONE = b"[DONE]"
TOO_LARGE = "The provider sent an event that is larger than the limit."
CUT = "The provider's stream ended before the answer was complete."


class Endings:
    """How streams of one model end at one provider."""

    __slots__ = ("_has_reasons",)

    def __init__(self) -> None:
        self._has_reasons = False

    def fits(self, *, with_reason: bool) -> bool:
        """Whether a stream that ends like this is whole: one without a finish reason is, as long as none has come with one."""
        if with_reason:
            self._has_reasons = True
        return with_reason or not self._has_reasons


class ChatDecoder:
    """Streams of chat and legacy completions, which end with `[DONE]` after a finish_reason for each choice.

    `choices` is how many finish reasons make the stream whole. Usage is asked for on the client's behalf; unless `wants_usage`,
    what that adds is taken out again: an event without choices, and `usage: null` in the others. See decision 023.
    `endings` knows whether `[DONE]` alone is an end; see decision 025.
    """

    def __init__(self, limit: int, *, choices: int = 1, wants_usage: bool = False, endings: Endings | None = None) -> None:
        self.tokens = 0
        self.started = False
        self.done = False
        self.mended = False
        self.failure: UpstreamError | None = None
        #: The usage that was reported last, and how many contents had come by then.
        self._usage: Usage | None = None
        self._told = 0
        self._choices = choices
        self._limit = limit
        #: The choices that have ended, by their index, and the usage that each of them has told.
        self._finished: set[int] = set()
        self._told_by: dict[int, Usage] = {}
        self._wants_usage = wants_usage
        self._endings = endings
        #: Made for the first bytes that are not whole canonical events: most streams have none.
        self._events: EventDecoder | None = None
        self._begun = False
        self._whole = True
        #: The frame that events are looked for in; None while a part of one is held that is not whole.
        self.frame: Frame | None = None
        self._latest: Frame | None = None
        self._framed = 0
        self._frames_left = _FRAMES

    @property
    def usage(self) -> Usage | None:
        return with_later(self._usage, self.tokens, self._told)

    def feed(self, data: bytes) -> bytes:
        frame = self.frame
        if frame is None:
            return self._fed(data)
        head = data.removesuffix(frame.after)
        text = head.removeprefix(frame.before)
        size = len(text)
        if text and size < SHORT and size == len(data) - frame.around and text.translate(PLAIN) == text:
            self.tokens += 1
            return head + frame.shown_after if frame.hides else data
        if size == len(head) or len(data) > self._limit:
            return self._fed(data)  # it does not begin like the frame
        return self._taken(data, frame)

    def _taken(self, data: bytes, frame: Frame) -> bytes:
        """The same for events of which some have the frame, in whatever way."""
        passed, size = 0, len(data)
        shown: list[bytes] = []
        while passed < size and (end := frame.take(data, passed, shown)):
            self.tokens += 1
            passed = end
        if not passed:
            return self._fed(data)
        if passed < size:
            shown.append(self._fed(data[passed:]))
        return b"".join(shown)

    def _fed(self, data: bytes) -> bytes:
        """The same for what is not known by its frame."""
        if self._whole and data[:6] == b"data: " and data[-2:] == b"\n\n" and _CR not in data and len(data) <= self._limit:
            inner = data[6:-2]
            if _LF not in inner:  # mostly one event comes at a time
                self._begun = True
                return self._decoded((inner,))
            events = inner.split(_BETWEEN)
            for event in events:
                if _LF in event:
                    break
            else:
                self._begun = True
                return self._decoded(events)
        try:
            read = self._reader().feed(data)
        except ProtocolError as error:
            frames = self._decoded(map(_data_of, error.events))
            if self.failure is None and not self.done:
                self.failure = UpstreamError("response_too_large", TOO_LARGE)
            return frames
        self._whole = self._reader().is_clean
        shown = self._decoded(map(_data_of, read))
        self.frame = self._latest if self._whole else None
        return shown

    def _reader(self) -> EventDecoder:
        if self._events is None:
            self._events = EventDecoder(self._limit)
            if self._begun:
                self._events.start()
        return self._events

    def _decoded(self, events: Iterable[bytes]) -> bytes:
        """The client's events for the data of the provider's."""
        shown: list[bytes] = []
        try:
            for data in events:
                if self.done:
                    break
                event = self._event(data)
                if event:
                    shown += (b"data: ", event.replace(b"\n", b" ") if _LF in event else event, b"\n\n")
        except UpstreamError as error:
            self.failure = error.with_traceback(None)  # whose frames know this decoder
        return b"".join(shown)

    def _event(self, data: bytes) -> bytes:
        """What is shown of an event's data; nothing of an event that the client has not asked for."""
        if data[:6] == DONE:
            return self._end()
        if not data:
            return b""  # it keeps the connection open
        chunk = _chunk(data)
        if chunk.error:
            raise error_in_body(chunk.error)
        choices, usage = chunk.choices, chunk.usage
        if not choices and _BASE_RESP in data and (error := error_beside_success(read_event(data))) is not None:
            raise error
        is_content = type(choices) is list and self._read(choices)
        if usage is msgspec.UNSET:
            if is_content:
                self._remember(data, data, b"")
            return data
        if usage:
            self._tell(usage)
            is_content = False
            if not choices and not self._wants_usage:
                return _beside_usage(data) if chunk.citations else b""
        shown, hidden = (data, b"") if usage is not None or self._wants_usage else _without_usage(data)
        if is_content:
            self._remember(data, shown, hidden)
        return shown

    def _read(self, choices: list[Any]) -> bool:
        """Count what they bring; whether that is one content and nothing else."""
        contents = 0
        finished = False
        for choice in choices:
            if type(choice) is not dict:
                continue
            if choice.get("finish_reason"):
                finished = True
                self._finish(choice.get("index"))
            delta = choice.get("delta")
            if delta and type(delta) is dict:
                for name in delta:
                    if delta[name] and name != "role":
                        contents += 1
                        break
                else:
                    contents += bool(choice.get("text"))
            elif choice.get("text"):
                contents += 1
        if not contents and not finished:
            return False
        self.started = True
        self.tokens += contents
        if finished:
            self._tell_of(choices)
        return contents == 1 and not finished

    def _tell(self, usage: Any) -> None:
        before = self._usage
        if (found := read_usage(usage, of_text=True)) is not None and (found.completion or before is None or not before.completion):
            if before is not None and before.prompt and not (found.prompt or found.reported):
                found = replace(found, prompt=before.prompt, cached=before.cached, reported=True)  # which was told before
            self._usage, self._told = found, self.tokens

    def _tell_of(self, choices: list[Any]) -> None:
        """What each of those that end tells of itself, as Moonshot has it."""
        every = self._told_by.values()
        for choice in choices:
            if type(choice) is dict and (found := read_usage(choice.get("usage"), of_text=True)) is not None:
                self._told_by[index if type(index := choice.get("index")) is int else -1 - len(self._told_by)] = found
                completion, reasoning = sum(each.completion for each in every), sum(each.reasoning for each in every)
                found = Usage(found.prompt, completion, found.cached, reasoning, all(each.reported for each in every))
                self._usage, self._told = found, self.tokens

    def _finish(self, index: Any) -> None:
        """A choice has ended. Some say so twice; one without an index is taken for another each time."""
        self._finished.add(index if type(index) is int else -1 - len(self._finished))

    def _remember(self, data: bytes, shown: bytes, hidden: bytes) -> None:
        """The frame of an event that brought one content and nothing else, and what of it is not `shown`: `hidden`, where that is known."""
        left = self._frames_left
        if not left:
            return
        self._frames_left = left = left - 1 if self._framed == self.tokens - 1 else _FRAMES
        self._framed = self.tokens
        self.frame = self._latest = None
        if not hidden and shown is not data:
            return
        if left and _LF not in data and len(data) + _AROUND + SHORT <= self._limit:
            self.frame = self._latest = frame_of(b"data: %b\n\n" % data, hidden)

    def _end(self) -> bytes:
        if self._endings is not None and self.started and not self._endings.fits(with_reason=bool(self._finished)):
            raise UpstreamError("stream_truncated", CUT)
        self.done = True
        if not self.started:
            raise UpstreamError("invalid_response", "The provider's stream holds no choices.")
        return DONE

    def eof(self) -> bytes:
        if self.done:
            return b""
        rest = b"" if self._events is None else self._events.eof()
        if rest.startswith(DONE) or len(self._finished) >= self._choices:
            shown = self._decoded((DONE,))
            self.mended = self.done
            return shown
        kind, message = ("stream_truncated", CUT) if self.started else ("invalid_response", "The provider's stream ended before it began.")
        self.failure = UpstreamError(kind, message)
        return b""


def _data_of(event: Event) -> bytes:
    """What an event holds. Raises UpstreamError where its name says that it is an error: some then have no member `error`."""
    data = event.data
    if event.name == b"error" and data and not data.startswith(DONE):
        value = read_event(data)
        raise error_in_body(value.get("error") or value)
    return data


def _without_usage(data: bytes) -> tuple[bytes, bytes]:
    """An event's object without its own `usage: null`, what is deeper inside stays; and the bytes taken out, where they can be told."""
    name, head = data.find(_USAGE), data.removesuffix(_LAST_NULL)
    if name == len(head) + 1:
        return head + b"}", _NULL_USAGES[0]
    if _BRACE not in data[name:-1] and data.find(_USAGE, name + 1) < 0:
        # It is the only one, and nothing but the event's own object is closed after it.
        for null in _NULL_USAGES:
            start = name - null.index(_USAGE)
            if data[start : start + len(null)] == null:
                return data[:start] + data[start + len(null) :], null
    shown = remove_member(data, "usage")
    for null in _NULL_USAGES:
        if len(shown) + len(null) == len(data) and data.replace(null, b"") == shown:
            return shown, null
    return shown, b""


def _beside_usage(data: bytes) -> bytes:
    """What is shown of an event with `citations` beside its usage.

    It stands beside a choice that says nothing: clients that asked for no usage reckon with no event without choices.
    """
    value = read_event(data)
    choice = _NO_TEXT if value.get("object") == "text_completion" else _NO_DELTA
    return set_member(remove_member(data, "usage"), "choices", b"[%b]" % choice, present="choices" in value)


class _Chunk(msgspec.Struct, gc=False):
    """What is looked at of a chunk's event. The rest is checked to be JSON, and no objects are made of it; see decision 020."""

    choices: Any = None
    usage: Any = msgspec.UNSET
    error: Any = None
    #: xAI's, in the last event of a stream. Source: https://docs.x.ai/docs/guides/live-search
    citations: Any = None


_decode_chunk: Final = msgspec.json.Decoder(_Chunk).decode


def _chunk(data: bytes) -> _Chunk:
    try:
        return _decode_chunk(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        value = read_event(data)
        usage = value.get("usage", msgspec.UNSET)
        return _Chunk(value.get("choices"), usage, value.get("error"), value.get("citations"))
