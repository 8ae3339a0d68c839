"""A provider's key taken out of what it says where that is passed on as it comes: what is said of work that was done before, above all.

A stored response that failed, a batch, a job: they tell of errors of their own, in bodies that nobody here understands.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from proxy.core.call import Credential
from proxy.core.protocols import StreamDecoder

#: Shorter ones are words that stand for a key where none is needed (`EMPTY`, `lm-studio`): texts have them for other reasons.
_SHORTEST = 16


class Mask:
    """Puts asterisks in the place of secrets, as many as these have bytes: a length that was announced stays true."""

    def __init__(self, *secrets: str) -> None:
        plain = [secret.encode() for secret in secrets]
        self._spelt = tuple({*plain, *(secret.replace(b"/", b"\\/") for secret in plain)})  # as JSON may spell it
        self._longest = max(map(len, self._spelt))
        self._held = b""

    def whole(self, data: bytes) -> bytes:
        for spelt in self._spelt:
            if spelt in data:
                data = data.replace(spelt, b"*" * len(spelt))
        return data

    def feed(self, data: bytes) -> bytes:
        """The next of a body's bytes, but for those at their end that a secret may begin with."""
        if self._held:
            data = self._held + data
        data = self.whole(data)
        begin = self._beginning(data)
        self._held = data[begin:]
        return data[:begin]

    def rest(self) -> bytes:
        """What was held back, once nothing follows."""
        held, self._held = self._held, b""
        return held

    def _beginning(self, data: bytes) -> int:
        """Where at the end of `data` a secret begins that is not whole."""
        size = len(data)
        for start in range(max(0, size - self._longest + 1), size):
            if any(spelt.startswith(data[start:]) for spelt in self._spelt):
                return start
        return size


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


def mask_of(credentials: Iterable[Credential], media_type: str) -> Mask | None:
    """The mask for an answer of a provider with these; None where there is nothing to hide, or no text (`media_type`, in lower case)."""
    secrets = [each.secret for each in credentials if len(each.secret) >= _SHORTEST]
    return Mask(*secrets) if secrets and ("json" in media_type or media_type.startswith("text/")) else None


def masked(decoder: StreamDecoder, mask: Mask | None) -> StreamDecoder:
    if mask is None:
        return decoder
    events: Any = MaskedEvents(decoder, mask)
    found: StreamDecoder = events
    return found
