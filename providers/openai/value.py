"""JSON as providers write it: what a strict parser takes, and text whose characters were cut in two."""

from __future__ import annotations

import re
from typing import Any

import orjson
from pydantic_core import from_json

from proxy.core.errors import UpstreamError
from proxy.core.sse import BOM

#: An escape in a string: two that are one character, one that is half of such a pair, or any other.
_ESCAPE = re.compile(rb"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL)


#: Bytes that are read twice where the first time fails: either takes a millisecond at most.
_MOST_LENIENT = 64 * 1024


def value_of(data: bytes) -> Any:
    """The value that `data` holds. Raises ValueError.

    A half of a surrogate pair, which RFC 8259 (section 8.2) lets stand in a string, is read as U+FFFD: servers that cut text into pieces
    by UTF-16 send such, and clients read it. A byte order mark before it is passed over (8.1).
    """
    data = data.removeprefix(BOM)
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        if b"\\ud" not in data and b"\\uD" not in data:
            raise
        return orjson.loads(_ESCAPE.sub(_whole, data))


def read_event(data: bytes) -> dict[str, Any]:
    """The object of an event. Raises UpstreamError."""
    try:
        value = lenient_value_of(data, most=len(data))  # the event stream's own rule for bytes that are not UTF-8 is to replace them
    except ValueError as error:
        raise UpstreamError("invalid_response", "The provider sent an event that is not valid JSON.", detail=str(error)) from None
    if not isinstance(value, dict):
        raise UpstreamError("invalid_response", "The provider sent an event that is not a JSON object.")
    return value


def lenient_value_of(data: bytes, *, most: int = _MOST_LENIENT) -> Any:
    """The same; of up to `most` bytes, those that are no UTF-8 are replaced: what else stands there counts for more. Raises ValueError."""
    try:
        return value_of(data)
    except ValueError:
        if len(data) > most:
            raise
        return value_of(data.decode("utf-8-sig", "replace").encode())


def beginning_of(data: bytes) -> Any:
    """The value that `data` is the beginning of, as far as it goes: its last string may be cut. Raises ValueError."""
    return from_json(data.decode("utf-8-sig", "replace"), allow_partial="trailing-strings")


def _whole(escape: re.Match[bytes]) -> bytes:
    return b"\\ufffd" if escape[1] else escape[0]
