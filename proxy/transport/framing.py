"""How servers write what stands around an answer's body, and why it may be refused."""

from __future__ import annotations

from proxy.core.errors import UpstreamError

#: Header names as they came -> in lower case. Servers use few spellings; what they are not asked for cannot fill memory.
NAMES: dict[bytes, str] = {}
_MOST_NAMES = 1024

#: The length of a chunk, its line and its end included -> the line, as most servers write it: a lone whole chunk is known by them.
CHUNK_LINES = {len(line) + size + 2: line for size in range(1, 4096) for line in (b"%x\r\n" % size,)}


def spelt(name: bytes) -> str:
    """The name of a header that is not in `NAMES` yet."""
    if len(NAMES) >= _MOST_NAMES:
        NAMES.clear()
    NAMES[name] = key = name.decode("latin-1").lower()
    return key


class Refused(Exception):
    """Raised inside httptools' callbacks, which hand it on as the context of their own error."""

    def __init__(self, reason: UpstreamError) -> None:
        super().__init__(reason.message)
        self.reason = reason
