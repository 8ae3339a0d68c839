"""A request's body as it arrives; rows 38 and 39 of docs/faults.md."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol

from proxy.core.errors import ClientDisconnected, ClientError
from proxy.http import body
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


@pytest.mark.parametrize("ends", ["too large", "late", "cancelled"])
def test_how_long_a_body_was_waited_for_is_known_however_that_ended(ends: str):
    async def main(clock: HandClock) -> float:
        call = make_call()
        reader = dripping(2, b"x" * 4096) if ends == "too large" else reader_of(b"x", ends=False)
        reading = body.read_body(call, reader, limit=3 * 4096, patience=6 if ends == "late" else 15)
        with suppress(ClientError, TimeoutError):
            await asyncio.wait_for(reading, 6 if ends == "cancelled" else None)
        return call.awaited

    assert in_virtual_time(main) == pytest.approx(6, abs=0.1)


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

TYPE = "multipart/form-data; boundary=b"
BOUNDARY = b"--b\r\n"
FIELD = b'Content-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n'
FILE = b'Content-Disposition: form-data; name="file"; filename="model"\r\nContent-Type: audio/wav\r\n\r\n\x00\xff\r\n\r\n\x01\r\n'
LONG = FILE[:-2] + b"x" * 200_000 + b"\r\n"
END = b"--b--\r\n"
FORMS = {
    "model first": BOUNDARY + FIELD + BOUNDARY + FILE + END,
    "model last": BOUNDARY + FILE + BOUNDARY + FIELD + END,
    "small letters": BOUNDARY + FIELD.lower() + END,
    "further headers": BOUNDARY + FIELD.replace(b"\r\n\r\n", b"\r\nContent-Type: text/plain\r\n\r\n") + END,
    "a name that ends alike": BOUNDARY + b'Content-Disposition: form-data; name="my-model"\r\n\r\nno\r\n' + BOUNDARY + FIELD + END,
    "a length": BOUNDARY + FIELD.replace(b"\r\n\r\n", b"\r\ncontent-length:9\r\n\r\n") + BOUNDARY + FILE + END,
    "a boundary at the very beginning of the line's end": b"\r\n" + BOUNDARY + FIELD + END,
}


async def content(
    *parts: bytes, length: int | None = None, operation: str = "audio", path: str = "/audio/transcriptions"
) -> tuple[body.FormContent, str | None]:
    call = make_call(operation)
    call.path = path
    arrival = body.Arrival(call, reader_of(*parts), limit=2**27, patience=5)
    return await body.read_form(call, arrival, TYPE, length), call.model


async def read(found: body.FormContent) -> bytes:
    pieces = [part async for part in found]
    assert all(pieces), "an empty chunk is the end of a chunked body"
    return b"".join(pieces)


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
        expected = form.replace(b"whisper-1", b"other/longer-model").replace(b"content-length:9", b"content-length:18")
        assert named.length == len(expected)
        assert await read(named) == expected


async def test_a_forms_model_can_be_replaced_twice():
    found, _ = await content(FORMS["a length"], length=len(FORMS["a length"]))
    named = found.named("other/longer-model").named("m")
    expected = FORMS["a length"].replace(b"whisper-1", b"m").replace(b"content-length:9", b"content-length:1")
    assert (named.length, await read(named)) == (len(expected), expected)


async def test_a_forms_model_is_not_replaced_by_one_that_would_end_it():
    found, _ = await content(FORMS["model first"])
    with pytest.raises(ClientError, match="boundary"):
        found.named("a--bc")


@pytest.mark.parametrize("form", [END, BOUNDARY + FILE + END, BOUNDARY + LONG + END], ids=["no parts", "no model", "a long file"])
@pytest.mark.parametrize("size", [2**20, 1000])
async def test_a_form_without_a_model_passes_as_it_is(form: bytes, size: int):
    found, model = await content(*(form[at : at + size] for at in range(0, len(form), size)))
    assert model is None
    assert (found.length, await read(found)) == (None, form)


@pytest.mark.parametrize("form", [END, BOUNDARY + FILE + END, BOUNDARY + LONG + END], ids=["no parts", "no model", "a long file"])
@pytest.mark.parametrize("opening", [b"", b"\r\n"], ids=["at once", "behind a line's end"])
async def test_a_form_without_a_model_may_be_given_one(form: bytes, opening: bytes):
    found, _ = await content(opening + form)
    for name in ("first", "other"):
        found = found.named(name)
    again, model = await content(await read(found))
    assert model == "other"
    assert (await read(again)).endswith(form)


@pytest.mark.parametrize("form", [b"", BOUNDARY + FIELD[:-2], BOUNDARY + FIELD + BOUNDARY + FILE], ids=["empty", "cut in the model", "cut"])
async def test_a_form_that_came_whole_without_its_end_is_refused_before_anyone_is_asked(form: bytes):
    reader, call = reader_of(), make_call("audio")
    reader.feed_data(form)
    reader.feed_eof()
    with pytest.raises(ClientError) as caught:
        await body.read_form(call, body.Arrival(call, reader, limit=2**20, patience=5), TYPE, None)
    assert (caught.value.status, caught.value.code) == (400, "invalid_form")


async def refused_while_it_passes(found: body.FormContent) -> tuple[str | None, bytes]:
    """The code, and what was passed on before."""
    passed = b""
    with pytest.raises(ClientError) as caught:
        async for part in found:
            passed += part
    assert caught.value.status == 400
    return caught.value.code, passed


@pytest.mark.parametrize(
    ("rest", "code"),
    [
        (BOUNDARY + FIELD.replace(b"whisper-1", b"gpt-4") + END, "ambiguous_model"),
        (BOUNDARY + b"X: y\r\n\r\nz\r\n" + END, "invalid_form"),
        (END + BOUNDARY + FIELD + END, "invalid_form"),
    ],
    ids=["another model", "a part that cannot be read", "another form"],
)
async def test_a_form_that_is_found_bad_while_it_passes_is_never_passed_to_its_end(rest: bytes, code: str):
    form = BOUNDARY + FIELD + BOUNDARY + LONG + rest
    found, model = await content(*(form[at : at + 10_000] for at in range(0, len(form), 10_000)))
    assert model == "whisper-1"
    refused, passed = await refused_while_it_passes(found)
    assert refused == code
    assert form.startswith(passed)
    assert 180_000 < len(passed) < len(BOUNDARY + FIELD + BOUNDARY + LONG)


@pytest.mark.parametrize("rest", [BOUNDARY + FILE, BOUNDARY + FILE + END[:-3], BOUNDARY + FILE[:-2] + b"x"])
async def test_the_last_bytes_of_a_form_without_its_end_are_not_passed_on(rest: bytes):
    reader, call = reader_of(), make_call("audio")
    reader.feed_data(BOUNDARY + FIELD + BOUNDARY)
    found = await body.read_form(call, body.Arrival(call, reader, limit=2**20, patience=5), TYPE, None)
    reader.feed_data(rest.removeprefix(BOUNDARY))
    reader.feed_eof()  # as aiohttp does with the last byte of a body whose length was announced
    refused, passed = await refused_while_it_passes(found)
    assert (refused, passed) == ("invalid_form", (BOUNDARY + FIELD)[:-2])


async def test_a_model_behind_more_than_is_held_back_is_refused():
    pieces = [BOUNDARY + FILE[:-2], *([b"x" * 2**20] * 40), b"\r\n" + BOUNDARY + FIELD + END]
    with pytest.raises(ClientError) as caught:
        await content(*pieces)
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, "model_too_late", "model")
    assert "before the files" in caught.value.message
    # Nobody needs a model for this one: it goes on without, and cannot have another later.
    found, model = await content(*pieces, operation="images", path="/images/edits")
    assert model is None
    refused, passed = await refused_while_it_passes(found)
    assert refused == "model_too_late"
    assert FIELD not in passed


async def test_no_more_of_a_form_is_held_back_than_may_be():
    call = make_call("images")
    reader = reader_of(BOUNDARY + FILE[:-2], *([b"x" * 1000] * 20), ends=False)
    await body.read_form(call, body.Arrival(call, reader, limit=2**20, patience=5), TYPE, None, most=5000)
    assert 5000 < call.bytes_in < 7000


async def test_a_model_behind_a_large_file_is_found():
    pieces = [BOUNDARY + FILE[:-2], *([b"x" * 2**20] * 25), b"\r\n" + BOUNDARY + FIELD + END]
    found, model = await content(*pieces, length=123)
    assert (model, found.length) == ("whisper-1", 123)
    assert await read(found) == b"".join(pieces)


async def test_a_file_that_needs_no_model_is_not_held_back():
    pieces = [BOUNDARY + b'Content-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n' + BOUNDARY + FILE[:-2], b"x" * 100]
    reader = reader_of(*pieces, ends=False)
    call = make_call("files")
    found = await body.read_form(call, body.Arrival(call, reader, limit=2**20, patience=5), TYPE, None)
    assert call.model is None
    assert (await anext(aiter(found)))[:3] == b"--b"
    found, model = await content(*pieces, b"\r\n" + BOUNDARY + FIELD + END, operation="files", path="/files")
    assert model is None
    assert (await refused_while_it_passes(found))[0] == "model_too_late"
    _, model = await content(BOUNDARY + FIELD + pieces[0], *pieces[1:], operation="files", path="/files")
    assert model == "whisper-1", "what stands before the files is read"


async def test_fields_without_end_are_not_held_back():
    pieces = [BOUNDARY, *([b'Content-Disposition: form-data; name="x"\r\n\r\n' + b"x" * 2**14 + b"\r\n" + BOUNDARY] * 8)]
    reader = reader_of(*pieces, ends=False)
    call = make_call("files")
    found = await body.read_form(call, body.Arrival(call, reader, limit=2**20, patience=5), TYPE, None)
    assert call.bytes_in <= 2**16 + 2**15
    assert await anext(aiter(found))


@pytest.mark.parametrize("parts", [(b"x" * 5000,), (b"x" * 4000, b"x" * 1000)])
async def test_a_forms_beginning_is_measured_too(parts: tuple[bytes, ...]):
    call = make_call("audio")
    reader = reader_of(BOUNDARY + FILE[:-2], *parts, ends=False)
    with pytest.raises(ClientError) as caught:
        await body.read_form(call, body.Arrival(call, reader, limit=4999, patience=5), TYPE, None)
    assert (caught.value.status, caught.value.code) == (413, "request_too_large")
    assert "4999" in caught.value.message


@pytest.mark.parametrize(("limit", "fits"), [(0, True), (-1, False)])
async def test_a_form_is_measured_from_its_beginning_to_its_end(limit: int, fits: bool):
    form, call = FORMS["model first"], make_call("audio")
    arrival = body.Arrival(call, reader_of(form[:90], form[90:]), limit=len(form) + limit, patience=5)
    found = await body.read_form(call, arrival, TYPE, None)
    assert (call.model, call.bytes_in) == ("whisper-1", 90)
    if fits:
        assert await read(found) == form
        return
    with pytest.raises(ClientError, match=f"larger than {len(form) - 1} bytes"):
        await read(found)


@pytest.mark.parametrize("name", [b"", b"\xff", b"a\0b", b"x" * 257, b"x" * 2000], ids=["none", "no text", "a control", "long", "longer"])
async def test_a_forms_model_that_is_no_name_is_refused(name: bytes):
    with pytest.raises(ClientError) as caught:
        await content(BOUNDARY + FIELD.replace(b"whisper-1", name) + END)
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, "invalid_value", "model")


async def test_a_body_that_is_no_form_passes_as_it_is():
    found = body.RawContent(body.Arrival(make_call(), reader_of(b"ab", b"c"), limit=3, patience=5), 3)
    assert found.named("other") is found
    assert (found.length, b"".join([part async for part in found])) == (3, b"abc")
