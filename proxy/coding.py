"""Content codings of answers. We ask for none; what comes anyway is decoded under a cap, so that a bomb bursts here and not in memory."""

from __future__ import annotations

import zlib
from typing import Protocol

from proxy.core.errors import UpstreamError

_STEP = 2**20
_GUESSED = 0


class Decoder(Protocol):
    def feed(self, data: bytes) -> bytes: ...

    def eof(self) -> None: ...


class _Zlib:
    """gzip and both spellings of deflate. Output is taken in steps, so that the cap is checked before memory is spent."""

    def __init__(self, window: int, cap: int) -> None:
        self._window = window
        self._inflate = zlib.decompressobj(window) if window else None
        self._left = cap
        self._begun = False

    def feed(self, data: bytes) -> bytes:
        parts = []
        try:
            while data:
                inflate = self._inflate or self._guessed(data[0])
                if inflate.eof:
                    # Another member may follow, RFC 1952, 2.2. What is none is damage, and is not gathered.
                    self._inflate = inflate = zlib.decompressobj(self._window)
                part = inflate.decompress(data, min(_STEP, self._left + 1))
                self._left -= len(part)
                if self._left < 0:
                    raise UpstreamError("response_too_large", "The provider's compressed answer is larger than the limit.")
                parts.append(part)
                data = inflate.unused_data if inflate.eof else inflate.unconsumed_tail
                self._begun = True
        except zlib.error as error:
            raise UpstreamError("bad_upstream", "The provider's compressed answer is damaged.", detail=str(error)) from None
        return b"".join(parts)

    def _guessed(self, first: int) -> zlib._Decompress:
        """deflate is zlib's format (RFC 9110, 8.4.1.2), but some servers send it bare; the first byte tells."""
        bare = first & 0x8F != 0x08  # method 8, and a window of at most 32 KiB
        self._window = -zlib.MAX_WBITS if bare else zlib.MAX_WBITS
        self._inflate = found = zlib.decompressobj(self._window)
        return found

    def eof(self) -> None:
        if self._begun and self._inflate is not None and not self._inflate.eof:
            raise UpstreamError("bad_upstream", "The provider's compressed answer was cut.")


class _Unreadable:
    """A body that nobody can read. That is said to who reads it: a refusal's status says what it means, whatever stands in it."""

    def __init__(self, error: UpstreamError) -> None:
        self._error = error

    def feed(self, data: bytes) -> bytes:
        raise self._error

    def eof(self) -> None:
        """It was empty."""


def decoder_for(coding: str, cap: int, status: int = 200) -> Decoder | None:
    """A decoder for a Content-Encoding, None for identity. `cap` bounds the decoded bytes.

    Raises UpstreamError for a coding not known here; outside 2xx, only the body's decoding does. Brotli and zstd are not: what decodes them
    gives no cap on what it gives out.
    """
    name = coding.strip().lower()
    if name in ("", "identity"):
        return None
    if name in ("gzip", "x-gzip"):
        return _Zlib(16 + zlib.MAX_WBITS, cap)
    if name == "deflate":
        return _Zlib(_GUESSED, cap)
    error = UpstreamError("bad_upstream", "The provider's answer has a content coding that was not asked for.", detail=name[:40])
    error.should_retry = False  # it was not asked for it, so asking again would change nothing
    if not 200 <= status < 300:
        return _Unreadable(error)
    raise error
