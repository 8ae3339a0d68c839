"""Bodies that are passed on as they arrive: how much of them may come, and how much is said to have come."""

from __future__ import annotations

import time

import pytest

from tests.support.gateway import Gateway, error_of
from tests.support.raw_client import RawClient
from tests.support.script import CHAT
from tests.support.upstream import Upstream

PURPOSE = b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
FORM = PURPOSE + b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n%b\r\n--x--\r\n'
HEADERS = {"Content-Type": "multipart/form-data; boundary=x"}


def test_a_form_over_the_limit_is_refused_before_anyone_is_asked(tight: Gateway, upstream: Upstream) -> None:
    form = FORM % (b"y" * 9000)
    with RawClient(tight.url) as client:
        answer = client.ask("POST", "/v1/files", headers=HEADERS, chunks=[form[:5000], form[5000:]])
        assert (answer.status, error_of(answer)["code"]) == (413, "request_too_large")
        assert answer.header("connection") == "close"
        assert client.is_closed(4)
    assert upstream.requests == []
    record = tight.record_of(answer)
    assert (record["outcome"], record["bytes_in"] > 8192) == ("client_error", True)


def test_a_form_under_the_limit_is_passed_on(tight: Gateway, upstream: Upstream) -> None:
    form = FORM % (b"y" * (8192 - len(FORM) + 2))
    assert len(form) == 8192
    upstream.play(CHAT)
    with RawClient(tight.url) as client:
        assert client.ask("POST", "/v1/files", headers=HEADERS, chunks=[form[:5000], form[5000:]]).status == 200
    assert upstream.requests[0].body == form


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("kind", ["multipart/form-data; boundary=x", "application/octet-stream"])
def test_what_came_is_in_the_record(gateway: Gateway, upstream: Upstream, chunked: bool, kind: str) -> None:
    form = FORM % (b"y" * 70_000)
    upstream.play(CHAT)
    chunks = [form[at : at + 9000] for at in range(0, len(form), 9000)] if chunked else None
    with RawClient(gateway.url) as client:
        answer = client.ask("POST", "/v1/files", form, headers={"Content-Type": kind}, chunks=chunks)
    assert answer.status == 200
    assert gateway.record_of(answer)["bytes_in"] == len(form)
    assert upstream.requests[0].body == form


# -- forms whose model is known --

AUDIO = "/v1/audio/transcriptions"
MODEL = b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\n%b\r\n'
SOUND = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n' + b"y" * 300_000 + b"\r\n"
END = b"--x--\r\n"


@pytest.mark.parametrize("chunked", [True, False])
def test_a_model_behind_its_file_is_found_and_renamed(gateway: Gateway, upstream: Upstream, chunked: bool) -> None:
    form = SOUND + MODEL % b"alias-model" + END
    upstream.play(CHAT)
    chunks = [form[at : at + 9000] for at in range(0, len(form), 9000)] if chunked else None
    with RawClient(gateway.url) as client:
        answer = client.ask("POST", AUDIO, form, headers=HEADERS, chunks=chunks)
    assert answer.status == 200
    assert upstream.requests[0].body == SOUND + MODEL % b"vendor/real-model" + END
    assert answer.header("x-comporta-model") == "alias-model"


WORSE = {
    "another model": (MODEL % b"other-model" + END, "ambiguous_model"),
    "another model behind a bare line's end": (b"--x\r\nX: y\n" + (MODEL % b"other-model")[5:] + END, "invalid_form"),
    "no end": (b"", "invalid_form"),
    "something after its end": (END + MODEL % b"other-model" + END, "invalid_form"),
}


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize(("rest", "code"), WORSE.values(), ids=WORSE.keys())
def test_a_form_that_turns_out_bad_while_it_passes_never_ends_for_its_provider(
    gateway: Gateway, upstream: Upstream, rest: bytes, code: str, chunked: bool
) -> None:
    form = MODEL % b"test-model" + SOUND + rest
    upstream.hang_up()
    begun = len(upstream.connections)
    with RawClient(gateway.url) as client:
        whole = client.request_bytes("POST", AUDIO, form, headers=HEADERS, chunks=[form[:200_000], form[200_000:]] if chunked else None)
        client.send(whole[:200_000])
        until = time.monotonic() + 5
        while len(upstream.connections) == begun and time.monotonic() < until:
            time.sleep(0.005)
        client.send(whole[200_000:])
        answer = client.read("POST")
        assert (answer.status, error_of(answer)["code"]) == (400, code)
    assert upstream.connections[begun].closed.wait(5), "the gateway holds on to a connection on which half a body was sent"
    assert upstream.requests == [], "the provider has got a whole body"
    record = gateway.record_of(answer)
    assert (record["outcome"], record["attempts"]) == ("client_error", 1)
