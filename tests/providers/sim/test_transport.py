from __future__ import annotations

import asyncio
import gc

import orjson
import pytest
from pydantic import ValidationError

from providers.sim.provider import Sim
from providers.sim.settings import SimSettings
from proxy.core.call import Timeouts
from proxy.core.errors import UpstreamError
from proxy.core.protocols import UpstreamRequest, UpstreamResponse

from .conftest import PATIENT, FixedClock, chat_request, read, transport


async def test_whole_answer():
    sim = transport()
    response = await sim.send(chat_request(), Timeouts())
    assert isinstance(response, UpstreamResponse)
    assert response.status == 200
    assert response.headers["content-type"] == "application/json"
    body = await read(response)
    assert int(response.headers["content-length"]) == len(body)
    assert orjson.loads(body)["created"] == 1_700_000_000
    assert await response.receive() == b""
    assert sim.live == 0


async def test_each_event_is_received_by_itself():
    sim = transport()
    response = await sim.send(chat_request(stream=True), Timeouts())
    assert response.headers["content-type"].startswith("text/event-stream")
    parts = []
    while part := await response.receive():
        parts.append(part)
    assert all(part.startswith(b"data: ") and part.endswith(b"\n\n") and part.count(b"\n\n") == 1 for part in parts)
    assert parts[-1] == b"data: [DONE]\n\n"
    assert sim.live == 0


async def test_ids_are_unique_and_texts_are_not():
    sim = transport()
    answers = [orjson.loads(await read(await sim.send(chat_request(), Timeouts()))) for _ in range(3)]
    assert len({answer["id"] for answer in answers}) == 3
    assert len({answer["choices"][0]["message"]["content"] for answer in answers}) == 1


@pytest.mark.parametrize("url", ["sim://sim/models", "sim://sim/v1/models", "sim://sim/models?limit=1"])
async def test_address_is_what_follows_the_host(url):
    response = await transport().send(UpstreamRequest("GET", url), Timeouts())
    assert orjson.loads(await read(response))["data"][0]["id"] == "sim"


class Streamed:
    """A body that arrives in parts."""

    length: int | None = None

    def __init__(self, *parts: bytes) -> None:
        self.parts = parts
        self.taken = 0

    async def __aiter__(self):
        for part in self.parts:
            self.taken += 1
            yield part

    def named(self, model: str) -> Streamed:
        return self


async def test_streamed_bodies_are_read_to_their_end():
    known = Streamed(b'{"input":', b'"x"}')
    assert (await transport().send(UpstreamRequest("POST", "sim://sim/moderations", {}, known), Timeouts())).status == 200
    unknown = Streamed(b"--boundary", b"file")
    assert (await transport().send(UpstreamRequest("POST", "sim://sim/files", {}, unknown), Timeouts())).status == 404
    assert (known.taken, unknown.taken) == (2, 2)


@pytest.mark.parametrize(("share", "expected"), [(0, 0), (0.25, 50), (0.07, 14), (1, 200)])
async def test_error_share_is_exact(share, expected):
    sim = transport(error_share=share, seed=3)
    statuses = [(await sim.send(chat_request(), Timeouts())).status for _ in range(200)]
    assert statuses.count(500) == expected
    assert statuses.count(200) == 200 - expected


@pytest.mark.parametrize(
    ("status", "type_", "code"),
    [(500, "server_error", "server_error"), (429, "requests", "rate_limit_exceeded"), (422, "invalid_request_error", "simulated_error")],
)
async def test_errors_have_the_words_of_their_status(status, type_, code):
    response = await transport(error_share=1, error_status=status).send(chat_request(stream=True), Timeouts())
    error = orjson.loads(await read(response))["error"]
    assert (response.status, error["type"], error["code"]) == (status, type_, code)
    assert ("retry-after" in response.headers) == (status == 429)


async def test_lists_of_models_do_not_fail():
    assert (await transport(error_share=1).send(UpstreamRequest("GET", "sim://sim/models"), Timeouts())).status == 200


async def test_cut_share_is_exact_and_cuts_in_the_middle():
    sim = transport(cut_share=0.3, seed=5)
    cuts = 0
    for _ in range(100):
        response = await sim.send(chat_request(stream=True), Timeouts())
        received = b""
        try:
            while part := await response.receive():
                received += part
        except UpstreamError as error:
            assert error.kind == "reset"
            assert received.count(b'"content":') == 21  # the role's empty one, and half of forty
            assert b'"finish_reason":"' not in received
            cuts += 1
            with pytest.raises(UpstreamError):
                await response.receive()
        response.close()
    assert cuts == 30
    assert sim.live == 0


async def test_shortest_stream_is_cut_after_its_only_token():
    response = await transport(cut_share=1, length=1).send(chat_request(stream=True), Timeouts())
    assert b'"role"' in await response.receive()
    assert b"Simulated" in await response.receive()
    with pytest.raises(UpstreamError):
        await response.receive()


async def test_whole_answers_are_not_cut():
    assert orjson.loads(await read(await transport(cut_share=1).send(chat_request(), Timeouts())))


async def test_stalled_stream_ends_only_by_failing_it():
    response = await transport(stall_share=1).send(chat_request(stream=True), Timeouts())
    reader = asyncio.ensure_future(read(response))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not reader.done()
    response.fail(UpstreamError("upstream_timeout", "too late"))
    with pytest.raises(UpstreamError, match="too late"):
        await reader


async def test_pace_is_kept():
    loop = asyncio.get_running_loop()
    started = loop.time()
    response = await transport(first_token="100ms", per_token="40ms", length=5).send(chat_request(stream=True), PATIENT)
    assert loop.time() - started < 0.09
    times = []
    while await response.receive():
        times.append(loop.time() - started)
    # Role and first token together, then four tokens, then what ends the stream with the last of them.
    assert times[0] >= 0.099
    assert times[1] - times[0] < 0.03
    for token in range(5):
        assert times[1 + token] >= 0.099 + 0.04 * token
    assert times[-1] - times[5] < 0.03


async def test_choices_are_made_side_by_side():
    loop = asyncio.get_running_loop()
    started = loop.time()
    await read(await transport(per_token="10ms", length=5).send(chat_request(stream=True, n=50), PATIENT))
    assert 0.039 <= loop.time() - started < 1


async def test_late_reader_finds_what_has_gathered():
    response = await transport(per_token="20ms", length=10).send(chat_request(stream=True), PATIENT)
    await response.receive()
    await asyncio.sleep(0.25)
    loop = asyncio.get_running_loop()
    started = loop.time()
    await read(response)
    assert loop.time() - started < 0.1


async def test_whole_answer_takes_as_long_as_its_stream():
    loop = asyncio.get_running_loop()
    started = loop.time()
    await transport(first_token="30ms", per_token="10ms", length=4).send(chat_request(), PATIENT)
    assert loop.time() - started >= 0.059


@pytest.mark.parametrize("timeouts", [Timeouts(first_token=0.01), Timeouts(first_token=None, total=0.01)])
async def test_whole_answer_that_takes_too_long_times_out(timeouts):
    with pytest.raises(UpstreamError) as caught:
        await transport(first_token="1h").send(chat_request(), timeouts)
    assert caught.value.kind == "upstream_timeout"


async def test_refusals_do_not_wait():
    response = await transport(first_token="1h").send(chat_request(n=0), PATIENT)
    assert response.status == 400


async def test_stream_without_pauses_lets_others_run():
    turns = 0

    async def other():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await read(await transport(length=160).send(chat_request(stream=True), Timeouts()))
    task.cancel()
    assert turns >= 10


async def test_long_batch_of_embeddings_lets_others_run():
    body = orjson.dumps({"input": [f"text {index}" for index in range(64)]})
    response = await transport().send(UpstreamRequest("POST", "sim://sim/embeddings", {}, body), Timeouts())
    parts = []
    while part := await response.receive():
        parts.append(part)
    assert len(parts) == 65
    assert len(orjson.loads(b"".join(parts))["data"]) == 64


async def test_cancelled_stream_leaves_nothing_behind():
    sim = transport(first_token="1h")
    response = await sim.send(chat_request(stream=True), PATIENT)
    reader = asyncio.ensure_future(response.receive())
    await asyncio.sleep(0)
    assert sim.live == 1
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    response.close()
    response.close()
    assert sim.live == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert [
        handle
        for handle in gc.get_objects()
        if isinstance(handle, asyncio.TimerHandle) and "_finish" in repr(handle) and not handle.cancelled()
    ] == []


async def test_cancelled_receive_loses_no_event():
    sim = transport(first_token="20ms")
    response = await sim.send(chat_request(stream=True), PATIENT)
    first = asyncio.ensure_future(response.receive())
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert b'"role":"assistant"' in await response.receive()


async def test_cancelled_thinking_leaves_nothing_behind():
    sim = transport(first_token="1h")
    sending = asyncio.ensure_future(sim.send(chat_request(), PATIENT))
    await asyncio.sleep(0)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert sim.live == 0


async def test_failing_wakes_a_pending_receive_at_once():
    response = await transport(first_token="1h").send(chat_request(stream=True), PATIENT)
    reader = asyncio.ensure_future(response.receive())
    await asyncio.sleep(0)
    error = UpstreamError("upstream_timeout", "too late")
    response.fail(error)
    response.fail(UpstreamError("reset", "the first error counts"))
    with pytest.raises(UpstreamError) as caught:
        await reader
    assert caught.value is error
    with pytest.raises(UpstreamError):
        await response.receive()


async def test_closing_the_transport_breaks_what_is_under_way():
    sim = transport(first_token="1h")
    response = await sim.send(chat_request(stream=True), PATIENT)
    reader = asyncio.ensure_future(response.receive())
    await asyncio.sleep(0)
    await sim.close()
    with pytest.raises(UpstreamError) as caught:
        await reader
    assert caught.value.kind == "reset"
    with pytest.raises(UpstreamError) as refused:
        await sim.send(chat_request(), PATIENT)
    assert (refused.value.kind, refused.value.reached) == ("connect_failed", False)


@pytest.mark.parametrize(
    "fields",
    [
        {"error_share": 1.5},
        {"cut_share": -0.1},
        {"length": 0},
        {"first_token": "soon"},
        {"per_token": 3},
        {"error_status": 200},
        {"kind": "openai"},
        {"speed": 1},
    ],
)
def test_settings_refuse_what_makes_no_sense(fields):
    with pytest.raises(ValidationError):
        SimSettings(**fields)


def test_settings_default_to_no_delay_and_no_fault():
    settings = SimSettings()
    assert (settings.first_token, settings.per_token, settings.error_share, settings.cut_share, settings.length) == (0, 0, 0, 0, 40)


async def test_provider_brings_its_own_transport():
    provider = Sim(SimSettings(length=2))
    response = await provider.transport(FixedClock()).send(chat_request(), Timeouts())
    assert orjson.loads(await response.receive())["choices"][0]["message"]["content"] == "Simulated."


async def test_a_closed_provider_that_nobody_ever_asked_answers_no_more():
    way = Sim(SimSettings()).transport(FixedClock())
    await way.close()
    with pytest.raises(UpstreamError) as refused:
        await way.send(chat_request(), Timeouts())
    assert (refused.value.kind, refused.value.reached) == ("connect_failed", False)


async def test_a_provider_that_is_closed_after_it_was_asked_closes_its_answers():
    way = Sim(SimSettings()).transport(FixedClock())
    response = await way.send(chat_request(stream=True), PATIENT)
    await way.close()
    with pytest.raises(UpstreamError):
        await response.receive()
