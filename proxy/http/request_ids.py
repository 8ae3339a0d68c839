"""The name of a request: its client is told it as `x-request-id`, and its record has it."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterator

_LOW_DIGITS = tuple(f"{number:02x}" for number in range(256))


def request_ids() -> Iterator[str]:
    """`req_…`, no two of them alike: what is random for the process, and a number."""
    process = secrets.token_hex(8)
    for high in itertools.count():
        block = f"req_{process}{high:06x}"  # written out once for 256 ids: it costs more than all of the rest
        for low in _LOW_DIGITS:
            yield block + low
