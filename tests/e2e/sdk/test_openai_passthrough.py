"""One call of every group of routes that the gateway only passes on, by the official Python SDK."""

from __future__ import annotations

import base64
import hashlib
import io
import threading
from collections.abc import Callable
from typing import Any

import openai
import pytest

from tests.e2e.sdk.conftest import CLIENT_KEY, UPSTREAM_KEYS, Sdk, recorded
from tests.e2e.sdk.openai_answers import SPEECH, UNKNOWN
from tests.support.gateway import Gateway
from tests.support.provider_double import GATE_SECONDS, Answer, ProviderDouble, refusal

LINES = b'{"custom_id": "1"}\n' * 4000


@pytest.fixture
def client(sdk: Sdk, gateway: Gateway) -> Any:
    return sdk.client(gateway)


def parts_of(double: ProviderDouble) -> dict[str, bytes]:
    return {name: double.last.part(name) for name in double.last.parts()}


# -- files and uploads --------------------------------------------------------------------------------------------------------------


def test_a_file_goes_up_as_it_is(sdk: Sdk, client: Any, double: ProviderDouble) -> None:
    stored = sdk.do(client.files.create(file=("data.jsonl", LINES, "application/jsonl"), purpose="batch"))
    assert (stored.filename, stored.bytes, stored.purpose) == ("data.jsonl", len(LINES), "batch")
    assert parts_of(double) == {"file": LINES, "purpose": b"batch"}
    assert double.last.headers["Authorization"] == f"Bearer {UPSTREAM_KEYS['DOUBLE_KEY']}"
    assert CLIENT_KEY.encode() not in double.last.body


def test_a_big_file_goes_up_whole(sdk: Sdk, client: Any, double: ProviderDouble) -> None:
    content = bytes(range(256)) * 16_384  # 4 MiB
    sdk.do(client.files.create(file=("big.bin", content), purpose="user_data"))
    assert hashlib.sha256(double.last.part("file")).digest() == hashlib.sha256(content).digest()


class Slow(io.BytesIO):
    """A file whose second half can be read only once `reached` was set."""

    def __init__(self, content: bytes, reached: Callable[[], bool]) -> None:
        super().__init__(content)
        self._middle = len(content) // 2
        self._reached = reached

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() >= self._middle and not self._reached():
            raise OSError("the gateway holds the upload back")
        return super().read(size)


def test_an_upload_is_passed_on_while_it_arrives(gateway: Gateway, double: ProviderDouble) -> None:
    """The client sends the second half only after the upstream has seen the first."""
    content = Slow(b"x" * 2_000_000, lambda: double.await_request().arrived.wait(5))
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=CLIENT_KEY, max_retries=0) as client:
        assert client.files.create(file=("slow.bin", content), purpose="user_data").bytes == 2_000_000


def test_files_are_listed_with_their_query_read_and_deleted(sdk: Sdk, client: Any, double: ProviderDouble) -> None:
    assert [file.id for file in sdk.each(client.files.list(limit=2, purpose="batch"))] == ["file-1"]
    assert sorted(double.last.query.split("&")) == ["limit=2", "purpose=batch"]
    assert sdk.do(client.files.retrieve("file-abc")).id == "file-abc"
    assert sdk.do(client.files.delete("file-abc")).deleted
    assert (double.last.method, double.last.path, double.last.body) == ("DELETE", "/v1/files/file-abc", b"")


def test_a_file_comes_down_as_it_is(sdk: Sdk, client: Any, double: ProviderDouble, gateway: Gateway) -> None:
    raw = sdk.do(client.files.with_raw_response.content("file-1"))
    assert raw.content == SPEECH
    record = recorded(gateway, raw.headers["x-request-id"])
    assert (record["status"], record["outcome"], record["bytes_out"]) == (200, "ok", len(SPEECH))


def test_a_download_is_passed_on_while_it_arrives(sdk: Sdk, client: Any, double: ProviderDouble) -> None:
    gate = threading.Event()
    double.answer_next(Answer(frames=(b"first", b"second"), content_type="application/octet-stream", gate=gate))

    def read(response: Any) -> list[bytes]:
        pieces = response.iter_bytes()
        first = sdk.next(pieces)
        gate.set()
        return [first, *sdk.each(pieces)]

    assert sdk.within(client.files.with_streaming_response.content("file-1"), read) == [b"first", b"second"]


def test_an_upload_in_parts_is_completed(sdk: Sdk, client: Any, double: ProviderDouble) -> None:
    upload = sdk.do(client.uploads.create(filename="big.jsonl", purpose="batch", bytes=11, mime_type="application/jsonl"))
    part = sdk.do(client.uploads.parts.create(upload.id, data=b"hello world"))
    assert parts_of(double) == {"data": b"hello world"}
    done = sdk.do(client.uploads.complete(upload.id, part_ids=[part.id]))
    assert (done.status, done.file.id) == ("completed", "file-1")


# -- audio and images ---------------------------------------------------------------------------------------------------------------


def test_speech_comes_as_the_upstreams_bytes(sdk: Sdk, client: Any, double: ProviderDouble) -> None:
    raw = sdk.do(client.audio.speech.with_raw_response.create(model="tts-1", voice="alloy", input="Hello"))
    assert raw.content == SPEECH
    assert raw.headers["content-type"] == "audio/mpeg"
    assert raw.http_request.content == double.last.body


def test_speech_can_be_heard_before_it_ends(sdk: Sdk, client: Any, double: ProviderDouble) -> None:
    gate = threading.Event()
    double.answer_next(Answer(frames=(b"la", b"la la"), content_type="audio/mpeg", gate=gate))

    def read(response: Any) -> list[bytes]:
        pieces = response.iter_bytes()
        first = sdk.next(pieces)
        gate.set()
        return [first, *sdk.each(pieces)]

    ask = client.audio.speech.with_streaming_response.create(model="tts-1", voice="alloy", input="Hello")
    assert sdk.within(ask, read) == [b"la", b"la la"]


def test_a_recording_is_sent_and_its_text_comes_back(sdk: Sdk, client: Any, double: ProviderDouble) -> None:
    heard = sdk.do(client.audio.transcriptions.create(file=("talk.mp3", SPEECH, "audio/mpeg"), model="whisper-1"))
    assert heard.text == f"{len(SPEECH)} bytes heard by whisper-1"
    assert double.last.part("file") == SPEECH


def test_the_model_in_a_form_chooses_the_provider(sdk: Sdk, routed: Gateway, double: ProviderDouble) -> None:
    client = sdk.client(routed)
    heard = sdk.do(client.audio.transcriptions.create(file=("talk.mp3", SPEECH, "audio/mpeg"), model="whisper-2"))
    assert double.last.headers["Authorization"] == f"Bearer {UPSTREAM_KEYS['OTHER_KEY']}"
    assert heard.text == f"{len(SPEECH)} bytes heard by whisper-1"


def test_an_image_is_made_and_edited(sdk: Sdk, client: Any, double: ProviderDouble) -> None:
    made = sdk.do(client.images.generate(model="gpt-image-1", prompt="a gate"))
    assert base64.b64decode(made.data[0].b64_json) == b"POST"
    sdk.do(client.images.edit(model="gpt-image-1", image=("gate.png", SPEECH, "image/png"), prompt="a green gate"))
    assert double.last.path == "/v1/images/edits"
    assert double.last.part("image") == SPEECH


# -- responses ----------------------------------------------------------------------------------------------------------------------


def test_a_response_passes_byte_for_byte(sdk: Sdk, client: Any, double: ProviderDouble) -> None:
    raw = sdk.do(client.responses.with_raw_response.create(model="gpt-4.1", input="Hello", extra_body={"x_new": {"big": 2**70}}))
    assert (raw.http_request.content, raw.content) == (double.last.body, double.last.answer)
    answer = raw.parse()
    assert answer.output_text == "Hello there"
    assert answer.model_extra["x_double"] == UNKNOWN


def test_a_streamed_response_keeps_its_typed_events(sdk: Sdk, client: Any, double: ProviderDouble, gateway: Gateway) -> None:
    raw = sdk.do(client.responses.with_raw_response.create(model="gpt-4.1", input="Hello", stream=True))
    events = sdk.each(raw.parse())
    assert [event.type for event in events][:2] == ["response.created", "response.output_item.added"]
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == "Hello there"
    assert [event.sequence_number for event in events] == list(range(len(events)))
    record = recorded(gateway, raw.headers["x-request-id"])
    assert (record["outcome"], record["stream"]) == ("ok", True)


def test_a_streamed_response_is_byte_identical_and_gets_no_done(sdk: Sdk, client: Any, double: ProviderDouble) -> None:
    ask = client.responses.with_streaming_response.create(model="gpt-4.1", input="Hello", stream=True)
    body = b"".join(sdk.within(ask, lambda response: sdk.each(response.iter_bytes())))
    assert body == double.last.answer


def test_a_response_goes_to_the_provider_that_its_model_names(sdk: Sdk, client: Any, double: ProviderDouble) -> None:
    sdk.do(client.responses.create(model="other/gpt-4.1", input="Hello"))
    assert double.last.headers["Authorization"] == f"Bearer {UPSTREAM_KEYS['OTHER_KEY']}"
    assert double.last.json["model"] == "gpt-4.1"


def test_a_stored_response_that_nobody_saw_made_is_read_from_the_default_provider(sdk: Sdk, client: Any, double: ProviderDouble) -> None:
    assert sdk.do(client.responses.retrieve("resp_long_ago")).output_text == "Hello there"
    assert double.last.headers["Authorization"] == f"Bearer {UPSTREAM_KEYS['DOUBLE_KEY']}"


# -- the rest -----------------------------------------------------------------------------------------------------------------------


def test_moderation_answers_with_its_categories(sdk: Sdk, client: Any, double: ProviderDouble) -> None:
    verdict = sdk.do(client.moderations.create(input="a fight")).results[0]
    assert verdict.flagged
    assert verdict.categories.violence
    assert not verdict.categories.self_harm_intent


def test_a_batch_is_made_watched_and_cancelled(sdk: Sdk, client: Any, double: ProviderDouble) -> None:
    made = sdk.do(client.batches.create(input_file_id="file-1", endpoint="/v1/chat/completions", completion_window="24h"))
    assert sdk.do(client.batches.retrieve(made.id)).status == "completed"
    assert [batch.id for batch in sdk.each(client.batches.list(limit=1))] == [made.id]
    assert sdk.do(client.batches.cancel(made.id)).status == "cancelling"


def test_a_vector_store_is_filled_and_searched(sdk: Sdk, client: Any, double: ProviderDouble) -> None:
    store = sdk.do(client.vector_stores.create(name="notes"))
    assert double.last.headers["OpenAI-Beta"] == "assistants=v2"
    assert sdk.do(client.vector_stores.files.create(store.id, file_id="file-1")).status == "completed"
    assert [hit.content[0].text for hit in sdk.each(client.vector_stores.search(store.id, query="a gate"))] == ["found"]


def test_a_fine_tuning_job_is_started_and_listed(sdk: Sdk, client: Any, double: ProviderDouble) -> None:
    job = sdk.do(client.fine_tuning.jobs.create(model="gpt-4.1-mini", training_file="file-1"))
    assert (job.status, job.model) == ("queued", "gpt-4.1-mini")
    assert sdk.each(client.fine_tuning.jobs.list(limit=3)) == []


RARE: list[tuple[str, str, Callable[[Any], Any]]] = [
    # The SDK calls these deprecated, and warnings are errors here: asked for by path.
    ("POST", "/assistants", lambda client: client.post("/assistants", body={"model": "gpt-4.1"}, cast_to=object)),
    ("POST", "/threads", lambda client: client.post("/threads", body={}, cast_to=object)),
    ("GET", "/videos/video_1", lambda client: client.get("/videos/video_1", cast_to=object)),
    ("POST", "/conversations", lambda client: client.conversations.create()),
    ("POST", "/containers", lambda client: client.containers.create(name="box")),
    ("DELETE", "/evals/eval_1", lambda client: client.evals.delete("eval_1")),
    ("GET", "/chat/completions/chatcmpl-1", lambda client: client.chat.completions.retrieve("chatcmpl-1")),
    ("POST", "/responses/resp_1/cancel", lambda client: client.responses.cancel("resp_1")),
    ("DELETE", "/vector_stores/vs_1", lambda client: client.vector_stores.delete("vs_1")),
    ("DELETE", "/models/ft:gpt-4.1:org::1", lambda client: client.models.delete("ft:gpt-4.1:org::1")),
    ("GET", "/skills/skill_1", lambda client: client.skills.retrieve("skill_1")),
]


@pytest.mark.parametrize(("method", "path", "ask"), RARE, ids=[path for _, path, _ in RARE])
def test_a_rarer_route_is_passed_on_too(
    sdk: Sdk, gateway: Gateway, double: ProviderDouble, method: str, path: str, ask: Callable[[Any], Any]
) -> None:
    sdk.do(ask(sdk.client(gateway, _strict_response_validation=False)))
    assert (double.last.method, double.last.path.replace("%3A", ":")) == (method, f"/v1{path}")


def test_an_upstreams_refusal_keeps_its_shape_here_too(sdk: Sdk, client: Any, double: ProviderDouble, gateway: Gateway) -> None:
    double.answer_next(refusal(400, "no such purpose", "invalid_request_error", "bad_purpose", "purpose"))
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.do(client.files.create(file=("data.jsonl", LINES), purpose="batch"))
    assert (caught.value.code, caught.value.param) == ("bad_purpose", "purpose")
    assert "no such purpose" in caught.value.message
    assert recorded(gateway, caught.value.request_id)["status"] == 400


def test_a_refused_key_is_a_502_here_too(sdk: Sdk, client: Any, double: ProviderDouble) -> None:
    double.answer_next(refusal(401, "Incorrect API key provided", "invalid_request_error", "invalid_api_key"))
    with pytest.raises(openai.InternalServerError) as caught:
        sdk.do(client.moderations.create(input="x"))
    assert (caught.value.status_code, caught.value.code) == (502, "provider_auth")


def test_a_client_that_leaves_a_download_cancels_it(sdk: Sdk, client: Any, double: ProviderDouble) -> None:
    double.answer_next(Answer(frames=(b"first", b"second"), content_type="application/octet-stream", ending="hang"))
    ask = client.files.with_streaming_response.content("file-1")
    assert sdk.within(ask, lambda response: sdk.next(response.iter_bytes())).startswith(b"first")
    assert double.last.cancelled.wait(GATE_SECONDS)
