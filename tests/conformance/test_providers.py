"""The built-in providers keep what every provider must."""

from __future__ import annotations

import json

from providers import BUILT_IN
from providers.openai import OpenAI, OpenAISettings
from providers.sim.engine import SimEngine
from providers.sim.provider import Sim
from providers.sim.settings import SimSettings
from providers.sim.wire import Stamp
from proxy.core.call import Credential, Usage
from proxy.core.protocols import LLMProvider
from tests.conformance.provider import ProviderConformance
from tests.providers.openai.fixtures import DONE, LAST, USAGE, WITH_NULLS

STAMP = Stamp("1", 1)


class TestOpenAI(ProviderConformance):
    @property
    def provider(self) -> LLMProvider:
        return OpenAI(OpenAISettings(base_url="https://api.example/v1"))

    @property
    def origin(self) -> str:
        return "https://api.example/v1"

    @property
    def answer(self) -> bytes:
        choice = {"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}
        usage = {
            "prompt_tokens": 9,
            "completion_tokens": 3,
            "prompt_tokens_details": {"cached_tokens": 4},
            "completion_tokens_details": {"reasoning_tokens": 2},
        }
        return json.dumps({"id": "c1", "object": "chat.completion", "choices": [choice], "usage": usage}).encode()

    @property
    def stream(self) -> bytes:
        return WITH_NULLS + LAST + DONE

    @property
    def usage(self) -> Usage:
        return USAGE

    @property
    def errors(self) -> dict[int, bytes]:
        def body(message: str, type_: str, code: str | None) -> bytes:
            return json.dumps({"error": {"message": message, "type": type_, "param": None, "code": code}}).encode()

        return {
            400: body("Too long.", "invalid_request_error", "context_length_exceeded"),
            401: body("Incorrect API key provided.", "invalid_request_error", "invalid_api_key"),
            429: body("Rate limit reached.", "requests", "rate_limit_exceeded"),
            500: body("The server had an error.", "server_error", None),
        }

    @property
    def errors_in_200(self) -> tuple[bytes, ...]:
        return (*self.errors.values(), b'{"error":"boom"}')

    @property
    def stream_of_an_error(self) -> bytes:
        return b"data: " + self.errors[429] + b"\n\n"


class TestSim(ProviderConformance):
    """The simulated provider, against what its own server says."""

    @property
    def provider(self) -> Sim:
        return Sim(SimSettings(length=6))

    @property
    def origin(self) -> str:
        return "sim://sim"

    @property
    def credential(self) -> Credential | None:
        return None

    def _said(self, **members: object) -> bytes:
        engine = SimEngine(SimSettings(length=6))
        return engine.answer("POST", "/chat/completions", {**self.body, "model": "sim", **members}, STAMP).read()

    @property
    def answer(self) -> bytes:
        return self._said()

    @property
    def stream(self) -> bytes:
        return self._said(stream=True, stream_options={"include_usage": True})

    @property
    def usage(self) -> Usage:
        usage = json.loads(self.answer)["usage"]
        return Usage(usage["prompt_tokens"], usage["completion_tokens"], reported=True)


def test_every_built_in_provider_is_held_to_the_suite():
    assert set(BUILT_IN) == {"openai", "sim"}
