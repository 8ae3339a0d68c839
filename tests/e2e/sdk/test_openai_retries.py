"""What a provider that fails sees of a user's calls, when the official client tries again on top of the gateway's own retries."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import openai
import pytest

from tests.support.gateway import Gateway, provider
from tests.support.script import Reset, Script, chunk, error_response, event, json_response, script, sse, stream_head
from tests.support.upstream import Upstream

CALLS = 30  # of the user
SDK_TRIES = 3  # the client's own: max_retries=2, its default
SHARE, A_SECOND, AT_FIRST = 0.1, 1.0, 10.0  # of a provider's budget of retries (proxy/core/retry_budget.py)


@pytest.fixture(scope="module")
def failing() -> Iterator[Upstream]:
    with Upstream(script(error_response(500))) as server:
        yield server


@pytest.fixture(scope="module")
def gateway(failing: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """No breaker, which would hide what retries do; a provider for each case, since each has its own budget."""
    names = ("told", "untold", "first", "second")
    config: dict[str, Any] = {
        "providers": {name: provider(failing.url) for name in names},
        "models": {"told": "told", "untold": "untold", "pair": {"targets": ["first", "second"]}},
        "policies": {"retry": {"base": "1ms"}, "circuit_breaker": False},
    }
    with Gateway(config, tmp_path_factory.mktemp("amplified")) as running:
        yield running


@dataclass(frozen=True, slots=True)
class Load:
    """What came of the user's calls: the client's requests to the gateway, and the gateway's to the provider; in so many seconds."""

    requests: int
    upstream: int
    seconds: float

    def __str__(self) -> str:
        return f"{CALLS} calls: {self.requests / CALLS:.2f} requests and {self.upstream / CALLS:.2f} upstream calls for each"

    def bound(self, targets: int = 1) -> float:
        """Each request asks each target once; a tenth of that, one a second and ten at first are retried."""
        return (1 + SHARE) * self.requests * targets + targets * (A_SECOND * self.seconds + AT_FIRST)


def load(url: str, failing: Upstream, model: str, *, deaf: bool = False) -> Load:
    """`CALLS` calls, one after the other, all of which fail. A `deaf` client has never heard of `x-should-retry`."""
    requests = 0

    def count(response: Any) -> None:
        nonlocal requests
        requests += 1
        if deaf:
            response.headers.pop("x-should-retry", None)
        response.headers["retry-after-ms"] = "1"  # what the client would wait is not what is asked here

    failing.forget()
    started = time.monotonic()
    hooks: dict[str, list[Any]] = {"response": [count]}
    with openai.OpenAI(base_url=f"{url}/v1", api_key="sk-any", http_client=openai.DefaultHttpxClient(event_hooks=hooks)) as client:
        assert client.max_retries == SDK_TRIES - 1
        for _ in range(CALLS):
            with pytest.raises(openai.InternalServerError):
                client.chat.completions.create(model=model, messages=[{"role": "user", "content": "hi"}])
    return Load(requests, len(failing.requests), time.monotonic() - started)


def test_the_client_alone_asks_three_times(failing: Upstream) -> None:
    assert load(failing.url, failing, "any").upstream == SDK_TRIES * CALLS


def test_the_client_does_not_repeat_what_the_gateway_repeated(gateway: Gateway, failing: Upstream) -> None:
    seen = load(gateway.url, failing, "told")
    assert seen.requests == CALLS, "the client was not told that trying again is done"
    assert CALLS < seen.upstream <= seen.bound()


def test_a_client_that_is_not_told_is_bounded_by_the_budget(gateway: Gateway, failing: Upstream) -> None:
    """Without a budget these would be 9 for each call."""
    seen = load(gateway.url, failing, "untold", deaf=True)
    assert seen.requests == SDK_TRIES * CALLS
    assert seen.requests < seen.upstream <= seen.bound()


def test_each_of_two_targets_is_asked_no_more_than_that(gateway: Gateway, failing: Upstream) -> None:
    seen = load(gateway.url, failing, "pair")
    assert seen.requests == CALLS
    assert 2 * CALLS < seen.upstream <= seen.bound(targets=2)


# -- what has begun ---------------------------------------------------------------------------------------------------------------------
CREATED = event({"type": "response.created", "sequence_number": 0, "response": {"id": "resp_1", "status": "in_progress", "output": []}})
FAILED = {"id": "resp_1", "object": "response", "status": "failed", "error": {"code": "server_error", "message": "m"}, "output": []}
ERROR_FIRST = script(sse([event({"error": {"message": "m"}})], done=False))


def _image(client: openai.OpenAI) -> None:
    list(client.images.generate(model="told", prompt="a cat", stream=True))


def _run(client: openai.OpenAI) -> None:
    list(client.beta.threads.create_and_run(assistant_id="a", model="told", stream=True))


def _stored_stream(client: openai.OpenAI) -> None:
    list(client.responses.create(model="told", input="hi", store=True, stream=True))


def _stored(client: openai.OpenAI) -> None:
    client.responses.create(model="told", input="hi", store=True)


BEGUN: dict[str, tuple[Callable[[openai.OpenAI], None], Script]] = {
    "an image's stream that is cut": (_image, script(stream_head(), Reset())),
    "an image's stream that begins with an error": (_image, ERROR_FIRST),
    "a run that is cut": (_run, script(stream_head(), Reset())),
    "a stored response that is cut": (_stored_stream, script(stream_head(), chunk(CREATED), Reset())),
    "a stored response that failed": (_stored, script(json_response(200, FAILED))),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of threads, in the client
@pytest.mark.parametrize("what", BEGUN)
def test_what_leaves_something_behind_is_not_begun_again(gateway: Gateway, failing: Upstream, what: str) -> None:
    """Behind a good status the client alone repeats nothing, and the gateway must not make it."""
    ask, answer = BEGUN[what]
    asked = []
    for url in (failing.url, gateway.url):
        failing.forget()
        failing.play(answer)
        with openai.OpenAI(base_url=f"{url}/v1", api_key="sk-any") as client:
            try:
                ask(client)
            except (openai.APIError, httpx2.TransportError):
                pass
        asked.append(len(failing.requests))
    assert asked == [1, 1]
