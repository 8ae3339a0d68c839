from __future__ import annotations

import pytest


def test_default_limit_is_sixteen_tokens(say):
    told = say("/completions", {"model": "sim", "prompt": "Say hello"})
    (choice,) = told.json["choices"]
    assert told.json["object"] == "text_completion"
    assert told.json["id"].startswith("cmpl-sim-")
    assert choice["finish_reason"] == "length"
    assert choice["text"].startswith("This is a simulated answer")
    assert told.json["usage"]["completion_tokens"] == 16


def test_choices_are_numbered_prompt_by_prompt(say):
    told = say("/completions", {"prompt": ["one", "two"], "n": 2, "max_tokens": 100})
    assert [choice["index"] for choice in told.json["choices"]] == [0, 1, 2, 3]
    assert ['"one"' in choice["text"] for choice in told.json["choices"]] == [True, True, False, False]
    assert told.json["usage"]["completion_tokens"] == 160


@pytest.mark.parametrize("fields", [{}, {"n": 3}, {"prompt": ["a", "b"]}, {"echo": True}, {"logprobs": 2}, {"stop": "called"}])
def test_stream_carries_the_same_text_as_the_whole_answer(say, fields):
    body = {"prompt": "Say hello", "max_tokens": 30, **fields}
    whole, streamed = say("/completions", body), say("/completions", {**body, "stream": True, "stream_options": {"include_usage": True}})
    texts = [""] * len(whole.json["choices"])
    reasons = [None] * len(texts)
    for chunk in streamed.chunks:
        for choice in chunk["choices"]:
            texts[choice["index"]] += choice["text"]
            reasons[choice["index"]] = choice["finish_reason"]
    assert texts == [choice["text"] for choice in whole.json["choices"]]
    assert reasons == [choice["finish_reason"] for choice in whole.json["choices"]]
    assert streamed.chunks[-1]["usage"] == whole.json["usage"]
    assert all(chunk["usage"] is None for chunk in streamed.chunks[:-1])


def test_echo_repeats_the_prompt(say):
    assert say("/completions", {"prompt": "Say hello.", "echo": True}).json["choices"][0]["text"].startswith("Say hello.This is")


def test_logprobs_have_the_legacy_shape(say):
    (choice,) = say("/completions", {"prompt": "x", "logprobs": 2}).json["choices"]
    logprobs = choice["logprobs"]
    assert "".join(logprobs["tokens"]) == choice["text"]
    assert all(len(top) == 2 and token in top for token, top in zip(logprobs["tokens"], logprobs["top_logprobs"], strict=True))
    assert [choice["text"][at] for at in logprobs["text_offset"]] == [token[0] for token in logprobs["tokens"]]


def test_token_numbers_are_prompts(say):
    assert len(say("/completions", {"prompt": [1, 2, 3]}).json["choices"]) == 1
    assert len(say("/completions", {"prompt": [[1, 2], [3]]}).json["choices"]) == 2
    assert say("/completions", {}).status == 200


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": 5}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", 5]}, "prompt[1]"),
        ({"prompt": ["a"] * 100, "n": 100}, "prompt"),
        ({"prompt": "a", "logprobs": 6}, "logprobs"),
        ({"prompt": "a", "n": 3, "best_of": 2}, "best_of"),
        ({"prompt": "a", "stream_options": {}}, "stream_options"),
    ],
)
def test_what_is_wrong_is_named(say, body, param):
    told = say("/completions", body)
    assert told.status == 400
    assert told.json["error"]["param"] == param
