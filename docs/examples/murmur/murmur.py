"""A provider with a dialect of its own. The example of docs/add_a_provider.md.

Murmur is made up: the smallest dialect that differs from OpenAI's in everything.

    POST {base_url}/answer    {"model": "m", "turns": [{"who": "user", "says": "Hi"}], "most": 100, "pieces": false}
    -> 200                    {"says": "Hello you", "ended": "full", "read": 1, "wrote": 2}
    -> 200 with pieces        events: {"says": "Hello"}, {"says": " you"}, {"ended": "full", "read": 1, "wrote": 2}
    -> 4xx, 5xx               {"problem": "in words"}
"""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import Field

from comporta import Call, ClientError, Reply, StreamDecoder, Target, UpstreamError, UpstreamRequest, UpstreamResponse, Usage
from providers.settings import NetworkSettings
from proxy.core.sse import EventDecoder, ProtocolError

#: What shapes an answer and Murmur cannot do. It is refused: dropped on the way, the client would get the answer to another question.
REFUSED = ("tools", "response_format", "stop", "logprobs")

FINISH_REASONS = {"full": "stop", "most": "length"}


class MurmurSettings(NetworkSettings):
    """`providers.<name>` with `kind: murmur`: what every provider on the network has, and nothing more."""

    kind: Literal["murmur"] = Field("murmur", description="which dialect it speaks")


class Murmur:
    """Values in, values out. One object serves all requests, so nothing of a request is kept in it."""

    Settings = MurmurSettings

    def __init__(self, settings: MurmurSettings) -> None:
        self._url = settings.base_url + "/answer"
        self._headers = {"content-type": "application/json", "accept-encoding": "identity", **settings.headers}
        self._event_limit = settings.limits.event

    def encode(self, call: Call, target: Target) -> UpstreamRequest:
        if call.operation != "chat":
            raise ClientError("This provider serves chat only.", code="unsupported_operation")
        for member in REFUSED:
            if call.body.get(member):
                raise ClientError(f"This provider does not take {member!r}.", param=member, code="unsupported_parameter")
        asked: dict[str, Any] = {
            "model": target.model,
            "turns": [turn_of(message) for message in call.body["messages"]],
            "pieces": call.stream,
        }
        most = call.body.get("max_completion_tokens", call.body.get("max_tokens"))
        if most is not None:
            asked["most"] = most
        headers = dict(self._headers)
        if target.credential is not None:
            headers["authorization"] = f"Bearer {target.credential.secret}"
        return UpstreamRequest("POST", self._url, headers, json.dumps(asked).encode())

    def decode(self, call: Call, response: UpstreamResponse, body: bytes) -> Reply:
        try:
            answer = json.loads(body)
            message = {"role": "assistant", "content": answer["says"]}
            reason = FINISH_REASONS[answer["ended"]]
            call.usage = usage_of(answer)
        except (ValueError, KeyError, TypeError) as error:
            raise UpstreamError("invalid_response", "The provider's answer makes no sense.", detail=repr(error)) from None
        choice = {"index": 0, "message": message, "finish_reason": reason}
        whole = {**frame(call, "chat.completion"), "choices": [choice], "usage": shown(call.usage)}
        return Reply(response.status, body=json.dumps(whole).encode())

    def decode_error(self, response: UpstreamResponse, body: bytes) -> UpstreamError:
        if response.status in (401, 403):
            return UpstreamError("provider_auth", "The provider refused the gateway's credential.")
        if response.status == 429:
            return UpstreamError("rate_limit_exceeded", "The provider's rate limit was reached.")
        if response.status >= 500:
            return UpstreamError("server_error", "The provider failed.", status=502)
        return UpstreamError("rejected", problem_of(body), status=response.status, code="murmur_refused")

    def stream_decoder(self, call: Call) -> StreamDecoder:
        return MurmurDecoder(call, self._event_limit)


class MurmurDecoder:
    """Murmur's events in, OpenAI's chunks out, wherever the bytes are split. The members are described at `comporta.StreamDecoder`."""

    def __init__(self, call: Call, event_limit: int) -> None:
        self.usage: Usage | None = None
        self.tokens = 0
        self.started = False
        self.done = False
        self.mended = False
        self.failure: UpstreamError | None = None
        self._frame = frame(call, "chat.completion.chunk")
        self._wants_usage = bool((call.body.get("stream_options") or {}).get("include_usage"))
        self._events = EventDecoder(event_limit)

    def feed(self, data: bytes) -> bytes:
        ready = []
        try:
            for event in self._events.feed(data):
                if not self.done:
                    ready.append(self._chunks(json.loads(event.data)))
        except ProtocolError:
            self.failure = UpstreamError("response_too_large", "The provider sent an event that is larger than the limit.")
        except (ValueError, KeyError, TypeError) as error:
            self.failure = UpstreamError("invalid_response", "The provider sent an event that makes no sense.", detail=repr(error))
        return b"".join(ready)

    def eof(self) -> bytes:
        if not self.done:
            self.failure = UpstreamError("stream_truncated", "The provider's stream ended before the answer was complete.")
        return b""

    def _chunks(self, event: dict[str, Any]) -> bytes:
        if "ended" in event:
            return self._last(event)
        delta = {"content": event["says"]}
        if not self.started:
            delta["role"] = "assistant"
        self.started = True  # the commit point: from now on a failure is told inside the stream
        self.tokens += 1
        return self._chunk([{"index": 0, "delta": delta, "finish_reason": None}])

    def _last(self, event: dict[str, Any]) -> bytes:
        last = self._chunk([{"index": 0, "delta": {}, "finish_reason": FINISH_REASONS[event["ended"]]}])
        self.usage = usage_of(event)
        self.started = self.done = True
        if self._wants_usage:
            last += self._chunk([], usage=shown(self.usage))
        return last + b"data: [DONE]\n\n"

    def _chunk(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        return b"data: %b\n\n" % json.dumps({**self._frame, "choices": choices, **more}).encode()


def frame(call: Call, kind: str) -> dict[str, Any]:
    """What all chunks of an answer share. Murmur has no ids, and says no time: a provider reads no clock."""
    return {"id": f"chatcmpl-{call.id}", "object": kind, "created": 0, "model": call.model}


def turn_of(message: Any) -> dict[str, str]:
    """Murmur's form of a message. Raises ClientError for pictures, sound and nonsense: the edge checks only that there is a list."""
    try:
        content = message["content"]
        text = content if isinstance(content, str) else "".join(part["text"] for part in content)
        return {"who": str(message["role"]), "says": text}
    except (KeyError, TypeError):
        raise ClientError("This provider takes messages with a role and text.", param="messages", code="unsupported_content") from None


def usage_of(answer: dict[str, Any]) -> Usage:
    return Usage(prompt=int(answer["read"]), completion=int(answer["wrote"]), reported=True)


def shown(usage: Usage) -> dict[str, int]:
    return {"prompt_tokens": usage.prompt, "completion_tokens": usage.completion, "total_tokens": usage.prompt + usage.completion}


def problem_of(body: bytes) -> str:
    try:
        return str(json.loads(body)["problem"])[:1000]
    except (ValueError, KeyError, TypeError):
        return "The provider refused the request."
