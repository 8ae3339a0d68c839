"""What every provider must keep, as tests to inherit. See docs/add_a_provider.md.

Subclass `ProviderConformance` in a module that pytest collects, with a name that begins with `Test`, and set the properties that have no
default. What a provider cannot do is marked `xfail` with a reason on an override of the one test, never left out.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from multidict import CIMultiDict

from proxy.core.call import Call, Credential, Target, Usage
from proxy.core.errors import UPSTREAM_KINDS, UpstreamError
from proxy.core.protocols import LLMProvider, StreamDecoder
from tests.core.doubles import ScriptedResponse, make_call

DONE = b"data: [DONE]\n\n"

#: What a client sends that is for the gateway alone. None of these values may reach a provider.
CANARY = "canary-of-the-client"
CLIENT_HEADERS: Mapping[str, str] = CIMultiDict(
    {
        "Authorization": f"Bearer {CANARY}",
        "Proxy-Authorization": CANARY,
        "Api-Key": CANARY,
        "X-Api-Key": CANARY,
        "Cookie": f"session={CANARY}",
        "Host": f"{CANARY}.example",
        "Origin": f"https://{CANARY}.example",
        "Referer": f"https://{CANARY}.example",
        "Connection": f"keep-alive, {CANARY}",
        "Forwarded": f"for={CANARY}",
        "X-Forwarded-For": CANARY,
        "X-Real-Ip": CANARY,
        "OpenAI-Organization": CANARY,
        "OpenAI-Project": CANARY,
        "X-Unknown": CANARY,
        "Content-Length": "1",
        "Transfer-Encoding": "chunked",
        "Upgrade": "websocket",
        "TE": "trailers",
        "Content-Type": "application/json",
    }
)

#: Headers that belong to one connection, or to the transport.
HOP_BY_HOP = {"connection", "content-length", "host", "keep-alive", "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade"}

_NONSENSE = (b"", b" ", b"{", b"[]", b"null", b"7", b'"text"', b"{}", b"<html><body>502</body></html>", b"\xff\xfe", b"\0", b'{"a":"\xff"}')


class ProviderConformance:
    """Tests of one provider. Override the properties; inherit the tests."""

    # -- what to set: there is no default, so who forgets one is told by name --

    @property
    def provider(self) -> LLMProvider:
        """A provider, built from its settings; each access may build a new one."""
        raise NotImplementedError

    @property
    def origin(self) -> str:
        """Scheme and host that every request must go to."""
        raise NotImplementedError

    @property
    def answer(self) -> bytes:
        """A whole 2xx body as the provider sends it for a chat."""
        raise NotImplementedError

    @property
    def stream(self) -> bytes:
        """A whole event stream as the provider sends it for a chat that was asked to stream, its usage included."""
        raise NotImplementedError

    @property
    def usage(self) -> Usage | None:
        """The usage that both `answer` and `stream` report; None where the provider reports none."""
        raise NotImplementedError

    @property
    def errors(self) -> Mapping[int, bytes]:
        """Bodies of the provider's errors by status."""
        return {}

    @property
    def errors_in_200(self) -> tuple[bytes, ...]:
        """Bodies with a status of 200 that are errors all the same."""
        return ()

    @property
    def stream_of_an_error(self) -> bytes | None:
        """A stream whose first event is an error; None where the provider has no such thing."""
        return None

    @property
    def credential(self) -> Credential | None:
        """None for a provider that needs none."""
        return Credential("env:KEY", "sk-of-the-gateway")

    @property
    def body(self) -> dict[str, Any]:
        """A chat as the client sends it."""
        return {"model": "public-name", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 16}

    # -- what is made of it --

    def call(self, **members: Any) -> Call:
        """A chat with `members` beside or in place of the body's."""
        body = {**self.body, **members}
        return make_call(
            raw=json.dumps(body).encode(), body=body, model=body["model"], stream=bool(body.get("stream")), headers=CLIENT_HEADERS
        )

    @property
    def target(self) -> Target:
        return Target("configured", "name-at-the-provider", "public-name", self.credential)

    def read(self, *parts: bytes, **members: Any) -> tuple[bytes, StreamDecoder]:
        """What a client gets of a stream that came in `parts`, and the decoder that made it."""
        decoder = self.provider.stream_decoder(self.call(stream=True, **members))
        out = b""
        for part in parts:
            out += decoder.feed(part)
            if decoder.done or decoder.failure is not None:
                return out, decoder
        return out + decoder.eof(), decoder

    @staticmethod
    def events(out: bytes) -> list[Any]:
        """The JSON of each event but the end, after a look at their form."""
        assert out == b"" or out.endswith(b"\n\n")
        frames = [frame for frame in out.split(b"\n\n") if frame]
        assert all(frame.startswith(b"data: ") and b"\n" not in frame for frame in frames)
        return [json.loads(frame[6:]) for frame in frames if frame != DONE.strip()]

    # -- encode --

    @pytest.mark.parametrize("stream", [False, True])
    def test_a_request_goes_to_the_configured_origin(self, stream: bool) -> None:
        request = self.provider.encode(self.call(stream=stream), self.target)
        assert request.url.startswith(self.origin + "/")
        assert request.method == "POST"

    def test_a_request_is_authenticated_by_the_gateways_credential(self) -> None:
        if self.credential is None:
            return
        request = self.provider.encode(self.call(), self.target)
        assert any(self.credential.secret in value for value in request.headers.values())
        assert self.credential.secret not in request.url, "addresses are logged on their way"

    @pytest.mark.parametrize("stream", [False, True])
    def test_nothing_of_the_clients_own_reaches_the_provider(self, stream: bool) -> None:
        request = self.provider.encode(self.call(stream=stream), self.target)
        assert CANARY not in repr((request.url, request.headers, request.body))
        assert not HOP_BY_HOP & set(request.headers)

    def test_a_call_without_a_credential_sends_none(self) -> None:
        request = self.provider.encode(self.call(), Target("configured", "name-at-the-provider"))
        assert self.credential is None or self.credential.secret not in repr(request)

    def test_header_names_are_lower_case_and_values_are_one_line(self) -> None:
        for name, value in self.provider.encode(self.call(), self.target).headers.items():
            assert name == name.lower()
            assert not set("\r\n\0") & set(name + value)

    @pytest.mark.parametrize("stream", [False, True])
    def test_the_provider_is_asked_for_its_own_name_of_the_model(self, stream: bool) -> None:
        request = self.provider.encode(self.call(stream=stream), self.target)
        assert isinstance(request.body, bytes)
        assert "name-at-the-provider" in request.url + request.body.decode()
        assert "public-name" not in request.url + request.body.decode()

    @pytest.mark.parametrize("stream", [False, True])
    def test_encoding_changes_nothing_of_the_call_and_can_be_repeated(self, stream: bool) -> None:
        call, provider = self.call(stream=stream), self.provider
        raw, body = call.raw, copy.deepcopy(call.body)
        first, second = provider.encode(call, self.target), provider.encode(call, self.target)
        assert (first.method, first.url, first.headers, first.body) == (second.method, second.url, second.headers, second.body)
        # Requests that say that they are the same but for their bodies may share what is.
        assert first.headers is not second.headers or (first.kept is not None and first.kept is second.kept)
        assert (call.raw, call.body, call.headers) == (raw, body, CLIENT_HEADERS)

    # -- whole answers --

    def test_an_answer_is_a_chat_completion_with_its_usage(self) -> None:
        call = self.call()
        reply = self.provider.decode(call, ScriptedResponse(), self.answer)
        answer = json.loads(reply.body)
        assert answer["object"] == "chat.completion"
        assert answer["choices"][0]["message"]["role"] == "assistant"
        assert answer["choices"][0]["finish_reason"]
        assert reply.stream is None
        if self.usage is not None:
            assert call.usage == self.usage
        else:
            assert call.usage is None or not call.usage.reported

    @pytest.mark.parametrize("body", _NONSENSE)
    def test_nonsense_in_an_answer_is_an_upstream_error(self, body: bytes) -> None:
        with pytest.raises(UpstreamError):
            self.provider.decode(self.call(), ScriptedResponse(), body)

    def test_a_cut_answer_is_an_upstream_error_wherever_it_was_cut(self) -> None:
        whole = self.answer.rstrip()
        for end in range(len(whole)):
            with pytest.raises(UpstreamError):
                self.provider.decode(self.call(), ScriptedResponse(), whole[:end])

    def test_a_damaged_answer_is_decoded_or_an_upstream_error_and_nothing_else(self) -> None:
        for damaged in _damaged(self.answer):
            try:
                self.provider.decode(self.call(), ScriptedResponse(), damaged)
            except UpstreamError:
                pass

    def test_an_error_inside_a_200_is_an_upstream_error(self) -> None:
        for body in self.errors_in_200:
            with pytest.raises(UpstreamError):
                self.provider.decode(self.call(), ScriptedResponse(), body)

    # -- errors --

    @pytest.mark.parametrize("status", [300, 400, 401, 403, 404, 408, 409, 413, 418, 422, 429, 500, 502, 503, 504, 520, 529, 599])
    def test_every_status_is_an_error_that_a_client_may_see(self, status: int) -> None:
        for body in (self.errors.get(status, b""), *self.errors.values(), *_NONSENSE, *_damaged(b'{"error":{"message":"m","code":7}}')):
            error = self.provider.decode_error(ScriptedResponse(status=status), body)
            assert error.kind in UPSTREAM_KINDS
            assert 400 <= error.status < 600
            assert error.message
            assert error.type
            assert "<html" not in error.message

    @pytest.mark.parametrize("status", [401, 403])
    def test_a_refused_credential_is_the_gateways_affair(self, status: int) -> None:
        secret = "" if self.credential is None else self.credential.secret
        body = json.dumps({"error": {"message": f"Incorrect API key provided: {secret}", "type": "authentication_error"}}).encode()
        error = self.provider.decode_error(ScriptedResponse(status=status), body)
        assert (error.kind, error.status) == ("provider_auth", 502)
        assert not secret or secret not in f"{error.message} {error.code} {error.type} {error.param} {error.detail}"

    def test_a_rate_limit_keeps_its_status_and_its_hint(self) -> None:
        response = ScriptedResponse(status=429, headers={"retry-after": "7"})
        error = self.provider.decode_error(response, self.errors.get(429, b""))
        assert error.status == 429
        assert error.retry_after == 7.0

    # -- streams --

    def test_a_stream_is_whole_chunks_and_an_end(self) -> None:
        out, decoder = self.read(self.stream)
        assert decoder.done
        assert decoder.failure is None
        assert out.endswith(DONE)
        assert out.count(DONE) == 1
        events = self.events(out)
        assert all(event["object"] == "chat.completion.chunk" for event in events)
        assert len({event["id"] for event in events}) == 1
        reasons = [choice.get("finish_reason") for event in events for choice in event["choices"]]
        assert len([reason for reason in reasons if reason]) == 1
        assert decoder.tokens > 0

    def test_a_stream_is_the_same_wherever_its_bytes_are_cut(self) -> None:
        whole, expected = self.read(self.stream)
        for parts in self._cuts():
            out, decoder = self.read(*parts)
            assert out == whole
            assert (decoder.done, decoder.usage, decoder.failure) == (expected.done, expected.usage, None)
            assert decoder.tokens > 0

    def test_a_streams_usage_is_read_and_shown_to_those_who_asked(self) -> None:
        out, decoder = self.read(self.stream, stream_options={"include_usage": True})
        assert decoder.usage == self.usage
        shown = [event["usage"] for event in self.events(out) if event.get("usage")]
        assert bool(shown) is (self.usage is not None)

    def test_a_streams_usage_is_read_and_kept_from_those_who_did_not(self) -> None:
        out, decoder = self.read(self.stream)
        assert decoder.usage == self.usage
        assert not [event for event in self.events(out) if "usage" in event]

    def test_a_stream_starts_with_content_and_not_before(self) -> None:
        decoder = self.provider.stream_decoder(self.call(stream=True))
        decoder.feed(b": a comment\n\n")
        by_comment = decoder.started
        assert not by_comment
        out = b""
        for at in range(len(self.stream)):
            out += decoder.feed(self.stream[at : at + 1])
            if decoder.started:
                break
        assert decoder.started
        assert not decoder.done
        assert b"[DONE]" not in out

    def test_a_cut_stream_is_told_and_gets_no_end(self) -> None:
        finished = self._end_of_content()
        for end in range(finished):
            out, decoder = self.read(self.stream[:end])
            assert decoder.failure is not None, end
            assert decoder.failure.kind in ("stream_truncated", "invalid_response")
            assert not decoder.done
            assert DONE not in out

    def test_an_error_before_content_never_starts_a_stream(self) -> None:
        if self.stream_of_an_error is None:
            return
        for parts in ((self.stream_of_an_error,), tuple(_bytes_of(self.stream_of_an_error))):
            out, decoder = self.read(*parts)
            assert decoder.failure is not None
            assert not decoder.started
            assert DONE not in out

    def test_nonsense_in_a_stream_is_a_failure_and_never_raises(self) -> None:
        for body in _NONSENSE:
            _, decoder = self.read(b"data: " + body + b"\n\n")
            assert decoder.failure is not None
            assert not decoder.started
        for damaged in _damaged(self.stream):
            self.read(damaged)

    def test_two_streams_know_nothing_of_each_other(self) -> None:
        provider = self.provider
        one, other = provider.stream_decoder(self.call(stream=True)), provider.stream_decoder(self.call(stream=True))
        one.feed(self.stream)
        assert one.done
        assert not (other.done or other.started or other.tokens or other.usage)

    def _cuts(self) -> Iterator[tuple[bytes, ...]]:
        yield tuple(_bytes_of(self.stream))
        for at in range(1, len(self.stream)):
            yield self.stream[:at], self.stream[at:]

    def _end_of_content(self) -> int:
        """How much of the stream it takes until the answer itself is whole, its end and usage aside."""
        low = next(end for end in range(1, len(self.stream) + 1) if self._is_whole(end))
        assert low > 1
        return low

    def _is_whole(self, end: int) -> bool:
        out, _ = self.read(self.stream[:end])
        return out.endswith(DONE)


def _bytes_of(data: bytes) -> Iterator[bytes]:
    return (data[at : at + 1] for at in range(len(data)))


def _damaged(data: bytes, copies: int = 200) -> Iterator[bytes]:
    """Copies of `data` with some bytes changed, cut out or doubled; the same ones every time."""
    dice = random.Random(len(data))
    for _ in range(copies):
        made = bytearray(data)
        for _ in range(dice.randint(1, 4)):
            at = dice.randrange(len(made) + 1)
            change = dice.randrange(3)
            if change == 0 and at < len(made):
                made[at] = dice.randrange(256)
            elif change == 1:
                del made[at : at + dice.randint(1, 8)]
            else:
                made[at:at] = made[at : at + dice.randint(1, 8)]
        yield bytes(made)
