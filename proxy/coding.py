"""Content codings of answers. We ask for none; what comes anyway is decoded under a cap, so that a bomb bursts here and not in memory."""

from __future__ import annotations

import zlib
from typing import Protocol

from proxy.core.errors import UpstreamError

try:  # optional: Brotli is not in the standard library
    import brotli
except ImportError:
    brotli = None

_STEP = 2**20


class Decoder(Protocol):
    def feed(self, data: bytes) -> bytes: ...

    def eof(self) -> None: ...


class _Zlib:
    """gzip and both spellings of deflate. Output is taken in steps, so that the cap is checked before memory is spent."""

    def __init__(self, window: int, cap: int) -> None:
        self._inflate = zlib.decompressobj(window)
        self._left = cap
        self._begun = False

    def feed(self, data: bytes) -> bytes:
        parts = []
        try:
            while data:
                part = self._inflate.decompress(data, min(_STEP, self._left + 1))
                self._left -= len(part)
                if self._left < 0:
                    raise UpstreamError("response_too_large", "The provider's compressed answer is larger than the limit.")
                parts.append(part)
                data = self._inflate.unconsumed_tail
                self._begun = True
        except zlib.error as error:
            raise UpstreamError("bad_upstream", "The provider's compressed answer is damaged.", detail=str(error)) from None
        return b"".join(parts)

    def eof(self) -> None:
        if self._begun and not self._inflate.eof:
            raise UpstreamError("bad_upstream", "The provider's compressed answer was cut.")


class _Brotli:
    def __init__(self, cap: int) -> None:
        self._decompressor = brotli.Decompressor()
        self._left = cap

    def feed(self, data: bytes) -> bytes:
        try:
            part: bytes = self._decompressor.process(data)
        except brotli.error as error:
            raise UpstreamError("bad_upstream", "The provider's compressed answer is damaged.", detail=str(error)) from None
        self._left -= len(part)
        if self._left < 0:
            raise UpstreamError("response_too_large", "The provider's compressed answer is larger than the limit.")
        return part

    def eof(self) -> None:
        if not self._decompressor.is_finished():
            raise UpstreamError("bad_upstream", "The provider's compressed answer was cut.")


def decoder_for(coding: str, cap: int) -> Decoder | None:
    """A decoder for a Content-Encoding, None for identity. `cap` bounds the decoded bytes. Raises UpstreamError for a coding not known here."""
    name = coding.strip().lower()
    if name in ("", "identity"):
        return None
    if name in ("gzip", "x-gzip"):
        return _Zlib(16 + zlib.MAX_WBITS, cap)
    if name == "deflate":
        return _Zlib(zlib.MAX_WBITS, cap)
    if name == "br" and brotli is not None:
        return _Brotli(cap)
    raise UpstreamError("bad_upstream", "The provider's answer has a content coding that was not asked for.", detail=name[:40])
