"""A request's body as it arrives: read whole, or passed on piece by piece, within its bounds of bytes and time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from copy import copy

from proxy.core.call import Call, Content
from proxy.core.errors import ClientDisconnected, ClientError
from proxy.http.form import FormReader, boundary_of, too_late
from proxy.http.known_head import Payload, WholeBody
from proxy.http.parse import checked_model

#: Operations whose forms are held back until their model is known. Of all others only the fields that stand before the first file are.
_NAMED_ANYWHERE = frozenset({"audio", "images", "videos"})

#: Those of them that nobody serves without a model.
_NEEDS_MODEL = frozenset({"/audio/transcriptions", "/audio/translations"})

#: Bytes of a form that are held back: the files that OpenAI takes in one (25 MB of sound), which its own examples for curl put before the
#: model; no more than a JSON body may take. And where files are not held back, bytes of the fields before them.
MOST_HELD = 32 * 2**20
_MOST_FIELDS = 64 * 1024

#: A body may take so many pauses' time in all (a minute by default), and a second more for so many bytes that came. Go's servers bound the
#: whole, nginx only the pause; this is Apache's way (mod_reqtimeout, `MinRate`), which large uploads over slow lines survive.
_PAUSES = 4
_RATE = 4096


def length_of(headers: Mapping[str, str], reader: Payload) -> int | None:
    """How many bytes it has, where that is known before all of it has come."""
    if isinstance(reader, WholeBody):
        return len(reader.data)
    announced = headers.get("Content-Length")
    return None if announced is None else int(announced)


def in_hand(reader: Payload, limit: int) -> bytes:
    """A body of which all has come. Raises ClientError: 413 past `limit` bytes."""
    data: bytes = reader.data if isinstance(reader, WholeBody) else reader.read_nowait(-1)
    if len(data) > limit:
        raise too_large(limit)
    return data


async def read_body(call: Call, reader: Payload, *, limit: int, patience: float) -> bytes:
    """A whole body. Raises ClientError: 413 past `limit` bytes, 408 as `Arrival` does."""
    if reader.is_eof():
        return in_hand(reader, limit)
    return b"".join([part async for part in Arrival(call, reader, limit=limit, patience=patience)])


class Arrival:
    """A body on its way, of `limit` bytes in all: `call.bytes_in` counts them, so that a record says what came also where it is not whole.

    The time that is spent with what came is not the client's and is not counted.
    """

    def __init__(self, call: Call, reader: Payload, *, limit: int, patience: float) -> None:
        self._call = call
        self._reader = reader
        self._limit = limit
        self._patience = patience
        self._left = patience * _PAUSES

    @property
    def is_over(self) -> bool:
        return self._reader.at_eof()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The body, or what is left of it, as it comes. Raises as `next`."""
        while not self.is_over:
            data = await self.next()
            if data:
                yield data

    async def next(self) -> bytes:
        """What came since.

        Raises ClientError: 413 past the limit, 408 after `patience` seconds without a byte, or when the whole takes too long.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(max(0.0, min(self._patience, self._left))):
                data = await self._reader.readany()
        except TimeoutError:
            raise ClientError("The request's body did not arrive in time.", status=408, code="request_timeout") from None
        except (asyncio.CancelledError, ClientError):
            raise
        except Exception:  # noqa: BLE001 - aiohttp sets whatever ended the connection
            raise ClientDisconnected("The request's body broke off.") from None
        finally:
            took = loop.time() - began
            self._call.awaited += took
        self._left += len(data) / _RATE - took
        self._call.bytes_in += len(data)
        if self._call.bytes_in > self._limit:
            raise too_large(self._limit)
        return data


def too_large(limit: int) -> ClientError:
    return ClientError(f"The request's body is larger than {limit} bytes.", status=413, code="request_too_large")


def unsupported_coding(coding: str) -> ClientError:
    """For a body that is compressed: 415, as RFC 9110 8.4 has it. Passed on as it is, it would be stored so, since its coding is not."""
    message = f"The request's body has the content coding {coding[:64]!r}; send it without one."
    return ClientError(message, status=415, code="unsupported_media_type")


async def read_content(call: Call, arrival: Arrival, content_type: str, length: int | None, *, most: int) -> Content:
    """A body that is passed on. Raises as `read_form` for one that is a form, of which `most` bytes may be held back."""
    if content_type[:10].lower() == "multipart/":
        return await read_form(call, arrival, content_type, length, most=most)
    return RawContent(arrival, length)


async def read_form(call: Call, arrival: Arrival, content_type: str, length: int | None, *, most: int = MOST_HELD) -> FormContent:
    """A form, read as far as its model, which `call` is given, or as it may be held back for one: `most` bytes.

    Raises as `Arrival.next`, and ClientError (400) for a form that cannot be read, or whose model comes too late.
    """
    reader = FormReader(boundary_of(content_type))
    held: deque[bytes] = deque()
    behind_files, size = call.operation in _NAMED_ANYWHERE, 0
    while reader.model is None and not reader.is_closed and not arrival.is_over:
        if size > min(most, MOST_HELD if behind_files else _MOST_FIELDS) or (reader.in_file and not behind_files):
            if call.path in _NEEDS_MODEL:
                raise too_late()
            reader.go_on_without()
            break
        came = await arrival.next()
        size += len(came)
        passed = reader.feed(came)
        if passed:
            held.append(passed)
    form = FormContent(reader, held, arrival, length)
    if reader.model != b"" or call.model is None:  # the path may have named one
        call.model = form.model
    if arrival.is_over:
        form.require_end()
    return form


class FormContent:
    """A client's form as it arrives, its beginning read already; see `proxy.core.call.Content`.

    The rest is read as it is passed on. Whatever is wrong with it is raised then (ClientError, 400), and its end is never passed on.
    """

    def __init__(self, reader: FormReader, held: deque[bytes], rest: Arrival, length: int | None) -> None:
        self.length = length
        self._reader = reader
        self._held = held
        self._rest = rest
        self._model = reader.model
        self._head = self._tail = b""
        self._added = b""  # a part that names the model, where the client's has none
        if self._model is not None:
            last, at = held.pop(), reader.model_at
            self._head, self._tail = last[: at.start], last[at.stop :]

    @property
    def model(self) -> str | None:
        """Raises ClientError (400 `invalid_value`) for what is no name."""
        if self._model is None:
            return None
        try:
            return checked_model(self._model.decode())
        except UnicodeDecodeError:
            raise ClientError("'model' is not in UTF-8.", param="model", code="invalid_value") from None

    def require_end(self) -> None:
        """Of a form that came whole. Raises ClientError (400) where it has no end."""
        self._tail += self._reader.end()

    def named(self, model: str) -> FormContent:
        before, other = self._model, copy(self)
        if before is None:
            other._added = self._reader.opened_with(model)
            if other.length is not None:
                other.length += len(other._added) - len(self._added)
            return other
        other._model = value = model.encode()
        other._head = self._reader.named(self._head, value)
        if other.length is not None:
            other.length += len(value) - len(before) + len(other._head) - len(self._head)
        return other

    async def __aiter__(self) -> AsyncIterator[bytes]:
        # Nothing empty: in a chunked body that would be its end.
        if self._added:
            yield self._added
        while self._held:
            yield self._held.popleft()
        head = self._head + (self._model or b"") + self._tail
        if head:
            yield head
        async for data in self._rest:
            passed = self._reader.feed(data)
            if self._rest.is_over:
                # Before the last bytes of a body go, whose length was announced: without them it has no end.
                passed += self._reader.end()
            if passed:
                yield passed
        last = self._reader.end()
        if last:
            yield last


class RawContent:
    """A client's body that is no form, as it arrives; see `proxy.core.call.Content`."""

    def __init__(self, rest: Arrival, length: int | None) -> None:
        self.length = length
        self._rest = rest

    def named(self, _model: str) -> RawContent:
        return self

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._rest)
