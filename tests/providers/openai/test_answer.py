from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.openai.answer import reported_usage
from providers.openai.provider import OpenAI
from providers.openai.settings import OpenAISettings
from proxy.core.call import Usage
from proxy.core.errors import UpstreamError
from tests.core.doubles import make_call

PROVIDER = OpenAI(OpenAISettings(base_url="https://example.invalid/v1"))
CHOICES = [{"index": 0, "message": {"role": "assistant", "content": "Ja, \u00e9"}, "finish_reason": "stop"}]


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}, Usage(7, 3, 0, 0, True)),
        ({"prompt_tokens": 7, "total_tokens": 7}, Usage(7, 0, 0, 0, True)),
        ({"input_tokens": 7, "output_tokens": 3}, Usage(7, 3, 0, 0, True)),
        ({"prompt_tokens": 7, "input_tokens": 9, "completion_tokens": 3, "output_tokens": 4}, Usage(7, 3, 0, 0, True)),
        (
            {
                "prompt_tokens": 7,
                "completion_tokens": 3,
                "prompt_tokens_details": {"cached_tokens": 5, "audio_tokens": 1},
                "completion_tokens_details": None,
            },
            Usage(7, 3, 5, 0, True),
        ),
        # DeepSeek's own; and with OpenAI's beside it, as others serve its models.
        (
            {"prompt_tokens": 7, "completion_tokens": 3, "prompt_cache_hit_tokens": 5, "prompt_cache_miss_tokens": 2},
            Usage(7, 3, 5, 0, True),
        ),
        (
            {"prompt_tokens": 7, "completion_tokens": 3, "prompt_cache_hit_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}},
            Usage(7, 3, 4, 0, True),
        ),
        (
            {"prompt_tokens": 7, "completion_tokens": 3, "prompt_cache_hit_tokens": 5, "prompt_tokens_details": {"cached_tokens": None}},
            Usage(7, 3, 5, 0, True),
        ),
        ({"prompt_tokens": 0, "completion_tokens": 3}, Usage(0, 3, 0, 0, True)),
    ],
)
def test_usage_is_read_in_both_spellings(usage: dict[str, Any], expected: Usage):
    body = orjson.dumps({"choices": CHOICES, "usage": usage})
    assert reported_usage(body, with_choices=True) == expected
    assert PROVIDER._usage(make_call(), body) == expected


@pytest.mark.parametrize(
    "answer",
    [
        {"choices": CHOICES},
        {"choices": CHOICES, "usage": None},
        {"choices": CHOICES, "usage": "free"},
        {"choices": CHOICES, "usage": {"prompt_tokens": -1}},
        {"choices": CHOICES, "usage": {"prompt_tokens": "7"}},
        {"choices": CHOICES, "usage": {"prompt_tokens": 7.0}},
        {"choices": CHOICES, "usage": {}},
        {"choices": CHOICES, "usage": {"prompt_tokens": 7}},
        {"choices": CHOICES, "usage": {"prompt_tokens": 7, "completion_tokens": None}},
        {"choices": CHOICES, "usage": {"total_tokens": 12}},
        {"choices": CHOICES, "usage": {"prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 12}},
        {"choices": CHOICES, "usage": {"prompt_tokens": None, "completion_tokens": None}},
        {"choices": CHOICES, "usage": {"prompt_tokens": None, "completion_tokens": 3}},
        {"choices": CHOICES, "usage": {"prompt_tokens": 0, "completion_tokens": 0}},
        {"choices": CHOICES, "usage": {"output_tokens": 3}},
        {"choices": [], "usage": {"prompt_tokens": 7}},
        {"choices": None, "usage": {"prompt_tokens": 7}},
        {"usage": {"prompt_tokens": 7}},
        {"choices": CHOICES, "usage": {"prompt_tokens": 7}, "error": {"message": "no"}},
        [],
        7,
    ],
)
def test_what_takes_a_closer_look_gets_one(answer: Any):
    assert reported_usage(orjson.dumps(answer), with_choices=True) is None


def outcome(body: bytes, operation: str, *, made: bool) -> Any:
    call = make_call(operation, raw=b'{"model":"m"}')
    try:
        return (
            PROVIDER._usage(call, body) if made else reported_usage(body, with_choices=operation == "chat") or PROVIDER._usage(call, body)
        )
    except UpstreamError as error:
        return error.kind, error.message, error.status


@pytest.mark.parametrize(
    ("operation", "usage", "expected"),
    [
        ("embedding", {"total_tokens": 12}, Usage(12, reported=True)),
        ("embedding", {"prompt_tokens": 12}, Usage(12, reported=True)),
        ("embedding", {"total_tokens": -1}, Usage()),
        ("embedding", None, Usage()),
        ("responses", {"total_tokens": 12}, None),
    ],
)
def test_a_total_is_the_prompts_where_there_is_no_text(operation: str, usage: dict[str, Any] | None, expected: Usage | None):
    assert PROVIDER._usage(make_call(operation), orjson.dumps({"data": [], "usage": usage})) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"data": [{"b64_json": "x" * 300_000}], "usage": {"input_tokens": 7, "output_tokens": 3}}, Usage(7, 3, reported=True)),
        ({"text": "x", "usage": {"type": "tokens", "input_tokens": 7, "output_tokens": 3, "total_tokens": 10}}, Usage(7, 3, reported=True)),
        ({"text": "x", "usage": {"type": "duration", "seconds": 3}}, None),
        ({"results": [{"usage": {"total_tokens": 9}}], "usage": {"total_tokens": 7}}, Usage(7, reported=True)),
        ({"results": [{"usage": {"total_tokens": 9}}]}, None),
        ({"data": [], "usage": {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}}, None),
        ({"data": ["x" * 300_000], "usage": {"total_tokens": 7}}, Usage(7, reported=True)),
        ({"results": [], "usage": {"prompt_tokens": 7}}, Usage(7, reported=True)),
        ({"usage": {"total_tokens": 7}, "data": ["x" * 300_000]}, None),
        ([], None),
    ],
)
def test_usage_is_found_in_answers_of_any_kind(answer: Any, expected: Usage | None):
    for mark in (b"", b"\xef\xbb\xbf"):
        assert PROVIDER.usage_of(mark + orjson.dumps(answer)) == expected


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (b'"}],"usage":{"input_tokens":7,"output_tokens":3},"user":null}', Usage(7, 3, reported=True)),
        (b'"}], "usage": {"total_tokens": 7}}', Usage(7, reported=True)),
        (b'"}],"usage":{"input_tokens":7,"output_tokens":3}', None),
        (b'","usage":{"input_tokens":7,"output_tokens":3}}]}', None),
        (b'","note":"usage","text":" \\"usage\\":{\\"total_tokens\\":7}}"}]}', None),
    ],
)
def test_usage_is_found_in_the_end_of_an_answer(end: bytes, expected: Usage | None):
    assert PROVIDER.usage_of(b"x" * 100 + end) == expected


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 3000, b'{"usage":{"prompt_tokens":7}'])
def test_an_answer_that_cannot_be_read_has_no_usage(body: bytes):
    assert PROVIDER.usage_of(body) is None


VALUES = st.none() | st.booleans() | st.integers(-9, 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3)
USAGES = st.dictionaries(
    st.sampled_from(
        [
            "prompt_tokens",
            "completion_tokens",
            "input_tokens",
            "output_tokens",
            "total_tokens",
            "prompt_cache_hit_tokens",
            "prompt_tokens_details",
            "output_tokens_details",
        ]
    ),
    VALUES | st.dictionaries(st.sampled_from(["cached_tokens", "reasoning_tokens"]), VALUES, max_size=2),
    max_size=4,
)
ANSWERS = st.fixed_dictionaries(
    {},
    optional={
        "usage": VALUES | USAGES,
        "choices": VALUES | st.lists(st.just(CHOICES[0]) | VALUES, max_size=2),
        "error": VALUES,
        "data": st.lists(VALUES, max_size=3),
    },
)


@given(ANSWERS, st.integers(0, 300), st.sampled_from(b'"{}[],:\\\x00\xff 1nt-'))
def test_what_is_passed_over_is_held_to_the_same_as_what_is_made(answer: dict[str, Any], at: int, byte: int):
    raw = orjson.dumps(answer)
    for body in (raw, raw[:at], raw[:at] + bytes([byte]) + raw[at + 1 :]):
        for operation in ("chat", "embedding"):
            assert outcome(body, operation, made=False) == outcome(body, operation, made=True), body
