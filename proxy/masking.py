"""A provider's key taken out of what it says where that is passed on as it comes: what is said of work that was done before, above all.

A stored response that failed, a batch, a job: they tell of errors of their own, in bodies that nobody here understands.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from proxy.core.call import Credential
from proxy.core.hiding import LONG, spellings
from proxy.core.protocols import StreamDecoder

#: Bytes by which a beginning at a piece's end is looked for.
_HEAD = 4


class Mask:
    """Puts asterisks in the place of secrets, as many as these have bytes: a length that was announced stays true."""

    def __init__(self, *secrets: str) -> None:
        spelt = {each.encode() for secret in secrets for each in spellings(secret)}
        self._spelt = tuple(sorted(spelt, key=len, reverse=True))  # one may be the beginning of another
        self._most = max(map(len, spelt)) - 1  # bytes of a beginning that is not whole
        self._letters = frozenset(b"".join(spelt))
        heads = {each[:_HEAD] for each in spelt}
        self._by_head = {head: tuple(each for each in spelt if each.startswith(head)) for head in heads}
        # Those that are shorter than a head, the longest first.
        self._stumps = tuple(sorted({head[:size] for head in heads for size in range(1, len(head))}, key=len, reverse=True))

    def whole(self, data: bytes) -> bytes:
        for spelt in self._spelt:
            if spelt in data:
                data = data.replace(spelt, b"*" * len(spelt))
        return data

    def beginning(self, data: bytes) -> int:
        """Where at the end of `data` a secret begins that is not whole; its length where none does."""
        found = size = len(data)
        if not data or data[-1] not in self._letters:
            return size
        after = max(0, size - self._most)
        for head, spelt in self._by_head.items():
            at = data.find(head, after)
            while 0 <= at < found:
                end = data[at:]
                if any(each.startswith(end) for each in spelt):
                    found = at
                at = data.find(head, at + 1)
        if found == size and data.endswith(self._stumps):
            return size - next(len(stump) for stump in self._stumps if data.endswith(stump))
        return found


class MaskedBody:
    """A body on its way through a mask. What may be a secret's beginning waits for what follows it."""

    __slots__ = ("_held", "_mask")

    def __init__(self, mask: Mask) -> None:
        self._mask = mask
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """The next bytes, but for those at their end that a secret may begin with."""
        if self._held:
            data = self._held + data
        data = self._mask.whole(data)
        begin = self._mask.beginning(data)
        self._held = data[begin:]
        return data if begin == len(data) else data[:begin]

    def rest(self) -> bytes:
        """What was held back, once nothing follows."""
        held, self._held = self._held, b""
        return held


class MaskedEvents:
    """A decoder whose events go through a mask, each of them whole."""

    frame = None  # none is passed on unseen

    def __init__(self, decoder: StreamDecoder, mask: Mask) -> None:
        self._decoder = decoder
        self._mask = mask

    def __getattr__(self, name: str) -> Any:
        return getattr(self._decoder, name)

    def feed(self, data: bytes) -> bytes:
        return self._mask.whole(self._decoder.feed(data))

    def eof(self) -> bytes:
        return self._mask.whole(self._decoder.eof())


def mask_of(credentials: Iterable[Credential]) -> Mask | None:
    """The mask for what a provider with these says; None where there is nothing to hide."""
    secrets = [each.secret for each in credentials if len(each.secret) >= LONG]
    return Mask(*secrets) if secrets else None


def is_text(media_type: str) -> bool:
    """Whether what is of this type, in lower case, can show a key."""
    return "json" in media_type or media_type.startswith("text/")


def masked(decoder: StreamDecoder, mask: Mask | None) -> StreamDecoder:
    if mask is None:
        return decoder
    events: Any = MaskedEvents(decoder, mask)
    found: StreamDecoder = events
    return found
