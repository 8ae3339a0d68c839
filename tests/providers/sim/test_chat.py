from __future__ import annotations

import base64

import orjson
import pytest

from providers.sim.text import split


def text_of(told, index=0):
    return told.json["choices"][index]["message"]["content"]


def streamed_text(told, index=0):
    return "".join(choice["delta"].get("content") or "" for chunk in told.chunks for choice in chunk["choices"] if choice["index"] == index)


def test_answer_says_that_it_is_simulated_and_quotes_the_prompt(chat):
    told = chat()
    assert told.status == 200
    assert text_of(told).startswith('This is a simulated answer (no model was called) to "What is the weather in Paris?".')
    assert told.json["model"] == "sim"
    assert told.json["system_fingerprint"] == "fp_sim"
    assert told.json["id"].startswith("chatcmpl-sim-")


def test_answer_to_another_models_name_still_says_sim(chat):
    assert chat(model="gpt-4.1").json["model"] == "sim/gpt-4.1"
    assert chat(model="sim/gpt-4.1").json["model"] == "sim/gpt-4.1"


@pytest.mark.parametrize("length", [*range(1, 30), 100])
def test_length_is_exact(chat, length):
    told = chat(settings={"length": length})
    assert told.json["usage"]["completion_tokens"] == length
    assert told.json["choices"][0]["finish_reason"] == "stop"
    assert "simulated" in text_of(told).lower()


def test_same_prompt_and_seed_give_the_same_text(chat):
    assert text_of(chat()) == text_of(chat())
    assert text_of(chat(seed=7)) == text_of(chat(seed=7))
    assert text_of(chat(settings={"seed": 7})) == text_of(chat(seed=7))


def test_another_seed_gives_another_text(chat):
    assert len({text_of(chat(seed=seed, settings={"length": 80})) for seed in range(20)}) > 15


def test_request_seed_wins_over_the_configured_one(chat):
    assert text_of(chat(seed=1, settings={"seed": 2})) == text_of(chat(seed=1))


def test_choices_of_one_request_differ(chat):
    told = chat(n=4, settings={"length": 80})
    assert [choice["index"] for choice in told.json["choices"]] == [0, 1, 2, 3]
    assert len({choice["message"]["content"] for choice in told.json["choices"]}) == 4


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_limit_cuts_the_answer(chat, field):
    told = chat(**{field: 5})
    assert told.json["choices"][0]["finish_reason"] == "length"
    assert told.json["usage"]["completion_tokens"] == 5
    assert text_of(told) == "This is a simulated answer"


def test_limit_that_is_not_reached_changes_nothing(chat):
    assert chat(max_tokens=40).json["choices"] == chat().json["choices"]


@pytest.mark.parametrize("stop", ["called", ["nowhere", "called", "zzz"], [" no", "called"], "\n"])
def test_stop_cuts_exactly_before(chat, stop):
    whole = text_of(chat())
    stops = [stop] if isinstance(stop, str) else stop
    cut = min((at for one in stops if (at := whole.find(one)) >= 0), default=len(whole))
    told = chat(stop=stop)
    assert text_of(told) == whole[:cut]
    assert told.json["choices"][0]["finish_reason"] == "stop"
    assert streamed_text(chat(stop=stop, stream=True)) == whole[:cut]


def test_stop_beyond_the_limit_is_never_reached(chat):
    assert chat(stop="called", max_tokens=4).json["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"n": 3},
        {"max_tokens": 7},
        {"response_format": {"type": "json_object"}},
        {"logprobs": True, "top_logprobs": 2},
        {"n": 2, "stop": "."},
    ],
)
def test_stream_carries_the_same_text_as_the_whole_answer(chat, fields):
    whole, streamed = chat(**fields), chat(**fields, stream=True)
    for index, choice in enumerate(whole.json["choices"]):
        assert streamed_text(streamed, index) == choice["message"]["content"]
        reasons = [c["finish_reason"] for chunk in streamed.chunks for c in chunk["choices"] if c["index"] == index]
        assert reasons[-1] == choice["finish_reason"]
        assert set(reasons[:-1]) == {None}


def test_role_comes_first_and_head_is_the_same_throughout(chat):
    chunks = chat(stream=True).chunks
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert all("role" not in chunk["choices"][0]["delta"] for chunk in chunks[1:])
    assert len({(chunk["id"], chunk["created"], chunk["model"], chunk["object"]) for chunk in chunks}) == 1
    assert chunks[0]["object"] == "chat.completion.chunk"
    assert all("usage" not in chunk for chunk in chunks)


def test_usage_of_a_stream_comes_last_and_only_when_asked_for(chat):
    chunks = chat(stream=True, stream_options={"include_usage": True}).chunks
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == chat().json["usage"]
    assert all(chunk["usage"] is None and chunk["choices"] for chunk in chunks[:-1])
    assert all("usage" not in chunk for chunk in chat(stream=True, stream_options={"include_usage": False}).chunks)


def test_one_event_per_token(chat):
    contents = [chunk["choices"][0]["delta"].get("content") for chunk in chat(stream=True).chunks]
    assert len([content for content in contents if content]) == 40


def test_usage_sums_up(chat):
    usage = chat(n=3).json["usage"]
    assert usage["completion_tokens"] == 120
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == 0
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 0


def test_longer_prompts_have_more_tokens(chat):
    counts = [chat("word " * times).json["usage"]["prompt_tokens"] for times in (1, 10, 100, 1000, 10_000, 100_000)]
    assert counts == sorted(set(counts))
    assert 90_000 < counts[-1] < 110_000


@pytest.mark.parametrize("text", ["", "日本語のテキスト", "a  b\n\n\tc", "x" * 100, "émoji 🙂🙂🙂 !!!???", " "])
def test_pieces_join_to_the_text(text):
    assert "".join(split(text)) == text


@pytest.mark.parametrize("prompt", ["", "🙂", "日本語のテキストです", "x" * 50_000, '"quotes" \\ and \x00 controls', "the of and"])
def test_any_prompt_is_answered(chat, prompt):
    told = chat(prompt)
    assert told.status == 200
    assert "simulated" in text_of(told)
    assert streamed_text(chat(prompt, stream=True)) == text_of(told)


def test_logprobs_belong_to_the_tokens(chat):
    told = chat(logprobs=True, top_logprobs=3)
    content = told.json["choices"][0]["logprobs"]["content"]
    assert "".join(entry["token"] for entry in content) == text_of(told)
    assert b"".join(bytes(entry["bytes"]) for entry in content).decode() == text_of(told)
    for entry in content:
        tops = entry["top_logprobs"]
        assert len(tops) == 3
        assert tops[0]["token"] == entry["token"]
        assert 0 > tops[0]["logprob"] > tops[1]["logprob"] > tops[2]["logprob"]
    assert chat(logprobs=True).json["choices"][0]["logprobs"]["content"][0]["top_logprobs"] == []
    assert chat().json["choices"][0]["logprobs"] is None


def test_logprobs_of_a_stream_are_those_of_the_whole_answer(chat):
    whole = chat(logprobs=True, top_logprobs=1).json["choices"][0]["logprobs"]["content"]
    chunks = chat(logprobs=True, top_logprobs=1, stream=True).chunks
    assert [entry for chunk in chunks for entry in (chunk["choices"][0]["logprobs"] or {"content": []})["content"]] == whole


def test_parts_of_every_kind_are_taken(chat):
    picture = "data:image/png;base64," + base64.b64encode(b"picture").decode()
    content = [
        {"type": "text", "text": "What is in Lisbon?"},
        {"type": "image_url", "image_url": {"url": picture}},
        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
        {"type": "file", "file": {"file_id": "file-1"}},
    ]
    told = chat(messages=[{"role": "developer", "content": "Be brief."}, {"role": "user", "content": content}], modalities=["text"])
    assert "What is in Lisbon?" in text_of(told)
    assert told.json["usage"]["prompt_tokens"] > 3 * 85


def test_fields_that_a_simulation_has_no_use_for_are_accepted(chat):
    told = chat(reasoning_effort="high", metadata={"a": "b"}, store=True, temperature=0.3, something_new={"x": [1]}, stop=None, n=None)
    assert text_of(told) == text_of(chat())


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"messages": None}, "messages", "missing_required_parameter"),
        ({"messages": []}, "messages", "empty_array"),
        ({"messages": "hi"}, "messages", "invalid_type"),
        ({"messages": ["hi"]}, "messages[0]", "invalid_type"),
        ({"messages": [{"content": "hi"}]}, "messages[0].role", "missing_required_parameter"),
        ({"messages": [{"role": "wizard", "content": "hi"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content", "invalid_type"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content[0]", "invalid_type"),
        ({"messages": [{"role": "user", "content": [{}]}]}, "messages[0].content[0].type", "missing_required_parameter"),
        ({"messages": [{"role": "user", "content": [{"type": "smell"}]}]}, "messages[0].content[0].type", "invalid_value"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text", "missing_required_parameter"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]}, "messages[0].content[0].text", "invalid_type"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0].image_url",
            "missing_required_parameter",
        ),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id", "missing_required_parameter"),
        ({"model": 3}, "model", "invalid_type"),
        ({"n": 0}, "n", "integer_below_min_value"),
        ({"n": 129}, "n", "integer_above_max_value"),
        ({"n": True}, "n", "invalid_type"),
        ({"max_tokens": "5"}, "max_tokens", "invalid_type"),
        ({"max_completion_tokens": 0}, "max_completion_tokens", "integer_below_min_value"),
        ({"temperature": 3}, "temperature", "decimal_above_max_value"),
        ({"temperature": -0.1}, "temperature", "decimal_below_min_value"),
        ({"temperature": "hot"}, "temperature", "invalid_type"),
        ({"stream": "yes"}, "stream", "invalid_type"),
        ({"stream_options": {"include_usage": True}}, "stream_options", None),
        ({"stream": True, "stream_options": {"include_usage": 1}}, "include_usage", "invalid_type"),
        ({"stop": 5}, "stop", "invalid_type"),
        ({"stop": ["a", 5]}, "stop[1]", "invalid_type"),
        ({"stop": list("abcde")}, "stop", "array_above_max_length"),
        ({"top_logprobs": 2}, "top_logprobs", None),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "integer_above_max_value"),
    ],
)
def test_what_is_wrong_is_named(chat, fields, param, code):
    told = chat(**fields)
    assert told.status == 400
    error = told.json["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff"])
def test_body_that_is_no_json_object_is_refused(say, body):
    told = say("/chat/completions", body)
    assert told.status == 400
    assert told.json["error"]["code"] == "invalid_json"


def test_json_object_is_json_that_says_it_is_simulated(chat):
    value = orjson.loads(text_of(chat(response_format={"type": "json_object"})))
    assert value["simulated"] is True
    assert value["answer"].startswith("This is a simulated answer")
