"""From a request's bytes to what a call needs of them. One JSON pass; only what the gateway uses is checked."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import orjson
from aiohttp import StreamReader

from proxy.core.call import Call
from proxy.core.errors import ClientDisconnected, ClientError

MAX_DEPTH = 64

#: Control characters never belong into a name that ends up in a header, a log line or a metric.
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

_FORM_MODEL = re.compile(
    rb'content-disposition:\s*form-data;[^\r\n]*\bname="model"[^\r\n]*\r\n(?:[^\r\n]+\r\n)*\r\n([^\r\n]*)\r\n', re.IGNORECASE
)
_FORM_HEAD = 64 * 1024

#: A body may take so many pauses' time in all (a minute by default), and a second more for so many bytes that came. Go's servers bound the
#: whole, nginx only the pause; this is Apache's way (mod_reqtimeout, `MinRate`), which large uploads over slow lines survive.
_PAUSES = 4
_RATE = 4096

#: Operation -> the members that must be there, with what they must be. `model` may also come from the configuration: `resolve` asks for it.
_REQUIRED: dict[str, tuple[tuple[str, tuple[type, ...], str], ...]] = {
    "chat": (("messages", (list,), "an array of messages"),),
    "embedding": (("input", (str, list), "a string or an array"),),
}


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


async def read_body(reader: StreamReader, *, limit: int, patience: float) -> bytes:
    """A whole body. Raises ClientError: 413 past `limit` bytes, 408 as `Arrival` does."""
    in_hand = body_in_hand(reader, limit=limit)
    if in_hand is not None:
        return in_hand
    parts: list[bytes] = []
    size = 0
    arrival = Arrival(reader, patience)
    while not reader.at_eof():
        data = await arrival.next()
        size += len(data)
        if size > limit:
            raise too_large(limit)
        parts.append(data)
    return b"".join(parts)


class Arrival:
    """A body on its way. The time that is spent with what came is not the client's and is not counted."""

    def __init__(self, reader: StreamReader, patience: float) -> None:
        self._reader = reader
        self._patience = patience
        self._left = patience * _PAUSES

    async def next(self) -> bytes:
        """What came since. Raises ClientError: 408 after `patience` seconds without a byte, or when the whole takes too long."""
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
        return data


async def body_parts(reader: StreamReader, *, limit: int, patience: float) -> AsyncIterator[bytes]:
    """A body (or what is left of it) as it comes. Raises as `read_body`."""
    size = 0
    arrival = Arrival(reader, patience)
    while not reader.at_eof():
        data = await arrival.next()
        size += len(data)
        if size > limit:
            raise too_large(limit)
        if data:
            yield data


def too_large(limit: int) -> ClientError:
    return ClientError(f"The request's body is larger than {limit} bytes.", status=413, code="request_too_large")


def unsupported_coding(coding: str) -> ClientError:
    """For a JSON body that is compressed: 415, as RFC 9110 8.4 has it."""
    message = f"The request's body has the content coding {coding[:64]!r}; send it without one."
    return ClientError(message, status=415, code="unsupported_media_type")


def invalid_json(message: str) -> ClientError:
    return ClientError(message, code="invalid_json")


def parse_object(raw: bytes) -> dict[str, Any]:
    """The JSON object of a body. Raises ClientError (400 `invalid_json`) for everything else, nesting deeper than 64 included."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        message = f"The request's body is not valid JSON: {error}" if raw else "The request has no body."
        raise invalid_json(message) from None
    except RecursionError:
        raise invalid_json(f"The request's body is nested deeper than {MAX_DEPTH}.") from None
    if not isinstance(value, dict):
        raise invalid_json("The request's body is not a JSON object.")
    if _brackets(raw) > MAX_DEPTH and _is_deep(value):
        raise invalid_json(f"The request's body is nested deeper than {MAX_DEPTH}.")
    return value


def _brackets(raw: bytes) -> int:
    """How many brackets open, counted as far as it matters. Searching for so many is faster than `count`, which looks at every byte."""
    most = MAX_DEPTH + 1
    return 2 * len(raw) - len(raw.replace(b"[", b"", most)) - len(raw.replace(b"{", b"", most))


def _is_deep(value: dict[str, Any]) -> bool:
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in (outer.values() if type(outer) is dict else outer) if type(inner) in (dict, list)]
        if not level:
            return False
    return True


def read_members(call: Call, body: dict[str, Any]) -> None:
    """Check and take what the gateway uses of a body. Raises ClientError that names the member."""
    for name, kinds, expected in _REQUIRED.get(call.operation, ()):
        value = body.get(name)
        if value is None:
            raise ClientError(f"You must provide the parameter {name!r}, {expected}.", param=name, code="missing_required_parameter")
        if not isinstance(value, kinds):
            raise ClientError(f"{name!r} must be {expected}.", param=name, code="invalid_type")
    model = body.get("model")
    if model is not None:
        call.model = checked_model(model)
    stream = body.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise ClientError("'stream' must be true or false.", param="stream", code="invalid_type")
    call.stream = stream is True
    options = body.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise ClientError("'stream_options' must be an object.", param="stream_options", code="invalid_type")
    call.body = body


def checked_model(model: Any) -> str:
    if not isinstance(model, str):
        raise ClientError("'model' must be a string.", param="model", code="invalid_type")
    if not model or len(model) > 256 or not (model.isprintable() or _CONTROL.search(model) is None):
        raise ClientError("'model' is no valid name.", param="model", code="invalid_value")
    return model


async def form_head(reader: StreamReader, *, patience: float) -> tuple[bytes, str | None]:
    """The beginning of a multipart body, as far as its `model` field or 64 KiB, and that field's value."""
    head = b""
    arrival = Arrival(reader, patience)
    while len(head) < _FORM_HEAD and not reader.at_eof():
        head += await arrival.next()
        match = _FORM_MODEL.search(head)
        if match:
            return head, match[1].decode("utf-8", "replace")
    return head, None


def with_form_model(head: bytes, model: str) -> bytes:
    """`head` with the value of its `model` field replaced."""
    match = _FORM_MODEL.search(head)
    return head if match is None else head[: match.start(1)] + model.encode() + head[match.end(1) :]


class FormContent:
    """A client's body as it arrives, its beginning read already; see `proxy.core.call.Content`."""

    def __init__(self, head: bytes, rest: AsyncIterator[bytes], length: int | None) -> None:
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
