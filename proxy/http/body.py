"""A request's body as it arrives: read whole, or passed on piece by piece, within its bounds of bytes and time."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

from aiohttp import StreamReader

from proxy.core.call import Call
from proxy.core.errors import ClientDisconnected, ClientError

#: The `model` field of a form. Nothing in it goes back over what it has passed, and a line begins it once: a form may be made to be slow.
_FORM_MODEL = re.compile(
    rb'(?<=\r\n)content-disposition:[ \t]*+form-data;(?>[^\r\n]*?\bname="model")[^\r\n]*+\r\n'
    rb"(?:[^\r\n]++\r\n){0,16}+\r\n([^\r\n]*+)\r\n",
    re.IGNORECASE,
)
_FORM_HEAD = 64 * 1024

#: A body may take so many pauses' time in all (a minute by default), and a second more for so many bytes that came. Go's servers bound the
#: whole, nginx only the pause; this is Apache's way (mod_reqtimeout, `MinRate`), which large uploads over slow lines survive.
_PAUSES = 4
_RATE = 4096


def body_in_hand(reader: StreamReader, *, limit: int) -> bytes | None:
    """A body that came whole with its head; None where some of it is still to come. Raises ClientError: 413 past `limit` bytes."""
    if not reader.is_eof():
        return None
    # It is taken as it lies there: aiohttp's own way to it costs more than parsing it does.
    buffer = reader._buffer
    data = buffer[0] if len(buffer) == 1 and not reader._buffer_offset else reader.read_nowait(-1)
    if len(data) > limit:
        raise too_large(limit)
    return data


async def read_body(call: Call, reader: StreamReader, *, limit: int, patience: float) -> bytes:
    """A whole body. Raises ClientError: 413 past `limit` bytes, 408 as `Arrival` does."""
    in_hand = body_in_hand(reader, limit=limit)
    if in_hand is not None:
        return in_hand
    return b"".join([part async for part in Arrival(call, reader, limit=limit, patience=patience)])


class Arrival:
    """A body on its way, of `limit` bytes in all: `call.bytes_in` counts them, so that a record says what came also where it is not whole.

    The time that is spent with what came is not the client's and is not counted.
    """

    def __init__(self, call: Call, reader: StreamReader, *, limit: int, patience: float) -> None:
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
        self._left += len(data) / _RATE - (loop.time() - began)
        self._call.bytes_in += len(data)
        if self._call.bytes_in > self._limit:
            raise too_large(self._limit)
        return data


def too_large(limit: int) -> ClientError:
    return ClientError(f"The request's body is larger than {limit} bytes.", status=413, code="request_too_large")


def unsupported_coding(coding: str) -> ClientError:
    """For a JSON body that is compressed: 415, as RFC 9110 8.4 has it."""
    message = f"The request's body has the content coding {coding[:64]!r}; send it without one."
    return ClientError(message, status=415, code="unsupported_media_type")


async def form_head(arrival: Arrival) -> tuple[bytes, str | None]:
    """The beginning of a multipart body, as far as its `model` field or 64 KiB, and that field's value. Raises as `Arrival.next`."""
    head, searched = b"", 0
    while len(head) < _FORM_HEAD and not arrival.is_over:
        head += await arrival.next()
        if len(head) >= 2 * searched:  # not at each byte of one that drips: that would be the square of them
            searched = len(head)
            model = _model_of(head)
            if model is not None:
                return head, model
    return head, _model_of(head)


def _model_of(head: bytes) -> str | None:
    match = _FORM_MODEL.search(head)
    return None if match is None else match[1].decode("utf-8", "replace")


def with_form_model(head: bytes, model: str) -> bytes:
    """`head` with the value of its `model` field replaced."""
    match = _FORM_MODEL.search(head)
    return head if match is None else head[: match.start(1)] + model.encode() + head[match.end(1) :]


class FormContent:
    """A client's body as it arrives, its beginning read already; see `proxy.core.call.Content`."""

    def __init__(self, head: bytes, rest: Arrival, length: int | None) -> None:
        self.length = length
        self._head = head
        self._rest = rest

    def named(self, model: str) -> FormContent:
        head = with_form_model(self._head, model)
        length = None if self.length is None else self.length + len(head) - len(self._head)
        return FormContent(head, self._rest, length)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._head:
            yield self._head
        async for part in self._rest:
            yield part
