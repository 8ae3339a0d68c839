"""What OpenAI answers, route by route, in the shapes of its published API description.

Every JSON answer carries a field that nobody knows, which must reach the client as it is.
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tests.support.provider_double import DONE, PREFIX, Answer, Seen, event, refusal, spaced, stream

MODELS = ("gpt-4.1", "gpt-4.1-mini", "text-embedding-3-small", "whisper-1", "tts-1")
CREATED = 1_700_000_000
SPEECH = bytes(range(256)) * 400
EMBEDDING = (0.25, -0.5, 0.125)
JSON_ANSWER = '{"city": "Lisbon", "celsius": 21}'
UNKNOWN = {"kept": 1.0, "big": 12345678901234567890123, "text": "caf\u00e9 \u2615"}


def found(value: Mapping[str, Any]) -> Answer:
    return Answer(body=spaced({**value, "x_double": UNKNOWN}))


def listing(values: Iterable[Mapping[str, Any]]) -> Answer:
    rows = list(values)
    ends = {"first_id": rows[0]["id"], "last_id": rows[-1]["id"]} if rows else {}
    return found({"object": "list", "data": rows, "has_more": False, **ends})


# -- chat, completions, embeddings ------------------------------------------------------------------------------------------------


def said(messages: list[dict[str, Any]]) -> str:
    content = messages[-1]["content"]
    if isinstance(content, str):
        return f"You said: {content}"
    text = " ".join(part["text"] for part in content if part["type"] == "text")
    images = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
    return f"You said: {text} (images: {len(images)}, {sum(map(len, images))} characters)"


def chat_message(body: dict[str, Any]) -> dict[str, Any]:
    if body.get("tools"):
        name = body["tools"][0]["function"]["name"]
        call = {"id": "call_1", "type": "function", "function": {"name": name, "arguments": '{"city": "Lisbon"}'}}
        return {"role": "assistant", "content": None, "refusal": None, "tool_calls": [call]}
    shaped = body.get("response_format", {}).get("type", "text") != "text"
    return {"role": "assistant", "content": JSON_ANSWER if shaped else said(body["messages"]), "refusal": None}


def usage(**other: Any) -> dict[str, Any]:
    return {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14, **other}


def finish(message: dict[str, Any]) -> str:
    return "tool_calls" if message.get("tool_calls") else "stop"


def chat_deltas(message: dict[str, Any]) -> list[dict[str, Any]]:
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": "" if message["content"] else None}]
    for word in re.findall(r"\S+\s*", message["content"] or ""):
        deltas.append({"content": word})
    for index, call in enumerate(message.get("tool_calls", ())):
        function = call["function"]
        deltas.append({"tool_calls": [{"index": index, **call, "function": {"name": function["name"], "arguments": ""}}]})
        for piece in re.findall(r".{1,7}", function["arguments"]):
            deltas.append({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    return deltas


def chat_frames(body: dict[str, Any]) -> list[bytes]:
    """The frames of a streamed chat answer, `[DONE]` included."""
    message = chat_message(body)
    asked = body.get("stream_options", {}).get("include_usage", False)
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": CREATED, "model": body["model"], "x_double": UNKNOWN}
    tail = {"usage": None} if asked else {}
    steps: list[tuple[dict[str, Any], str | None]] = [(delta, None) for delta in chat_deltas(message)]
    steps.append(({}, finish(message)))
    frames = [
        event({**head, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}], **tail})
        for delta, reason in steps
    ]
    if asked:
        frames.append(event({**head, "choices": [], "usage": usage()}))
    return [*frames, DONE]


def chat(seen: Seen, _: re.Match[str]) -> Answer:
    body = seen.json
    if body.get("stream"):
        return stream(chat_frames(body))
    message = chat_message(body)
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish(message)}
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": CREATED, "model": body["model"]}
    return found({**head, "choices": [choice], "usage": usage(prompt_tokens_details={"cached_tokens": 0, "audio_tokens": 0})})


def completion(seen: Seen, _: re.Match[str]) -> Answer:
    body = seen.json
    head = {"id": "cmpl-1", "object": "text_completion", "created": CREATED, "model": body["model"]}
    words = [("Once ", None), ("upon", None), ("", "stop")]
    choices = [{"index": 0, "text": text, "logprobs": None, "finish_reason": reason} for text, reason in words]
    if body.get("stream"):
        return stream([*(event({**head, "choices": [choice]}) for choice in choices), DONE])
    return found({**head, "choices": [{**choices[-1], "text": "Once upon"}], "usage": usage()})


def embeddings(seen: Seen, _: re.Match[str]) -> Answer:
    body = seen.json
    texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
    packed: Any = list(EMBEDDING)
    if body.get("encoding_format") == "base64":
        packed = base64.b64encode(struct.pack(f"<{len(EMBEDDING)}f", *EMBEDDING)).decode()
    rows = [{"object": "embedding", "index": index, "embedding": packed} for index in range(len(texts))]
    return found({"object": "list", "data": rows, "model": body["model"], "usage": {"prompt_tokens": 3, "total_tokens": 3}})


def model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "double"}


# -- everything that the gateway only passes through ---------------------------------------------------------------------------------


def file_object(name: str = "file-1", size: int = 0, filename: str = "data.jsonl", purpose: str = "batch") -> dict[str, Any]:
    shape = {"object": "file", "created_at": CREATED, "status": "processed"}
    return {"id": name, "bytes": size, "filename": filename, "purpose": purpose, **shape}


def file_uploaded(seen: Seen, _: re.Match[str]) -> Answer:
    parts = seen.parts()
    size, purpose = len(seen.part("file")), seen.part("purpose").decode()
    return found(file_object(size=size, filename=parts["file"].get_filename() or "", purpose=purpose))


def transcription(seen: Seen, _: re.Match[str]) -> Answer:
    text = f"{len(seen.part('file'))} bytes heard by {seen.part('model').decode()}"
    return found({"text": text, "usage": {"type": "duration", "seconds": 2}})


def image(seen: Seen, _: re.Match[str]) -> Answer:
    return found({"created": CREATED, "data": [{"b64_json": base64.b64encode(seen.method.encode()).decode()}]})


HARMS = (
    *("harassment", "hate", "illicit", "self-harm", "sexual", "violence", "harassment/threatening", "hate/threatening"),
    *("illicit/violent", "self-harm/instructions", "self-harm/intent", "sexual/minors", "violence/graphic"),
)


def moderation(seen: Seen, _: re.Match[str]) -> Answer:
    row = {
        "flagged": True,
        "categories": dict.fromkeys(HARMS, False) | {"violence": True},
        "category_scores": dict.fromkeys(HARMS, 0.01) | {"violence": 0.9},
        "category_applied_input_types": {name: ["text"] for name in HARMS},
    }
    return found({"id": "modr-1", "model": seen.json.get("model", "omni-moderation-latest"), "results": [row]})


def response_object(status: str, text: str, name: str) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    item = {"id": "msg_1", "type": "message", "role": "assistant", "status": status, "content": [part] if text else []}
    details = {"input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
    spent = {"input_tokens": 9, "output_tokens": 2, "total_tokens": 11, **details} if text else None
    shape = {"object": "response", "created_at": CREATED, "parallel_tool_calls": True, "tool_choice": "auto", "tools": []}
    return {"id": "resp_1", "model": name, "status": status, "output": [item] if text else [], "usage": spent, **shape}


def response_events(name: str) -> list[dict[str, Any]]:
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    opened = {"id": "msg_1", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
    part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    finished = response_object("completed", "Hello there", name)
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": response_object("in_progress", "", name)},
        {"type": "response.output_item.added", "output_index": 0, "item": opened},
        {"type": "response.content_part.added", **place, "part": part},
        {"type": "response.output_text.delta", **place, "delta": "Hello ", "logprobs": []},
        {"type": "response.output_text.delta", **place, "delta": "there", "logprobs": []},
        {"type": "response.output_text.done", **place, "text": "Hello there", "logprobs": []},
        {"type": "response.content_part.done", **place, "part": finished["output"][0]["content"][0]},
        {"type": "response.output_item.done", "output_index": 0, "item": finished["output"][0]},
        {"type": "response.completed", "response": finished},
    ]
    return [{**value, "sequence_number": number} for number, value in enumerate(events)]


def response(seen: Seen, _: re.Match[str]) -> Answer:
    body = seen.json
    if body.get("stream"):
        return stream(event(value, value["type"]) for value in response_events(body["model"]))
    return found(response_object("completed", "Hello there", body["model"]))


def job(seen: Seen, _: re.Match[str]) -> Answer:
    body = seen.json
    shape = {"object": "fine_tuning.job", "created_at": CREATED, "status": "queued", "organization_id": "org-1", "result_files": []}
    return found(
        {"id": "ftjob-1", "model": body["model"], "training_file": body["training_file"], "seed": 7, "hyperparameters": {}, **shape}
    )


def batch(status: str) -> dict[str, Any]:
    shape = {"object": "batch", "endpoint": "/v1/chat/completions", "completion_window": "24h", "created_at": CREATED}
    return {"id": "batch_1", "input_file_id": "file-1", "status": status, **shape}


def upload(status: str) -> dict[str, Any]:
    shape = {"object": "upload", "created_at": CREATED, "expires_at": CREATED + 3600, "filename": "big.jsonl", "purpose": "batch"}
    return {"id": "upload_1", "bytes": 11, "status": status, **shape}


def vector_store() -> dict[str, Any]:
    counts = dict.fromkeys(("cancelled", "completed", "failed", "in_progress", "total"), 0)
    shape = {"object": "vector_store", "created_at": CREATED, "status": "completed", "usage_bytes": 0}
    return {"id": "vs_1", "name": "notes", "file_counts": counts, **shape}


def searched(seen: Seen, _: re.Match[str]) -> Answer:
    hit = {"file_id": "file-1", "filename": "data.txt", "score": 0.9, "attributes": {}, "content": [{"type": "text", "text": "found"}]}
    return found({"object": "vector_store.search_results.page", "search_query": seen.json["query"], "data": [hit], "has_more": False})


def vector_store_file(_: Seen, __: re.Match[str]) -> Answer:
    shape = {"object": "vector_store.file", "created_at": CREATED, "status": "completed", "usage_bytes": 0}
    return found({"id": "file-1", "vector_store_id": "vs_1", **shape})


def echoed(seen: Seen, match: re.Match[str]) -> Answer:
    """Any other route: what was asked, as JSON with an `id`."""
    return found({"id": "obj_1", "object": match["path"], "method": seen.method, "query": seen.query})


Route = Callable[[Seen, re.Match[str]], Answer]


def fixed(value: Mapping[str, Any]) -> Route:
    return lambda _seen, _match: found(value)


ROUTES: tuple[tuple[str, str, Route], ...] = (
    ("POST", "/chat/completions", chat),
    ("POST", "/completions", completion),
    ("POST", "/embeddings", embeddings),
    ("GET", "/models", lambda _, __: listing(map(model, MODELS))),
    ("GET", "/models/(?P<name>[^/]+)", lambda _, match: found(model(match["name"]))),
    ("POST", "/files", file_uploaded),
    ("GET", "/files", lambda _, __: listing([file_object()])),
    ("GET", "/files/(?P<name>[^/]+)", lambda _, match: found(file_object(match["name"]))),
    ("DELETE", "/files/(?P<name>[^/]+)", lambda _, match: found({"id": match["name"], "object": "file", "deleted": True})),
    ("GET", "/files/[^/]+/content", lambda _, __: Answer(body=SPEECH, content_type="application/octet-stream")),
    ("POST", "/uploads", fixed(upload("pending"))),
    ("POST", "/uploads/upload_1/parts", fixed({"id": "part_1", "object": "upload.part", "created_at": CREATED, "upload_id": "upload_1"})),
    ("POST", "/uploads/upload_1/complete", fixed({**upload("completed"), "file": file_object()})),
    ("POST", "/audio/speech", lambda _, __: Answer(body=SPEECH, content_type="audio/mpeg")),
    ("POST", "/audio/(transcriptions|translations)", transcription),
    ("POST", "/images/(generations|edits|variations)", image),
    ("POST", "/moderations", moderation),
    ("POST", "/responses", response),
    ("GET", "/responses/resp_1", fixed(response_object("completed", "Hello there", "gpt-4.1"))),
    ("GET", "/responses/resp_long_ago", fixed(response_object("completed", "Hello there", "gpt-4.1"))),
    ("POST", "/batches", fixed(batch("validating"))),
    ("GET", "/batches", lambda _, __: listing([batch("completed")])),
    ("GET", "/batches/batch_1", fixed(batch("completed"))),
    ("POST", "/batches/batch_1/cancel", fixed(batch("cancelling"))),
    ("POST", "/vector_stores", fixed(vector_store())),
    ("POST", "/vector_stores/vs_1/files", vector_store_file),
    ("POST", "/vector_stores/vs_1/search", searched),
    ("POST", "/fine_tuning/jobs", job),
    ("GET", "/fine_tuning/jobs", lambda _, __: listing([])),
    (".*", "/(?P<path>.*)", echoed),
)
COMPILED = tuple((re.compile(method), re.compile(PREFIX + path), route) for method, path, route in ROUTES)


def answer_for(seen: Seen) -> Answer:
    for method, path, route in COMPILED:
        match = path.fullmatch(seen.path)
        if match and method.fullmatch(seen.method):
            return route(seen, match)
    return refusal(404, f"Invalid URL ({seen.method} {seen.path})", "invalid_request_error")
