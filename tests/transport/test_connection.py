"""One connection, driven by hand: what it takes of an answer, and when it has had enough."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import pytest

from proxy.core.errors import UpstreamError
from proxy.outbox import Outbox
from proxy.transport import Connection
from tests.fuzz.wires import Wire

LIMIT = 1000
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def connected() -> tuple[Connection, Wire]:
    """A connection on which an answer's head has come."""
    connection = Connection(lambda _: None, lambda _: None, header_limit=LIMIT, body_limit=LIMIT)
    wire = Wire(connection)
    connection.begin(b"GET / HTTP/1.1\r\n\r\n")
    wire.feed(HEAD)
    return connection, wire


async def test_a_request_that_waits_for_the_end_of_the_turn_is_not_sent_on_a_connection_that_is_lost():
    outbox = Outbox()
    connections = [Connection(lambda _: None, lambda _: None, header_limit=LIMIT, body_limit=LIMIT, outbox=outbox) for _ in range(2)]
    lost, other = wires = [Wire(connection) for connection in connections]
    heads = [connection.begin(b"GET / HTTP/1.1\r\n\r\n") for connection in connections]
    assert not any(wire.written for wire in wires)
    lost.lose()
    await heads[0]
    with pytest.raises(UpstreamError) as caught:
        connections[0].check()
    assert caught.value.kind == "reset"
    assert connections[0].is_untouched
    await asyncio.sleep(0)
    assert (bytes(lost.written), bytes(other.written)) == (b"", b"GET / HTTP/1.1\r\n\r\n")


async def test_the_body_of_a_request_follows_its_head():
    connection = Connection(lambda _: None, lambda _: None, header_limit=LIMIT, body_limit=LIMIT, outbox=Outbox())
    wire = Wire(connection)
    connection.begin(b"POST / HTTP/1.1\r\n\r\n")
    await connection.write(b"piece")
    assert wire.written == b"POST / HTTP/1.1\r\n\r\npiece"


ENDLESS = {
    "a trailer's value": (b"2\r\n{}\r\n0\r\nx: ", b"a"),
    "a trailer's name": (b"2\r\n{}\r\n0\r\n", b"a"),
    "trailers": (b"2\r\n{}\r\n0\r\n", b"x: y\r\n"),
    "a chunk's extension": (b"2\r\n{}\r\n2;", b"a"),
    "the last chunk's extension": (b"2\r\n{}\r\n0;x=", b"a"),
    "an extension before any body": (b"2;", b"a"),
}


@pytest.mark.parametrize("read", [True, False], ids=["read", "unread"])
@pytest.mark.parametrize(("begun", "more"), ENDLESS.values(), ids=ENDLESS.keys())
async def test_what_is_no_body_and_has_no_end_is_cut_off(begun: bytes, more: bytes, read: bool):
    """Also while what came before it lies unread."""
    connection, wire = connected()
    wire.feed(begun)
    if read and b"{}" in begun:
        assert await connection.receive() == b"{}"
    for _ in range(LIMIT // 10):
        wire.feed(more * 20)
    assert wire.is_closing()
    with pytest.raises(UpstreamError) as caught:
        while await connection.receive():
            pass
    assert caught.value.kind == "response_too_large"


async def test_what_is_no_body_and_has_no_end_is_cut_off_also_when_nobody_reads_any_more():
    connection, wire = connected()
    wire.feed(b"2\r\n{}\r\n")
    assert await connection.receive() == b"{}"
    connection.close(reuse=True)
    wire.feed(b"0\r\nx: ")
    for _ in range(LIMIT):
        wire.feed(b"aa")
    assert wire.is_closing()


async def test_a_trailer_under_the_limit_is_taken_however_it_comes():
    for size in (1, 7, LIMIT):
        connection, wire = connected()
        end = b"2\r\n{}\r\n0\r\nx: " + b"a" * (LIMIT - 20) + b"\r\n\r\n"
        for start in range(0, len(end), size):
            wire.feed(end[start : start + size])
        assert connection.ready() == b"{}"
        connection.close(reuse=True)
        assert connection.is_usable


async def test_an_answer_of_many_small_chunks_is_taken_byte_by_byte():
    """What stands between its chunks is more than the limit in all."""
    connection, wire = connected()
    for _ in range(LIMIT):
        for byte in b"1\r\nx\r\n":
            wire.feed(bytes((byte,)))
    for byte in b"0\r\n\r\n":
        wire.feed(bytes((byte,)))
    assert connection.ready() == b"x" * LIMIT


async def test_a_head_does_not_count_for_what_follows_it():
    connection = Connection(lambda _: None, lambda _: None, header_limit=LIMIT, body_limit=LIMIT)
    wire = Wire(connection)
    connection.begin(b"GET / HTTP/1.1\r\n\r\n")
    for byte in HEAD.replace(b"\r\n\r\n", b"\r\nx: " + b"y" * (LIMIT - len(HEAD) - 10) + b"\r\n\r\n"):
        wire.feed(bytes((byte,)))
    for byte in b"2;" + b"a" * (LIMIT - 20) + b"\r\n{}\r\n0\r\n\r\n":
        wire.feed(bytes((byte,)))
    assert connection.ready() == b"{}"


def head_of(size: int, *, blank: bytes = b" ", before: bytes = b"", lines: int = 10) -> bytes:
    """A head of so many bytes, `before` it included, but for its empty line."""
    plain = (
        before
        + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"
        + b"".join(b"X-%d:%bvalue\r\n" % (each, blank) for each in range(lines))
        + b"Y: "
    )
    return plain + b"y" * (size - len(plain))


EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
HEADS = {
    "plain": head_of,
    "no blanks": partial(head_of, blank=b""),
    "many blanks": partial(head_of, blank=b"  \t "),
    "many lines": partial(head_of, lines=60),
    "an interim answer before it": partial(head_of, before=EARLY),
    "many before it": partial(head_of, before=EARLY * 15),
}


@pytest.mark.parametrize("size", [1, 3, 7, 100, 10 * LIMIT])
@pytest.mark.parametrize("made", HEADS.values(), ids=HEADS.keys())
async def test_a_head_is_measured_by_its_bytes_however_they_come(made: Callable[[int], bytes], size: int):
    for length, kind in ((LIMIT, None), (LIMIT + 1, "response_too_large")):
        assert await failure_of(made(length) + b"\r\n\r\n{}", size) == kind


@pytest.mark.parametrize("size", [1, 7, 10 * LIMIT])
@pytest.mark.parametrize(("at", "kind"), [(LIMIT - 5, "bad_upstream"), (LIMIT + 5, "response_too_large")])
async def test_a_head_that_is_no_http_and_too_large_is_what_comes_first(at: int, kind: str, size: int):
    assert await failure_of(head_of(at) + b"\x00" + b"z" * LIMIT + b"\r\n\r\n{}", size) == kind


@pytest.mark.parametrize("end", range(1, 4))
async def test_an_empty_line_may_come_in_two_pieces(end: int):
    head = head_of(LIMIT) + b"\r\n\r\n"
    for before in (0, 400):
        assert await failure_of(head + b"{}", before, len(head) - end) is None


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("coding", [b"chunked\t", b"chunked \t", b"identity", b"chunked, gzip", b"gzip, chunked", b"xchunked"])
async def test_chunks_that_the_parser_does_not_take_for_chunks_are_refused_and_not_waited_for(coding: bytes, size: int):
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: %b\r\n\r\n2\r\n{}\r\n0\r\n\r\n" % coding
    assert await failure_of(answer, size) == "bad_upstream"


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("coding", [b"chunked ", b"  chunked", b"Chunked", b"\tchunked", b"identity, chunked"])
async def test_blanks_around_a_coding_say_nothing(coding: bytes, size: int):
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding:%b\r\n\r\n2\r\n{}\r\n0\r\n\r\n" % coding
    assert await failure_of(answer, size) is None


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("early", [b"", EARLY.replace(b"Link", b"Connection: close\r\nLink")], ids=["alone", "behind an interim answer"])
@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b"2 ", None),
        (b"2\t", None),
        (b"2 \t  ", None),
        (b"2 ;a=b", None),
        (b" 2", "bad_upstream"),
        (b"2 0", "bad_upstream"),
        (b"2 a", "bad_upstream"),
        (b"2\x0b", "bad_upstream"),
        (b"2\xa0", "bad_upstream"),
        (b"2 \n", "bad_upstream"),
    ],
)
async def test_blanks_after_the_size_of_a_chunk_say_nothing(line: bytes, kind: str | None, early: bytes, size: int):
    connection = Connection(lambda _: None, lambda _: None, header_limit=LIMIT, body_limit=LIMIT)
    wire = Wire(connection)
    connection.begin(b"GET / HTTP/1.1\r\n\r\n")
    answer = early + HEAD + line + b"\r\n{}\r\n0 \r\n\r\n"
    for start in range(0, len(answer), size):
        wire.feed(answer[start : start + size])
    if kind is None:
        assert connection.ready() == b"{}"
        connection.close(reuse=True)
        assert connection.is_usable
        return
    with pytest.raises(UpstreamError) as caught:
        await connection.receive()
    assert caught.value.kind == kind


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_an_interim_answer_that_speaks_of_a_close_means_that_of_the_one_behind_it(size: int):
    early = EARLY.replace(b"Link", b"Connection: close\r\nLink")
    assert await failure_of(early * 2 + head_of(100) + b"\r\n\r\n{}", size) is None


async def failure_of(answer: bytes, *cuts: int) -> str | None:
    """The kind of failure that an answer of `{}` ends in, if any: it comes in pieces of one size, or cut at two places."""
    connection = Connection(lambda _: None, lambda _: None, header_limit=LIMIT, body_limit=LIMIT)
    wire = Wire(connection)
    connection.begin(b"GET / HTTP/1.1\r\n\r\n")
    at = range(0, len(answer), cuts[0]) if len(cuts) == 1 else sorted({0, *cuts})
    for start, end in pairwise((*at, len(answer))):
        wire.feed(answer[start:end])
    try:
        connection.check()
    except UpstreamError as error:
        assert wire.is_closing()
        return error.kind
    assert connection.ready() == b"{}"
    return None


# -- chunks that come one at a time, while somebody takes each piece as it comes --


class Taker:
    """Takes pieces as they come, as a stream does that is attached to an answer."""

    def __init__(self, connection: Connection, most: int = 1000) -> None:
        self.taken: list[bytes] = []
        self._most = most
        self._connection = connection
        self._task: asyncio.Task[None] | None = None

    async def attach(self) -> Taker:
        attached = self._connection.attach(self._take)
        assert attached is not None
        self._task = asyncio.ensure_future(attached)
        await asyncio.sleep(0)
        return self

    def _take(self, data: bytes) -> bool:
        self.taken.append(data)
        return len(self.taken) < self._most


def _chunk(data: bytes, line: str = "{:x}") -> bytes:
    return line.format(len(data)).encode() + b"\r\n" + data + b"\r\n"


#: What may stand in a chunk, and looks like what stands around one.
_TRICKS = (b"{}", b"\r\n", b"a\r\n", b"2\r\n{}\r\n", b"0\r\n\r\n", b"data: {}\n\n", b"\n\n\r\n", b"x" * 300, b"2", b"1\r\n")


@pytest.mark.parametrize("seed", range(40))
async def test_chunks_are_the_same_however_their_bytes_come(seed: int):
    """Also where each chunk comes alone, which is not shown to the parser."""
    dice = random.Random(seed)
    for _ in range(10):
        pieces = dice.choices(_TRICKS, k=dice.randint(1, 8))
        lines = dice.choices(("{:x}", "{:X}", "0{:x}", "{:x};a=b", "{:x} ", "{:x}"), k=len(pieces))
        framed = [_chunk(piece, line) for piece, line in zip(pieces, lines, strict=True)]
        connection, wire = connected()
        taker = await (Taker(connection)).attach()
        fed = b""
        for chunk in framed:
            cut = dice.choice((0, 0, 0, dice.randint(1, len(chunk) - 1)))
            if cut:
                wire.feed(fed + chunk[:cut])
                fed = chunk[cut:]
            elif dice.random() < 0.2:
                fed += chunk
            else:
                wire.feed(fed + chunk)
                fed = b""
        wire.feed(fed + b"0\r\n\r\n")
        await asyncio.sleep(0)
        assert b"".join(taker.taken) == b"".join(pieces)
        assert await connection.receive() == b""
        connection.close(reuse=True)
        assert connection.is_usable


async def test_a_lone_chunk_is_one_piece():
    connection, wire = connected()
    taker = await Taker(connection).attach()
    for piece in (b"{}", b"data: {}\n\n"):
        wire.feed(_chunk(piece))
        wire.feed(_chunk(piece, "{:X}"))
    assert taker.taken == [b"{}", b"{}", b"data: {}\n\n", b"data: {}\n\n"]


async def test_who_cuts_short_is_given_bytes_before_who_takes_pieces():
    """And is told where a chunk begins, as long as somebody takes what it hands on."""
    connection, wire = connected()
    pieces: list[bytes] = []
    known: list[bytes] = []

    def take(data: bytes) -> bool:
        pieces.append(data)
        return data != b"l"

    def short_cut(hand_on: Callable[[bytes], bool], _enough: Callable[[], None]) -> Callable[[bytes], None]:
        begins = False

        def data_received(data: bytes) -> None:
            nonlocal begins
            if begins and data == b"1\r\nk\r\n":
                known.append(data)
            else:
                begins = hand_on(data)

        return data_received

    attached = asyncio.ensure_future(connection.attach(take, short_cut) or asyncio.sleep(0))
    await asyncio.sleep(0)
    for data in (b"1\r\na\r\n", b"1\r\nk\r\n", b"9\r\n", b"1\r\nk\r\n\r\nb", b"\r\n", b"1\r\nk\r\n", b"1\r\nl\r\n", b"1\r\nk\r\n"):
        wire.feed(data)
    await attached
    assert known == [b"1\r\nk\r\n"] * 2, "not the data of a chunk that has begun, nor what nobody takes any more"
    assert b"".join(pieces) == b"a1\r\nk\r\n\r\nbl"
    assert await connection.receive() == b"k", "what comes after it is kept"
    assert wire.protocol is connection


async def test_who_is_given_bytes_first_may_have_had_enough():
    connection, wire = connected()
    taken: list[bytes] = []

    def short_cut(_: Callable[[bytes], bool], enough: Callable[[], None]) -> Callable[[bytes], None]:
        def data_received(data: bytes) -> None:
            taken.append(data)
            enough()

        return data_received

    attached = asyncio.ensure_future(connection.attach(lambda _: True, short_cut) or asyncio.sleep(0))
    await asyncio.sleep(0)
    wire.feed(b"1\r\na\r\n")
    await attached
    wire.feed(b"1\r\nb\r\n")
    assert taken == [b"1\r\na\r\n"]
    assert await connection.receive() == b"b"


async def test_who_is_given_bytes_first_is_given_nothing_else():
    """A connection that is lost meanwhile is lost for who waits for its end."""
    connection, wire = connected()
    attached = asyncio.ensure_future(connection.attach(lambda _: True, lambda *_: lambda _: None) or asyncio.sleep(0))
    await asyncio.sleep(0)
    assert wire.protocol is not connection
    wire.lose()
    await attached
    with pytest.raises(UpstreamError) as caught:
        await connection.receive()
    assert caught.value.kind == "reset"


async def test_what_looks_like_a_chunk_within_another_s_line_is_none():
    connection, wire = connected()
    taker = await Taker(connection).attach()
    wire.feed(_chunk(b"{}") + b"1")
    wire.feed(b"2\r\n{}\r\n")
    assert taker.taken == [b"{}", b"{}\r\n"], "the chunk is 0x12 bytes long"


@pytest.mark.parametrize("begun", [b"9\r\n", b"a\r\na\r\n"])
async def test_what_looks_like_a_chunk_within_another_s_data_is_none(begun: bytes):
    connection, wire = connected()
    taker = await Taker(connection).attach()
    wire.feed(_chunk(b"{}"))
    wire.feed(begun)
    wire.feed(b"2\r\nxy\r\n")
    assert b"".join(taker.taken) == b"{}" + begun[3:] + b"2\r\nxy\r\n"


async def test_who_has_had_enough_with_a_lone_chunk_is_given_no_more():
    connection, wire = connected()
    taker = await Taker(connection, most=2).attach()
    for piece in (b"{}", b"{1}", b"{2}"):
        wire.feed(_chunk(piece))
    await asyncio.sleep(0)
    assert taker.taken == [b"{}", b"{1}"]
    assert await connection.receive() == b"{2}"


@pytest.mark.parametrize("end", [b"2\r\n{}x\r\n", b"2\r\n{}\r\r", b"2\r\n{}\n\n", b"2\r\n{}ab"])
async def test_a_lone_chunk_without_its_end_is_refused(end: bytes):
    connection, wire = connected()
    taker = await Taker(connection).attach()
    wire.feed(_chunk(b"{}"))
    wire.feed(end)
    assert wire.is_closing()
    assert taker.taken[0] == b"{}"
    with pytest.raises(UpstreamError):
        while await connection.receive():
            pass


async def test_a_chunk_after_the_answer_is_no_part_of_it():
    connection, wire = connected()
    taker = await Taker(connection).attach()
    wire.feed(_chunk(b"{}"))
    wire.feed(b"0\r\n\r\n")
    wire.feed(_chunk(b"no"))
    await asyncio.sleep(0)
    assert taker.taken == [b"{}"]
    connection.close(reuse=True)
    assert not connection.is_usable


# -- requests that are answered before they are sent --

#: The body of a request larger than what a provider's side may hold unread.
LARGE = b"x" * 100_000


def asked(size: bytes = LARGE, *, tls: bool = False) -> tuple[Connection, Wire, list[Connection]]:
    """A connection on which a request has been begun, and those that are fit for the next."""
    released: list[Connection] = []
    connection = Connection(released.append, lambda _: None, header_limit=LIMIT, body_limit=LIMIT)
    wire = TlsWire(connection) if tls else Wire(connection)
    connection.begin(b"POST / HTTP/1.1\r\n\r\n" + size)
    return connection, wire, released


class TlsWire(Wire):
    """One over TLS: what has been encrypted counts as sent, as with real ones."""

    def get_extra_info(self, name: str, default: object = None) -> object:
        return object() if name == "ssl_object" else super().get_extra_info(name, default)


@pytest.mark.parametrize(
    "answer", [b"Content-Length: 2\r\n\r\n{}", b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"], ids=["whole", "its end to come"]
)
async def test_a_connection_on_which_a_request_still_waits_to_be_sent_serves_no_other(answer: bytes):
    connection, wire, released = asked()
    wire.unsent = 1
    wire.feed(b"HTTP/1.1 429 Slow Down\r\n" + answer)
    assert await connection.receive() == b"{}"
    connection.close(reuse=True)
    assert wire.is_closing() and not released


@pytest.mark.parametrize(
    ("body", "status", "fit"),
    [(LARGE, b"429 Slow Down", False), (LARGE, b"200 OK", True), (b"{}", b"429 Slow Down", True)],
    ids=["a large one refused", "a large one served", "a small one refused"],
)
async def test_over_tls_a_large_request_that_is_refused_may_not_have_been_sent(body: bytes, status: bytes, fit: bool):
    """Nobody says how much of it lies encrypted in front of the socket. Who serves it has read it."""
    connection, wire, released = asked(body, tls=True)
    wire.feed(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\n{}")
    assert connection.ready() == b"{}"
    connection.close(reuse=True)
    assert (released == [connection], wire.is_closing()) == (fit, not fit)


async def test_over_tls_a_body_that_comes_in_pieces_counts_as_well():
    connection, wire, released = asked(b"", tls=True)
    for _ in range(10):
        await connection.write(LARGE[:10_000])
    wire.feed(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\n{}")
    assert connection.ready() == b"{}"
    connection.close(reuse=True)
    assert wire.is_closing() and not released
    connection, wire, released = asked(b"", tls=True)
    wire.feed(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\n{}")
    assert connection.ready() == b"{}"
    connection.close(reuse=True)
    assert released == [connection]
