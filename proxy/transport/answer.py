"""A provider's answer while it is read: what its plain head says, or what httptools' parser (llhttp) tells of it."""

from __future__ import annotations

import httptools

from proxy.coding import Decoder, decoder_for
from proxy.core.errors import UpstreamError
from proxy.transport.framing import Refused, is_chunked_at_most, name_of, spelt
from proxy.transport.head import Head, read_head

#: A head larger than this is not kept, in bytes: each connection keeps one.
_MOST_KEPT = 4096

NOT_HTTP = "The provider's answer is not valid HTTP."
FRAMING_TOO_LARGE = "What the provider sent around its answer's body is larger than the limit for headers."
LOST = "The connection to the provider was lost."
HEAD_TOO_LARGE = "The provider's headers are larger than the limit."

#: How far an exchange has come: nothing of the answer is there, some of it, its head, all of it.
ASKED, BEGUN, HEAD, WHOLE = range(4)


def _parser_of(answer: Answer) -> httptools.HttpResponseParser:
    """A parser that takes blanks behind the size of a chunk, as nginx and Go do: some servers write each size in as many bytes."""
    parser = httptools.HttpResponseParser(answer)
    parser.set_dangerous_leniencies(lenient_spaces_after_chunk_size=True)
    return parser


class Answer:
    """One answer after the other, on the same connection."""

    __slots__ = (
        "_bare",
        "_between_chunks",
        "_body_limit",
        "_decoder",
        "_error",
        "_head_size",
        "_head_tail",
        "_header_limit",
        "_known",
        "_known_bytes",
        "_length",
        "_parser",
        "_parts",
        "_paused",
        "_size",
        "_unshown",
        "_until_close",
        "headers",
        "keep_alive",
        "stage",
        "status",
    )

    def __init__(self, header_limit: int, body_limit: int) -> None:
        self._header_limit = header_limit
        self._body_limit = body_limit
        self._parser = _parser_of(self)
        self._parts: list[bytes] = []
        self._size = 0
        self.stage = ASKED
        self._known_bytes: bytes | None = None
        self._known: Head = (0, {}, 0)
        self._between_chunks = False
        self._until_close = False
        self.keep_alive = False
        self.status = 0
        self.headers: dict[str, str] = {}
        self._bare = -1
        #: Bytes of heads that the parser was shown, and the last of them that may be the beginning of an empty line.
        self._head_size = 0
        self._head_tail = b""
        self._length = 0
        self._unshown = b""
        self._paused = False
        self._error: UpstreamError | None = None
        self._decoder: Decoder | None = None

    @property
    def is_untouched(self) -> bool:
        """Whether not one byte of an answer has come: the provider may have closed the connection while it lay idle."""
        return self.stage == ASKED

    def _read_head(self, data: bytes) -> bytes | None:
        """Take the plain head of the answer that begins `data`, and return what of its body has come.

        `_length` is then the body's, -1 if that is in chunks. None, and nothing is taken, if the head is not whole, not plain or too large.
        """
        head, end, body = data.partition(b"\r\n\r\n")
        known = self._known
        if head != self._known_bytes or not end:
            found = read_head(head) if end and len(head) <= self._header_limit else None
            if found is None:
                self.stage = BEGUN
                self.headers = {}
                self._head_size, self._head_tail = 0, b""
                return None
            known = found
            if len(head) <= _MOST_KEPT:
                self._known_bytes, self._known = head, known
        # The same bytes mean the same as in the last answer; each has headers of its own, for whoever changes them.
        self.status, headers, self._length = known
        self.headers = headers.copy()
        self.stage = HEAD
        self.keep_alive = True
        self._until_close = False
        self._decoder = None  # a head that says how its body is coded is not plain
        return body

    def _show(self, data: bytes) -> None:
        """Have the parser read `data`, heads one by one. Raises UpstreamError for heads over their limit, the same however they are cut.

        They count from the answer's first byte to the last one before its body, interim answers and all but the last empty line included.
        """
        while self.stage < HEAD and data:
            seen = self._head_tail + data
            end = seen.find(b"\r\n\r\n")
            before = self._head_size - len(self._head_tail)
            if (before + end if end >= 0 else before + len(seen) - 3) > self._header_limit:
                self._parser.feed_data(data[: max(self._header_limit - self._head_size, 0)])  # what is no HTTP is that first
                raise UpstreamError("response_too_large", HEAD_TOO_LARGE)
            cut = end + 4 - len(self._head_tail) if end >= 0 else len(data)
            self._parser.feed_data(data[:cut])
            self._head_size += cut
            self._head_tail = seen[-3:] if end < 0 else b""
            data = data[cut:]
            if self.stage < HEAD and end >= 0 and not self.keep_alive:
                self._parser = _parser_of(self)  # an interim answer that says `close` means the one behind it
        if data:
            self._parser.feed_data(data)

    # -- httptools' callbacks --

    def on_message_begin(self) -> None:
        if self.stage == WHOLE:
            raise Refused(UpstreamError("bad_upstream", "The provider sent more than one answer."))

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.stage >= HEAD:
            return  # of a trailer, or of a head that was read without the parser
        key = name_of(name) or spelt(name)
        text = value.decode("latin-1")
        headers = self.headers
        headers[key] = f"{headers[key]}, {text}" if key in headers else text

    def on_headers_complete(self) -> None:
        if self.stage >= HEAD:
            return
        status = self._parser.get_status_code()
        if status < 200:
            if status < 100:
                raise Refused(UpstreamError("bad_upstream", NOT_HTTP))
            self.headers = {}
            self.keep_alive = self._parser.should_keep_alive()
            return
        headers = self.headers
        if not is_chunked_at_most(headers.get("transfer-encoding", "chunked")):
            raise Refused(UpstreamError("bad_upstream", NOT_HTTP))
        try:
            self._decoder = decoder_for(headers.get("content-encoding", ""), self._body_limit, status)
        except UpstreamError as error:
            raise Refused(error) from None
        self.status = status
        self.stage = HEAD
        self.keep_alive = self._parser.should_keep_alive()
        self._until_close = "content-length" not in headers and "transfer-encoding" not in headers

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)
        self._size += len(body)

    def on_chunk_header(self) -> None:
        self._between_chunks = False

    def on_chunk_complete(self) -> None:
        self._between_chunks = True

    def on_message_complete(self) -> None:
        self._between_chunks = False
        if self.stage == HEAD:
            self.stage = WHOLE
            if "transfer-encoding" in self.headers and not self._parser.should_keep_alive():
                self.keep_alive = False  # a trailer said so, and the parser reads no further
