"""Answers that are not ours to understand, on their way as they come."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from proxy.core.call import Call
from proxy.core.errors import UpstreamError
from proxy.core.protocols import LLMProvider, UpstreamResponse
from proxy.download import is_download
from proxy.heads import media_type
from proxy.masking import MaskedBody
from proxy.stream import broken, read_whole
from proxy.watch import Watch

#: Operations whose answers are small, and worth nothing in part.
_SMALL = frozenset({"moderations", "decisions", "rerank", "score", "classify", "tokenize"})

_ERROR = b'{"error"'


async def beginning(call: Call, response: UpstreamResponse, provider: LLMProvider, limit: int, watch: Watch) -> bytes:
    """What of an answer is waited for before any of it is passed on: its first bytes; of small JSON, and of what may be an error, all.

    Raises UpstreamError where it breaks off before that, is larger than `limit`, or is an error in disguise.
    """
    first = await response.receive()
    if is_download(call) or "json" not in media_type(response):
        return first
    if call.operation not in _SMALL and not first.lstrip().startswith(_ERROR):
        return first
    whole = first + await read_whole(response, limit, watch)
    if whole.lstrip()[:1] == b"{":
        provider.decode(call, response, whole)
        call.usage = None  # it is read when the answer is over
    return whole


class Copy:
    """A body that is passed on, kept until its end, unless it has more than `most` bytes."""

    __slots__ = ("_left", "_pieces")

    def __init__(self, most: int) -> None:
        self._left = most
        self._pieces: list[bytes] = []

    def add(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left >= 0:
            self._pieces.append(data)
        else:
            self._pieces.clear()

    @property
    def body(self) -> bytes:
        """Nothing of one that was too large."""
        return b"".join(self._pieces)


async def relayed(
    first: bytes,
    response: UpstreamResponse,
    watch: Watch,
    failed: Callable[[UpstreamError], None],
    mask: MaskedBody | None = None,
    copy: Copy | None = None,
) -> AsyncIterator[bytes]:
    """A body as it comes, `first` of all what is in hand of it, but for what `mask` hides; `copy` gets it as it was.

    Raises StreamError when it breaks off; `failed` is told of it before.
    """
    data = first
    try:
        while data:
            if copy is not None:
                copy.add(data)
            if mask is not None:
                data = mask.feed(data)
            if data:
                watch.pause()
                yield data
            watch.progress()
            data = await response.receive()
        if mask is not None and (rest := mask.rest()):
            yield rest
    except UpstreamError as error:
        failure = broken(error)
        failed(failure)
        raise failure from error
