"""What is on the wire of an event stream, as `curl -N` shows it: framing, headers, pings, the end."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from typing import Any

import pytest

from tests.e2e.sdk.conftest import CLIENT_KEY, Unconfigured
from tests.e2e.sdk.openai_answers import chat_frames
from tests.support.gateway import Gateway
from tests.support.provider_double import DONE, ProviderDouble, event, refusal, stream

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is no Python package: `make system` installs it")

ASK: dict[str, Any] = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "uma gaivota ☕ voa"}], "stream": True}
WITH_USAGE = {**ASK, "stream_options": {"include_usage": True}}
SPACED = chat_frames(WITH_USAGE)
COMPACT = [
    DONE if frame == DONE else b"data: %b\n\n" % json.dumps(json.loads(frame[6:]), separators=(",", ":"), ensure_ascii=False).encode()
    for frame in SPACED
]


def curl(gateway: Gateway | Unconfigured, body: dict[str, Any], *options: str, path: str = "/v1/chat/completions") -> bytes:
    """Everything that came, heads included."""
    command = ["curl", "-sSNi", "--max-time", "15", "-H", "content-type: application/json", "-H", f"authorization: Bearer {CLIENT_KEY}"]
    command += [*options, "--data-binary", json.dumps(body), gateway.url + path]
    return subprocess.run(command, capture_output=True, check=False, timeout=20).stdout


def parsed(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    assert len(headers) == len(lines), f"a header came twice: {lines}"
    return int(first.split()[1]), {name.lower(): value for name, value in headers.items()}, body


def chunks_of(body: bytes) -> list[bytes]:
    """The chunks of a chunked body, the empty last one included."""
    chunks = []
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        chunks.append(body[:length])
        assert body[length : length + 2] == b"\r\n"
        body = body[length + 2 :]
    return chunks


def text_of(body: bytes) -> str:
    values = [json.loads(frame[6:]) for frame in body.split(b"\n\n") if frame.startswith(b"data: {")]
    return "".join(value["choices"][0]["delta"].get("content") or "" for value in values if value["choices"])


@pytest.mark.parametrize("frames", [SPACED, COMPACT], ids=["spaced", "compact"])
def test_the_bytes_of_a_stream_are_the_upstreams(gateway: Gateway, double: ProviderDouble, frames: list[bytes]) -> None:
    double.answer_next(stream(frames))
    status, _, body = parsed(curl(gateway, WITH_USAGE))
    assert status == 200
    assert body == b"".join(frames)
    assert body.endswith(b"\n\n" + DONE)


@pytest.mark.parametrize("frames", [SPACED, COMPACT], ids=["spaced", "compact"])
def test_only_usage_is_missing_where_it_was_not_asked_for(gateway: Gateway, double: ProviderDouble, frames: list[bytes]) -> None:
    double.answer_next(stream(frames))
    _, _, body = parsed(curl(gateway, ASK))
    kept = [frame for frame in frames if b'"choices":[]' not in frame and b'"choices" : []' not in frame]
    assert body == re.sub(rb',"usage" ?: ?null', b"", b"".join(kept))


def test_the_headers_of_a_stream_keep_proxies_from_holding_it(gateway: Gateway, double: ProviderDouble) -> None:
    _, headers, _ = parsed(curl(gateway, ASK))
    assert headers["content-type"].startswith("text/event-stream")
    assert headers["cache-control"] == "no-cache"
    assert headers["x-accel-buffering"] == "no"
    assert headers["transfer-encoding"] == "chunked"
    assert headers["x-request-id"] not in ("", "req_double")
    assert headers["x-comporta-provider-request-id"] == "req_double"
    assert headers["x-comporta-provider"] == "double"
    assert not {"content-length", "content-encoding", "set-cookie"} & headers.keys()


def test_a_chunk_holds_whole_events_and_the_body_ends_properly(gateway: Gateway, double: ProviderDouble) -> None:
    double.answer_next(stream(SPACED, gap=0.02))
    _, _, body = parsed(curl(gateway, WITH_USAGE, "--raw"))
    *chunks, last = chunks_of(body)
    assert last == b""
    assert all(chunk.startswith(b"data: ") and chunk.endswith(b"\n\n") for chunk in chunks)
    assert len(chunks) >= 5
    assert b"".join(chunks) == double.last.answer


def test_pings_fill_a_silence_before_and_between_events(gateway: Gateway, double: ProviderDouble) -> None:
    role, first, *rest = SPACED
    double.answer_next(stream([b"", role + first, b"".join(rest)], gap=1.2))
    _, _, body = parsed(curl(gateway, WITH_USAGE))
    assert body.startswith(b": ping\n\n: ping\n\n" + role + first + b": ping\n\n: ping\n\n")
    assert body.replace(b": ping\n\n", b"") == double.last.answer


def test_a_failure_in_mid_stream_is_one_event_and_no_done(gateway: Gateway, double: ProviderDouble) -> None:
    frames = SPACED[:3]
    double.answer_next(stream([*frames, event({"error": {"message": "gave up", "type": "server_error", "code": "engine_failed"}}), DONE]))
    _, headers, body = parsed(curl(gateway, WITH_USAGE))
    assert body.startswith(b"".join(frames))
    told = body.removeprefix(b"".join(frames))
    assert told.count(b"\n\n") == 1
    error = json.loads(told.removeprefix(b"data: "))["error"]
    assert error == {"message": "gave up", "type": "server_error", "param": None, "code": "engine_failed"}
    assert b"[DONE]" not in body
    assert headers["transfer-encoding"] == "chunked"


def test_a_refusal_is_json_and_not_an_event(gateway: Gateway, double: ProviderDouble) -> None:
    double.answer_next(refusal(429, "slow down", "requests", "rate_limit_exceeded"))
    status, headers, body = parsed(curl(gateway, ASK))
    assert status == 429
    assert headers["content-type"].startswith("application/json")
    assert int(headers["content-length"]) == len(body)
    assert json.loads(body)["error"]["message"] == "slow down"
    assert "transfer-encoding" not in headers


def test_an_old_client_gets_the_stream_unchunked_and_then_closed(gateway: Gateway, double: ProviderDouble) -> None:
    _, headers, body = parsed(curl(gateway, WITH_USAGE, "--http1.0"))
    assert body == double.last.answer
    assert "transfer-encoding" not in headers
    assert headers.get("connection", "close") == "close"


def test_a_connection_is_kept_after_a_stream(gateway: Gateway, double: ProviderDouble) -> None:
    both = curl(gateway, WITH_USAGE, "-w", "connections: %{num_connects}\n", gateway.url + "/v1/chat/completions")
    assert re.findall(rb"connections: (\d)", both) == [b"1", b"0"]
    assert both.count(DONE) == 2


def test_a_client_that_leaves_is_noticed(gateway: Gateway, double: ProviderDouble) -> None:
    double.answer_next(stream(SPACED[:3], ending="hang"))
    body = json.dumps(WITH_USAGE)
    command = ["curl", "-sN", "-H", "content-type: application/json", "-d", body, f"{gateway.url}/v1/chat/completions"]
    before = gateway.mark()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"data: {")
        left = time.monotonic()
        process.kill()
    assert double.last.cancelled.wait(2)
    assert double.last.cancelled_at is not None
    assert double.last.cancelled_at - left < 0.5  # tests/e2e has the 100 ms; this one shares its machine with curl's end
    assert gateway.record_since(before)["status"] == 499


def test_sim_streams_with_no_configuration_at_all(unconfigured: Unconfigured) -> None:
    status, headers, body = parsed(curl(unconfigured, {**WITH_USAGE, "model": "sim"}))
    assert status == 200
    assert headers["x-comporta-provider"] == "sim"
    assert headers["x-comporta-model"] == "sim"
    frames = body.split(b"\n\n")
    assert frames[-2:] == [b"data: [DONE]", b""]
    assert all(frame.startswith(b"data: ") and b"\n" not in frame for frame in frames[:-1])
    values = [json.loads(frame[6:]) for frame in frames[:-2]]
    assert len({(value["id"], value["created"], value["model"]) for value in values}) == 1
    assert "sim" in values[0]["model"]
    assert values[0]["choices"][0]["delta"]["role"] == "assistant"
    assert values[-1]["choices"] == []
    assert values[-1]["usage"]["total_tokens"] > 0
    assert all(value["usage"] is None for value in values[:-1])
    assert text_of(body)
