"""A request's body as it arrives; rows 38 and 39 of docs/faults.md."""

from __future__ import annotations

import asyncio
import time

import pytest
from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol

from proxy.core.errors import ClientDisconnected, ClientError
from proxy.http import body
from proxy.http.parse import checked_model
from tests.core.doubles import HandClock, every_cut, in_virtual_time, make_call


def reader_of(*parts: bytes, ends: bool = True) -> StreamReader:
    """A body that arrives in `parts`, one for each time that it is read."""
    loop = asyncio.get_running_loop()
    protocol = BaseProtocol(loop)
    protocol.transport = asyncio.Transport()
    reader = StreamReader(protocol, 2**20, loop=loop)
    left = list(parts)

    def feed() -> None:
        if left:
            reader.feed_data(left.pop(0))
            loop.call_soon(feed)
        elif ends:
            reader.feed_eof()

    loop.call_soon(feed)
    return reader


# -- bodies --


@pytest.mark.parametrize("parts", [(), (b"abc",), (b"a", b"b", b"c")])
async def test_a_body_is_read_whole(parts: tuple[bytes, ...]):
    assert await body.read_body(make_call(), reader_of(*parts), limit=3, patience=5) == b"".join(parts)


async def test_a_body_that_is_there_already_is_taken_at_once():
    reader = reader_of()
    reader.feed_data(b"abc")
    reader.feed_eof()
    assert await body.read_body(make_call(), reader, limit=3, patience=5) == b"abc"


@pytest.mark.parametrize("parts", [(b"abcd",), (b"abc", b"d"), (b"a",) * 4])
async def test_a_body_over_the_limit_is_refused_while_it_arrives(parts: tuple[bytes, ...]):
    with pytest.raises(ClientError) as caught:
        await body.read_body(make_call(), reader_of(*parts, ends=False), limit=3, patience=5)
    assert (caught.value.status, caught.value.code) == (413, "request_too_large")


async def test_a_body_that_is_there_already_is_measured_too():
    reader = reader_of()
    reader.feed_data(b"abcd")
    reader.feed_eof()
    with pytest.raises(ClientError) as caught:
        await body.read_body(make_call(), reader, limit=3, patience=5)
    assert caught.value.status == 413


def test_a_body_that_stands_still_is_given_up():
    async def main(clock: HandClock) -> float:
        began = clock.now
        with pytest.raises(ClientError) as caught:
            await body.read_body(make_call(), reader_of(b"a", ends=False), limit=3, patience=15)
        assert (caught.value.status, caught.value.code) == (408, "request_timeout")
        return clock.now - began

    assert in_virtual_time(main) == pytest.approx(15)


def dripping(every: float, part: bytes) -> StreamReader:
    """A body of which `part` comes every so many seconds, and that has no end."""
    loop = asyncio.get_running_loop()
    protocol = BaseProtocol(loop)
    protocol.transport = asyncio.Transport()
    reader = StreamReader(protocol, 2**20, loop=loop)

    def feed() -> None:
        reader.feed_data(part)
        loop.call_later(every, feed)

    feed()
    return reader


@pytest.mark.parametrize(
    ("part", "seconds"),
    [(b"x", 60), (b"x" * 4096, 70), (b"x" * 20_480, 114)],
    ids=["a byte every ten seconds", "410 bytes a second", "2 KiB a second"],
)
def test_a_body_that_drips_is_given_up_the_later_the_more_of_it_came(part: bytes, seconds: float):
    async def main(clock: HandClock) -> float:
        began = clock.now
        with pytest.raises(ClientError) as caught:
            await body.read_body(make_call(), dripping(10, part), limit=2**20, patience=15)
        assert (caught.value.status, caught.value.code) == (408, "request_timeout")
        return clock.now - began

    assert in_virtual_time(main) == pytest.approx(seconds, abs=10)


def test_a_body_over_a_slow_line_is_read():
    """16 MiB in 27 minutes."""

    async def main(clock: HandClock) -> tuple[int, float]:
        began = clock.now
        with pytest.raises(ClientError) as caught:
            await body.read_body(make_call(), dripping(1, b"x" * 10_240), limit=2**24, patience=15)
        return caught.value.status, clock.now - began

    status, seconds = in_virtual_time(main)
    assert status == 413
    assert seconds == pytest.approx(1638, abs=2)


def test_what_the_gateway_does_with_a_body_meanwhile_is_not_the_clients_time():
    async def main(clock: HandClock) -> int:
        size = 0
        async for part in body.Arrival(make_call(), reader_of(*([b"x"] * 5)), limit=2**20, patience=15):
            size += len(part)
            await asyncio.sleep(100)
        return size

    assert in_virtual_time(main) == 5


async def test_a_body_that_breaks_off_is_a_client_that_left():
    reader = reader_of(b"a", ends=False)
    reader.set_exception(ConnectionResetError())
    with pytest.raises(ClientDisconnected):
        await body.read_body(make_call(), reader, limit=3, patience=5)


async def test_reading_a_body_can_be_cancelled():
    task = asyncio.ensure_future(body.read_body(make_call(), reader_of(ends=False), limit=3, patience=60))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_body_can_be_passed_on_as_it_comes():
    found = [part async for part in body.Arrival(make_call(), reader_of(b"a", b"", b"bc"), limit=3, patience=5)]
    assert b"".join(found) == b"abc"
    assert all(found)
    with pytest.raises(ClientError) as caught:
        [part async for part in body.Arrival(make_call(), reader_of(b"ab", b"cd"), limit=3, patience=5)]
    assert caught.value.status == 413


@pytest.mark.parametrize("parts", [(b"abcd",), (b"a", b"", b"bcd"), (b"ab", b"cd", b"")])
async def test_what_came_is_counted(parts: tuple[bytes, ...]):
    call = make_call()
    assert [part async for part in body.Arrival(call, reader_of(*parts), limit=4, patience=5)] == [part for part in parts if part]
    assert call.bytes_in == 4


async def test_what_came_is_counted_where_it_is_too_much_or_breaks_off():
    call = make_call()
    with pytest.raises(ClientError):
        await body.read_body(call, reader_of(b"ab", b"cd"), limit=3, patience=5)
    assert call.bytes_in == 4
    call, reader = make_call(), reader_of(b"ab", ends=False)
    asyncio.get_running_loop().call_later(0.01, reader.set_exception, ConnectionResetError())
    with pytest.raises(ClientDisconnected):
        await body.read_body(call, reader, limit=3, patience=5)
    assert call.bytes_in == 2


# -- forms --

BOUNDARY = b"--b\r\n"
FIELD = b'Content-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n'
FILE = b'Content-Disposition: form-data; name="file"; filename="model"\r\nContent-Type: audio/wav\r\n\r\n\x00\xff\r\n\r\n\x01\r\n'
END = b"--b--\r\n"
FORMS = {
    "model first": BOUNDARY + FIELD + BOUNDARY + FILE + END,
    "model last": BOUNDARY + FILE + BOUNDARY + FIELD + END,
    "small letters": BOUNDARY + FIELD.lower() + END,
    "further headers": BOUNDARY + FIELD.replace(b"\r\n\r\n", b"\r\nContent-Type: text/plain\r\n\r\n") + END,
    "a name that ends alike": BOUNDARY + b'Content-Disposition: form-data; name="my-model"\r\n\r\nno\r\n' + BOUNDARY + FIELD + END,
}


async def content(*parts: bytes, length: int | None = None) -> tuple[body.FormContent, str | None]:
    reader = reader_of(*parts)
    arrival = body.Arrival(make_call(), reader, limit=2**20, patience=5)
    head, model = await body.form_head(arrival)
    return body.FormContent(head, arrival, length), model


async def read(found: body.FormContent) -> bytes:
    return b"".join([part async for part in found])


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
async def test_a_forms_model_is_found_and_its_bytes_pass_at_any_split(form: bytes):
    for parts in every_cut(form):
        found, model = await content(*parts, length=len(form))
        assert model == "whisper-1"
        assert found.length == len(form)
        assert await read(found) == form


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
async def test_a_forms_model_is_replaced_at_any_split(form: bytes):
    for parts in every_cut(form):
        found, _ = await content(*parts, length=len(form))
        named = found.named("other/longer-model")
        expected = form.replace(b"whisper-1", b"other/longer-model")
        assert await read(named) == expected
        assert named.length == len(expected)


@pytest.mark.parametrize(
    "form",
    [b"", END, BOUNDARY + FILE + END, BOUNDARY + FIELD[:-2], BOUNDARY + FILE + b"x" * 200_000],
    ids=["empty", "no parts", "no model", "cut in the model", "a long file"],
)
async def test_a_form_without_a_model_passes_as_it_is(form: bytes):
    found, model = await content(form, length=None)
    assert model is None
    renamed = found.named("other")
    assert renamed.length is None
    assert await read(renamed) == form


async def test_a_forms_beginning_is_searched_no_further_than_its_bound():
    reader = reader_of(*([b"x" * 2**14] * 8), BOUNDARY + FIELD)
    head, model = await body.form_head(body.Arrival(make_call(), reader, limit=2**20, patience=5))
    assert model is None
    assert len(head) <= 2**16 + 2**14


@pytest.mark.parametrize("size", [2**16, 64], ids=["at once", "in pieces"])
@pytest.mark.parametrize(
    "line",
    [
        b'content-disposition: form-data; name="model"\r\n',
        b"content-disposition: form-data;" + b' name="model"' * 20 + b"\r\n",
        b'content-disposition: form-data; name="model"',
        b'name="model"',
        b"a\r\n",
        b" ",
    ],
    ids=["lines", "lines of many names", "a line of many beginnings", "a line of names", "headers", "spaces"],
)
async def test_a_form_that_is_made_to_be_slow_is_searched_in_time_that_grows_with_its_size(line: bytes, size: int):
    form = (b'--b\r\ncontent-disposition: form-data; name="model"\r\n' + line * 2**16)[: 2**16]
    reader = reader_of(*(form[at : at + size] for at in range(0, len(form), size)))
    began = time.process_time()
    _, model = await body.form_head(body.Arrival(make_call(), reader, limit=2**20, patience=5))
    assert model is None
    assert time.process_time() - began < 0.5, "it would stand in the way of all other requests"


@pytest.mark.parametrize("parts", [(b"x" * 5000,), (b"x" * 4000, b"x" * 1000)])
async def test_a_forms_beginning_is_measured_too(parts: tuple[bytes, ...]):
    with pytest.raises(ClientError) as caught:
        await body.form_head(body.Arrival(make_call(), reader_of(*parts, ends=False), limit=4999, patience=5))
    assert (caught.value.status, caught.value.code) == (413, "request_too_large")
    assert "4999" in caught.value.message


@pytest.mark.parametrize(("limit", "fits"), [(0, True), (-1, False)])
async def test_a_form_is_measured_from_its_beginning_to_its_end(limit: int, fits: bool):
    form = FORMS["model first"]
    arrival = body.Arrival(make_call(), reader_of(form[:90], form[90:]), limit=len(form) + limit, patience=5)
    head, model = await body.form_head(arrival)
    assert (model, len(head)) == ("whisper-1", 90)
    found = body.FormContent(head, arrival, None)
    if fits:
        assert await read(found) == form
        return
    with pytest.raises(ClientError, match=f"larger than {len(form) - 1} bytes"):
        await read(found)


async def test_a_forms_model_that_is_no_text_is_still_a_name():
    _, model = await content(BOUNDARY + FIELD.replace(b"whisper-1", b"\xff"))
    assert model == "\ufffd"
    assert checked_model(model) == "\ufffd"
