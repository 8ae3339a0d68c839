"""What a call and its parts know of themselves."""

from __future__ import annotations

import time
from typing import Any

import orjson
import pytest

from proxy.core.call import Credential, Usage
from proxy.core.clock import SystemClock
from proxy.core.reply import Reply
from tests.core.doubles import make_call


def test_a_credential_does_not_show_its_secret():
    assert "sk-secret" not in repr(Credential("env:KEY", "sk-secret"))


@pytest.mark.parametrize(("reported", "provenance"), [(True, "reported"), (False, "estimated")])
def test_usage_says_where_it_is_from(reported: bool, provenance: str):
    assert Usage(reported=reported).provenance == provenance


@pytest.mark.parametrize(("size", "prompt"), [(0, 0), (1, 1), (4, 1), (5, 2), (400, 100)])
def test_an_estimate_counts_four_bytes_to_a_token_of_the_prompt(size: int, prompt: int):
    usage = make_call(raw=b"x" * size, tokens_seen=7).estimated_usage()
    assert usage == Usage(prompt=prompt, completion=7, reported=False)


PICTURE = "data:image/png;base64," + "A" * 100_000


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": PICTURE, "detail": "low"}}]}]},
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": PICTURE}]}]},
        {"messages": [{"content": [{"type": "input_audio", "input_audio": {"data": PICTURE, "format": "wav"}}]}]},
        {"messages": [{"content": [{"type": "file", "file": {"file_data": PICTURE}}]}], "n": 1, "stop": None},
    ],
)
def test_an_estimate_leaves_pictures_sound_and_files_out(body: dict[str, Any]):
    said = {**body, "instructions": "word" * 1000}
    prompt = make_call(raw=orjson.dumps(said), body=said).estimated_usage().prompt
    assert 1000 < prompt < 1050


@pytest.mark.parametrize("name", ["data", "file"])
def test_an_estimate_counts_schemas_whatever_their_properties_are_called(name: str):
    schema = {"type": "object", "properties": {name: {"type": "string", "description": "word" * 2000}}}
    for body in (
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}]},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}},
    ):
        assert make_call(raw=orjson.dumps(body), body=body).estimated_usage().prompt > 2000


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (Usage(9, 0, reported=True), Usage(9, 0, reported=True)),
        (Usage(9, 0, cached=8), Usage(9, 7, cached=8)),
        (Usage(0, 3, reasoning=2), Usage(2, 3, reasoning=2)),
        (None, Usage(2, 7)),
    ],
)
def test_what_is_not_told_of_usage_is_estimated(told: Usage | None, expected: Usage):
    assert make_call(raw=b"12345678", tokens_seen=7).accounted(told) == expected


def test_calls_share_nothing():
    one, other = make_call(), make_call()
    one.notes["a"] = 1
    one.body["b"] = 2
    assert (other.notes, other.body, other.attempts) == ({}, {}, [])


def test_a_call_that_is_over_has_its_reply_closed_and_then_its_record_written_once():
    seen: list[object] = []
    call, reply, error = make_call(), Reply(), ConnectionError()
    reply.on_close(seen.append)
    call.recorder = lambda *what: seen.append(what)
    call.end(reply, error)
    call.end(reply, None)
    assert seen == [error, (call, reply, error)]


def test_a_call_is_recorded_also_where_its_reply_cannot_be_closed():
    seen: list[object] = []
    call, reply = make_call(), Reply()

    def broken(_error: BaseException | None) -> None:
        raise RuntimeError("broken")

    reply.on_close(broken)
    call.recorder = lambda *what: seen.append(what)
    with pytest.raises(RuntimeError):
        call.end(reply, None)
    assert seen == [(call, reply, None)]


def test_a_call_that_had_no_reply_is_recorded_too():
    seen: list[object] = []
    call, error = make_call(), ConnectionError()
    call.recorder = lambda *what: seen.append(what)
    call.end(None, error)
    assert seen == [(call, None, error)]


def test_the_system_clock_is_the_systems():
    clock = SystemClock()
    assert clock.monotonic() <= time.monotonic()
    assert abs(clock.time() - time.time()) < 60
