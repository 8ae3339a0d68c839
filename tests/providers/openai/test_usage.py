"""What is read of a usage object."""

from __future__ import annotations

import orjson
import pytest

from providers.openai.usage import read_usage
from proxy.core.call import Usage
from tests.providers.openai.fixtures import COUNTS, USAGE


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (orjson.loads(COUNTS), USAGE),
        ({"input_tokens": 9, "output_tokens": 3}, Usage(9, 3, reported=True)),
        ({"prompt_tokens": 9}, Usage(9, 0, reported=True)),
        ({"prompt_tokens": 0, "completion_tokens": 3}, Usage(0, 3, reported=True)),
        ({"prompt_tokens": 0, "completion_tokens": 0, "input_tokens": 9, "output_tokens": 3}, Usage(9, 3, reported=True)),
        ({"prompt_tokens": 10.0, "completion_tokens": 5.0}, Usage(10, 5, reported=True)),
        # What Google's endpoint and xAI leave out of an answer's tokens; and what Mistral has beside them, and where nothing is known.
        ({"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 103, "completion_tokens_details": None}, Usage(9, 94, reported=True)),
        (
            {"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 135, "completion_tokens_details": {"reasoning_tokens": 94}},
            Usage(32, 103, 0, 94, reported=True),
        ),
        (
            {"input_tokens": 32, "output_tokens": 99, "total_tokens": 131, "output_tokens_details": {"reasoning_tokens": 94}},
            Usage(32, 99, 0, 94, reported=True),
        ),
        ({"prompt_tokens": 4, "completion_tokens": 635, "total_tokens": 3264, "prompt_audio_seconds": 203}, Usage(4, 635, reported=True)),
        (
            {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 99, "completion_tokens_details": {"reasoning_tokens": 5}},
            Usage(9, 1, 0, 5, reported=True),
        ),
        ({"completion_tokens": 5, "total_tokens": 20}, Usage(15, 5, reported=True)),
        ({"prompt_tokens": 9, "completion_tokens": "3", "total_tokens": 12, "prompt_tokens_details": {}}, Usage(9, 3, reported=True)),
        ({"prompt_tokens": 9, "completion_tokens": 3, "prompt_cache_hit_tokens": 8}, Usage(9, 3, 8, reported=True)),
        ({"prompt_tokens": 9, "prompt_cache_hit_tokens": -8}, Usage(9, reported=True)),
        # What of it is not told is another's to estimate.
        ({"completion_tokens": 3}, Usage(0, 3)),
        ({"prompt_tokens": None, "completion_tokens": 5}, Usage(0, 5)),
        ({"prompt_tokens": -9, "completion_tokens": 5, "total_tokens": -4}, Usage(0, 5)),
        ({"prompt_tokens": 9, "completion_tokens": -3, "total_tokens": 6}, Usage(9, 0)),
        ({"input_tokens": 9, "output_tokens": 2.5}, Usage(9, 0)),
        ({"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 3}, Usage(9, 1, reported=True)),
        ({}, None),
        ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, None),
        ({"total_tokens": 12}, None),
        ({"type": "duration", "seconds": 3}, None),
        ({"prompt_tokens": None, "completion_tokens": None}, None),
        ({"input_tokens": None, "output_tokens": None}, None),
        ({"prompt_tokens": -1, "completion_tokens": True}, None),
        ({"prompt_tokens": "9", "completion_tokens": 1.5}, None),
        ({"prompt_tokens": 1e300, "completion_tokens": float("inf")}, None),
        ({"prompt_tokens": 1, "prompt_tokens_details": 7}, Usage(1, reported=True)),
        ({"prompt_tokens": 1, "prompt_tokens_details": {"cached_tokens": None}}, Usage(1, reported=True)),
        (None, None),
        ([1], None),
        ("9", None),
    ],
)
def test_usage_is_read_in_either_spelling(usage: object, expected: Usage | None):
    assert read_usage(usage) == expected


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 9}, Usage(9)),
        ({"input_tokens": 9}, Usage(9)),
        ({"prompt_tokens": 9, "total_tokens": 9}, Usage(9, reported=True)),
        ({"prompt_tokens": 9, "total_tokens": 12}, Usage(9, 3, reported=True)),
        ({"prompt_tokens": 9, "completion_tokens": 0}, Usage(9, reported=True)),
    ],
)
def test_of_an_answer_in_text_its_tokens_must_be_told(usage: object, expected: Usage):
    assert read_usage(usage, of_text=True) == expected
