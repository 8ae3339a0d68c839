"""The official Python SDK's client for Azure, unmodified but for `azure_endpoint`, against an upstream that speaks OpenAI."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.e2e.sdk.conftest import CLIENT_KEY
from tests.e2e.sdk.openai_answers import SPEECH
from tests.support.gateway import Gateway, error_of
from tests.support.provider_double import ProviderDouble
from tests.support.raw_client import RawClient, ask

HELLO: list[Any] = [{"role": "user", "content": "hello"}]
VERSION = "2024-10-21"


@pytest.fixture
def client(routed: Gateway) -> Iterator[openai.AzureOpenAI]:
    with openai.AzureOpenAI(azure_endpoint=routed.url, api_key=CLIENT_KEY, api_version=VERSION, max_retries=0, timeout=10.0) as made:
        yield made


def test_a_chat_goes_where_its_model_is(client: openai.AzureOpenAI, double: ProviderDouble) -> None:
    completion = client.chat.completions.create(model="fast", messages=HELLO)
    assert completion.choices[0].message.content == "You said: hello"
    seen = double.last
    assert (seen.path, seen.query, seen.json["model"]) == ("/v1/chat/completions", "", "gpt-4.1-mini")
    assert CLIENT_KEY not in str(seen.headers)


def test_the_path_decides_which_model_is_asked_for(routed: Gateway, double: ProviderDouble) -> None:
    options: dict[str, Any] = {
        "azure_endpoint": routed.url,
        "azure_deployment": "fast",
        "api_key": CLIENT_KEY,
        "api_version": VERSION,
        "max_retries": 0,
    }
    with openai.AzureOpenAI(**options, timeout=10.0) as client:
        chunks = list(client.chat.completions.create(model="some-name", messages=HELLO, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "You said: hello"
    assert double.last.json["model"] == "gpt-4.1-mini"


def test_an_empty_model_beside_a_path_that_names_one_says_nothing(routed: Gateway, double: ProviderDouble) -> None:
    """As Microsoft's own examples have it."""
    options: dict[str, Any] = {"azure_endpoint": routed.url, "api_key": CLIENT_KEY, "api_version": VERSION, "max_retries": 0}
    with openai.AzureOpenAI(**options, azure_deployment="fast", timeout=10.0) as client:
        assert client.chat.completions.create(model="", messages=HELLO).choices[0].message.content == "You said: hello"
    assert double.last.json["model"] == "gpt-4.1-mini"
    with openai.AzureOpenAI(**options, azure_deployment="whisper-2", timeout=10.0) as client:
        assert client.audio.transcriptions.create(file=("talk.mp3", SPEECH, "audio/mpeg"), model="").text
    assert (double.last.part("model"), double.last.part("file")) == (b"whisper-1", SPEECH)


def test_a_form_is_passed_on_under_the_models_name(client: openai.AzureOpenAI, double: ProviderDouble) -> None:
    heard = client.audio.transcriptions.create(file=("talk.mp3", SPEECH, "audio/mpeg"), model="whisper-2")
    assert heard.text
    assert double.last.part("model") == b"whisper-1"
    assert double.last.part("file") == SPEECH


def test_what_has_no_deployment_works_too(client: openai.AzureOpenAI) -> None:
    assert {model.id for model in client.models.list()} >= {"fast", "whisper-2"}


def test_an_unknown_deployment_is_an_unknown_model(client: openai.AzureOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="none-such", messages=HELLO)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_a_body_need_not_say_its_model(routed: Gateway, double: ProviderDouble) -> None:
    body = b'{"messages":[{"role":"user","content":"hello"}]}'
    answer = ask(routed.url, "POST", "/openai/deployments/fast/chat/completions?api-version=2024-10-21", body)
    assert answer.status == 200
    assert double.last.body == b'{"model":"gpt-4.1-mini","messages":[{"role":"user","content":"hello"}]}'


@pytest.mark.parametrize("path", ["audio/speech", "chat/completions"])
def test_a_body_that_is_missing_is_told(routed: Gateway, path: str) -> None:
    answer = ask(routed.url, "POST", f"/openai/deployments/fast/{path}")
    assert (answer.status, error_of(answer)["code"]) == (400, "invalid_json")


@pytest.mark.parametrize("opening", [b"", b"\r\n"])
@pytest.mark.parametrize("announced", [True, False])
def test_nor_need_a_form(routed: Gateway, double: ProviderDouble, opening: bytes, announced: bool) -> None:
    form = opening + b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.mp3"\r\n\r\nx\r\n--b--\r\n'
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    path = "/openai/deployments/whisper-2/audio/transcriptions"
    with RawClient(routed.url) as client:
        answer = client.ask("POST", path, form, headers=kind, chunks=None if announced else [form])
    assert answer.status == 200
    assert (double.last.part("model"), double.last.part("file")) == (b"whisper-1", b"x")


def test_a_name_that_is_none_is_told(routed: Gateway) -> None:
    answer = ask(routed.url, "POST", "/openai/deployments/a%0d%0ab/chat/completions", b'{"messages":[]}')
    assert (answer.status, error_of(answer)["param"]) == (400, "model")
