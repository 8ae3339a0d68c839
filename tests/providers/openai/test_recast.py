"""Chunks that go by without being taken apart: the client gets what it would get otherwise, and what is counted is the same."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from providers.openai.stream import ChatDecoder
from proxy.core.call import Timeouts
from proxy.core.errors import ClientDisconnected
from proxy.stream import EventStream
from proxy.sweeper import Sweeper
from proxy.transport import Connection
from proxy.watch import Watch
from tests.core.doubles import HandClock, make_call
from tests.fuzz.wires import Wire
from tests.providers.openai.fixtures import DONE, NULL, chunk, delta, finish

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
LIMIT = 2**16
_TEXTS = (b"a", b" word", b"\\n", b'\\"', b"", "über".encode(), b"x" * 63, b"x" * 64, b"y" * 300, b"\\ud800", b'a"b', b"\x01")


def framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Chunks:
    """A client that is written to in chunks: what it was given, and how many of them went by."""

    def __init__(self, *, is_chunked: bool = True, room: int = 2**20) -> None:
        self.data = b""
        self.bytes_out = self.passed = 0
        self.gone = False
        self.room = room
        self.outlet: Any = self if is_chunked else None

    @property
    def transport(self) -> Any:
        return None if self.gone else self

    @property
    def lags(self) -> bool:
        return self.is_full

    @property
    def is_full(self) -> bool:
        return self.room <= 0

    def piece(self, data: bytes) -> bool:
        if self.gone:
            raise ClientDisconnected("gone")
        self.bytes_out += len(data)
        self._take(framed(data))
        return not self.is_full

    def write(self, data: bytes) -> None:
        self.passed += 1
        self._take(data)

    def _take(self, data: bytes) -> None:
        self.data += data
        self.room -= 1

    async def drain(self) -> None:
        self.room = 1


class Piped:
    """A stream on its way from a connection to a client."""

    def __init__(self, client: Chunks, first: bytes, *, wants_usage: bool = False) -> None:
        self.clock = HandClock()
        self.connection = Connection(lambda _: None, lambda _: None, header_limit=LIMIT, body_limit=LIMIT)
        self.wire = Wire(self.connection)
        self.connection.begin(b"GET / HTTP/1.1\r\n\r\n")
        self.wire.feed(HEAD)
        self.decoder = ChatDecoder(LIMIT, wants_usage=wants_usage)
        begun = self.decoder.feed(first)
        watch = Watch(self.clock, self.connection, Timeouts(), self.clock.now, Sweeper(self.clock.monotonic))
        self.call = make_call("chat")
        self.stream = EventStream(self.call, self.connection, self.decoder, watch, begun)
        self.task = asyncio.ensure_future(self.stream.pipe(client))

    @classmethod
    async def known(cls, client: Chunks, *first: bytes) -> Piped:
        """One on which such events have come that nothing needs to be read of the next."""
        piped = cls(client, first[0])
        await piped.feed(framed(first[-1]))
        assert client.passed == 0
        return piped

    async def feed(self, *reads: bytes) -> None:
        for data in reads:
            await asyncio.sleep(0)
            self.wire.feed(data)
        for _ in range(8):
            await asyncio.sleep(0)


#: What follows the choices of an event, with or without a place for padding.
_RESTS = (b"", NULL, b',"obfuscation":"%b"', NULL + b',"obfuscation":"%b"', b',"obfuscation":"%b"' + NULL, b',"p":"%b","x":1')
_PADDINGS = (b"a", b"aB3", b"0" * 14, b"Q" * 63, b"", b"a-b", b"a b", b"a" * 200, b'","p":"a')


def _events(dice: random.Random, count: int, rest: bytes) -> list[bytes]:
    """Events of which the frame changes now and then."""
    events = []
    name = b'"id":"1",'
    for _ in range(count):
        if dice.random() < 0.1:
            name = b'"id":"%d",' % dice.randrange(20)
        text = dice.choice(_TEXTS[:7] if dice.random() < 0.9 else _TEXTS[:9])
        padding = dice.choice(_PADDINGS[:4] if dice.random() < 0.9 else _PADDINGS)
        events.append(chunk(delta(text), rest.replace(b"%b", padding)).replace(b"{", b"{" + name, 1))
    return events


@pytest.mark.parametrize("wants_usage", [False, True])
@pytest.mark.parametrize("rest", _RESTS)
@pytest.mark.parametrize("seed", range(8))
async def test_the_client_gets_what_it_would_get_otherwise(seed: int, rest: bytes, wants_usage: bool):
    dice = random.Random(seed)
    events = [*_events(dice, 60, rest), chunk(finish(), NULL if NULL in rest else b""), DONE]
    reads = [framed(event) for event in events[1:]]
    expected, ways = [], []
    for is_chunked in (True, False):
        client = Chunks(is_chunked=is_chunked)
        piped = Piped(client, events[0], wants_usage=wants_usage)
        await piped.feed(*reads)
        await piped.task
        piped.stream.close(None)
        ways.append((client.data, client.bytes_out, piped.decoder.tokens, piped.call.tokens_seen, piped.decoder.usage))
        expected.append(client.passed)
    assert ways[0] == ways[1]
    assert expected[0] > 0
    assert expected[1] == 0
    assert not piped.decoder.failure


@pytest.mark.parametrize("text", _TEXTS)
async def test_a_text_that_is_none_or_not_short_goes_the_longer_way(text: bytes):
    client = Chunks()
    piped = await Piped.known(client, chunk(delta(b"Hel")))
    await piped.feed(framed(chunk(delta(text))))
    assert client.passed == (0 < len(text) < 64 and text not in (b"\\ud800", b'a"b', b"\x01"))
    piped.task.cancel()


@pytest.mark.parametrize("padding", _PADDINGS)
async def test_a_padding_is_letters_and_digits_or_the_event_is_read(padding: bytes):
    client = Chunks()
    events = [chunk(delta(b"Hel"), _RESTS[3] % each) for each in (b"Q", b"q", padding)]
    piped = await Piped.known(client, *events[:2])
    await piped.feed(framed(events[2]))
    assert client.passed == (padding.isalnum() and len(padding) < 128 - 3)
    assert client.data == b"".join(framed(event.replace(NULL, b"")) for event in events)
    assert piped.decoder.tokens == 3
    piped.task.cancel()


async def test_what_was_known_is_not_once_the_frame_has_changed():
    """An event that has the old frame's length but not its bytes, and one of the old frame, are read."""
    client = Chunks()
    old = [chunk(delta(text), NULL) for text in (b"a", b"b", b"c")]
    new = [event.replace(b'"choices"', b'"choicez":0,"choices"') for event in old]
    piped = await Piped.known(client, old[0])
    await piped.feed(framed(old[1]))
    assert client.passed == 1
    await piped.feed(framed(new[0]), framed(old[2]), framed(new[1]))
    assert client.passed == 1
    shown = [event.replace(b',"usage":null', b"") for event in (old[0], old[0], old[1], new[0], old[2], new[1])]
    assert client.data == b"".join(map(framed, shown))
    assert piped.decoder.tokens == 6
    piped.task.cancel()


@pytest.mark.parametrize("spoil", [lambda data: data[:-1] + b"\r", lambda data: b"0" + data, lambda data: data.replace(b"data", b"daxa")])
async def test_a_chunk_with_other_bytes_around_its_text_is_not_known(spoil):
    client = Chunks()
    piped = await Piped.known(client, chunk(delta(b"Hel")))
    await piped.feed(spoil(framed(chunk(delta(b"a")))))
    assert client.passed == 0
    piped.task.cancel()


async def test_half_an_event_makes_nothing_known_until_it_is_whole():
    client = Chunks()
    event = chunk(delta(b"a"))
    piped = Piped(client, event)
    await piped.feed(framed(event[:9]), framed(event[9:] + event[:9]), framed(event), framed(event[9:]))
    assert client.passed == 0
    piped.task.cancel()


async def test_the_end_is_no_progress_after_chunks_that_went_by():
    client = Chunks()
    piped = await Piped.known(client, chunk(delta(b"a")))
    piped.clock.move(1)
    await piped.feed(framed(chunk(delta(b"b"))))
    last = piped.call.last_token
    assert (client.passed, last) == (1, piped.clock.now)
    piped.clock.move(1)
    await piped.feed(framed(chunk(finish())))
    assert piped.call.last_token == last
    piped.task.cancel()


async def test_a_client_that_lags_is_waited_for_also_where_nothing_more_comes():
    client = Chunks(room=3)
    event = chunk(delta(b"a"))
    piped = await Piped.known(client, event)
    await piped.feed(framed(event))
    assert client.passed == 1
    assert client.room == 1, "it was asked to be drained"
    piped.task.cancel()


async def test_a_client_that_lags_or_has_left_is_given_no_more():
    client = Chunks(room=3)
    event = chunk(delta(b"a"))
    piped = await Piped.known(client, event)
    for _ in range(4):
        piped.wire.feed(framed(event))
    assert client.passed == 1
    assert client.data == framed(event) * 3, "the others wait until it has room"
    await piped.feed()
    assert client.data == framed(event) * 3 + framed(event * 3)
    client.room = 5
    client.gone = True
    await piped.feed(framed(event))
    with pytest.raises(ClientDisconnected):
        await piped.task
