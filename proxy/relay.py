"""Answers that are not ours to understand, on their way as they come."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from proxy.core.call import Call
from proxy.core.errors import UpstreamError
from proxy.core.protocols import LLMProvider, UpstreamResponse
from proxy.core.sse import BOM
from proxy.heads import media_type
from proxy.masking import MaskedBody
from proxy.stream import broken, read_some, read_whole
from proxy.watch import Watch

#: Operations whose answers are worth nothing in part.
_WHOLE = frozenset({"moderations", "decisions", "rerank", "score", "classify", "tokenize"})

#: Those, and others whose work is done for the answer. What is asked for by GET may be an object that says of itself that it failed.
_ANSWERED = _WHOLE | {"audio", "images", "pooling"}

#: How an answer begins that is an error, blanks aside; not where it says that there is none.
_ERROR, _NONE = b'{"error":', (b'{"error":null', b'{"error":false')

#: So many bytes tell whether an answer begins so, and no error is larger than so many.
_TELLING, _LARGEST = 64, 2**20

#: So many bytes are kept of the end of an answer that is too large to be kept whole.
_END = 2**16


async def beginning(call: Call, response: UpstreamResponse, provider: LLMProvider, limit: int, watch: Watch) -> bytes:
    """What of an answer is waited for before any of it is passed on: its first bytes; all of what is worth nothing in part, or is an error.

    Raises UpstreamError where it breaks off before that, is larger than `limit`, or is an error in disguise.
    """
    first = await response.receive()
    if call.method != "POST" or call.operation not in _ANSWERED or media_type(response).partition(";")[0].rstrip() != "application/json":
        return first
    if call.operation in _WHOLE:
        first += await read_whole(response, limit, watch)
        _require_ends(first)
    while (fails := _is_error(first)) is None and (more := await response.receive()):
        watch.progress()
        first += more
    if fails:
        first += await read_some(response, _LARGEST, watch)
        if len(first) < _LARGEST:
            provider.decode(call, response, first)
            call.usage = None  # it is read when the answer is over
    return first


def _is_error(first: bytes) -> bool | None:
    """Whether an answer that begins so is an error; None: more of it will tell."""
    begins = b"".join(first[:_TELLING].removeprefix(BOM).split())
    if begins.startswith(_NONE):
        return False
    if len(first) < _TELLING and any(each.startswith(begins) for each in (_ERROR, *_NONE, BOM)):
        return None
    return begins.startswith(_ERROR)


def _require_ends(whole: bytes) -> None:
    """Raises UpstreamError for JSON that was cut. What stands inside is not looked at: it may be long, and is its reader's."""
    plain = whole.removeprefix(BOM).strip()
    if (plain[:1], plain[-1:]) not in ((b"{", b"}"), (b"[", b"]")):
        raise UpstreamError("invalid_response", "The provider's answer is not valid JSON.")


class Copy:
    """A body that is passed on, kept until its end; of one that has more than `most` bytes only its last, where usage mostly stands."""

    __slots__ = ("_is_cut", "_most", "_pieces", "_size")

    def __init__(self, most: int) -> None:
        self._most = most
        self._is_cut = False
        self._size = 0
        self._pieces: list[bytes] = []

    def add(self, data: bytes) -> None:
        self._pieces.append(data)
        self._size += len(data)
        if self._size > self._most:
            self._is_cut = True
            self._pieces = [self.body]
            self._most, self._size = 4 * _END, len(self._pieces[0])

    @property
    def body(self) -> bytes:
        whole = b"".join(self._pieces)
        return whole[-_END:] if self._is_cut else whole


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
