from __future__ import annotations

import base64
import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.sim.embedding import embed


def cosine(one, other):
    return sum(a * b for a, b in zip(embed(one), embed(other), strict=True))


@pytest.mark.parametrize(
    ("text", "nearer", "farther"),
    [
        ("how do I reset my password", "I forgot my password, how can I reset it?", "what is the capital of France"),
        ("how do I reset my password", "resetting passwords", "resettling passengers"),
        ("weather in Paris", "the Paris weather", "weather in London"),
        ("weather in Paris", "weather in London", "stock prices of the bank"),
        ("the cat sat on the mat", "a cat on a mat", "the dog lay in the basket"),
        ("invoice", "invoices", "voices"),
        ("Invoice", "invoice", "invoices"),
        ("the the the the the cat", "cat", "the"),
    ],
)
def test_similarity_follows_the_words(text, nearer, farther):
    assert cosine(text, nearer) > cosine(text, farther) + 0.05


def test_unrelated_texts_are_hardly_similar():
    assert abs(cosine("quarterly revenue of the bank", "a recipe for tomato soup")) < 0.25


@given(st.text(), st.sampled_from([1, 2, 3, 64, 256, 1024]))
def test_vectors_have_length_one(text, dimensions):
    vector = embed(text, dimensions)
    assert len(vector) == dimensions
    assert math.isclose(math.sqrt(sum(value * value for value in vector)), 1, abs_tol=1e-6)
    assert all(struct.unpack("<f", struct.pack("<f", value))[0] == value for value in vector)
    assert embed(text, dimensions) == vector


def test_vectors_are_the_same_in_every_process():
    # A change here breaks whatever was stored with the vectors of an earlier version.
    assert [round(value, 4) for value in embed("comporta", 4)] == [0.2121, -0.63, 0.7393, 0.1071]


def test_inputs_of_every_kind(say):
    one = say("/embeddings", {"model": "m", "input": "hello world"}).json
    assert one["object"] == "list"
    assert one["model"] == "sim/m"
    assert one["data"][0]["object"] == "embedding"
    assert len(one["data"][0]["embedding"]) == 256
    assert one["usage"] == {"prompt_tokens": 2, "total_tokens": 2}
    many = say("/embeddings", {"input": ["hello world", "b"]}).json
    assert [row["index"] for row in many["data"]] == [0, 1]
    assert many["data"][0]["embedding"] == one["data"][0]["embedding"] == embed("hello world")
    assert say("/embeddings", {"input": [1, 2, 3]}).json["usage"]["prompt_tokens"] == 3
    tokens = say("/embeddings", {"input": [[1, 2, 3], [4]]}).json
    assert len(tokens["data"]) == 2
    assert tokens["data"][0]["embedding"] == say("/embeddings", {"input": [1, 2, 3]}).json["data"][0]["embedding"]


def test_base64_holds_the_same_numbers(say):
    (row,) = say("/embeddings", {"input": "hello", "encoding_format": "base64", "dimensions": 8}).json["data"]
    assert list(struct.unpack("<8f", base64.b64decode(row["embedding"]))) == embed("hello", 8)


def test_dimensions_are_those_of_the_request_else_of_the_settings(say):
    assert len(say("/embeddings", {"input": "x"}, dimensions=32).json["data"][0]["embedding"]) == 32
    assert len(say("/embeddings", {"input": "x", "dimensions": 5}, dimensions=32).json["data"][0]["embedding"]) == 5


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": 5}, "input"),
        ({"input": {"text": "x"}}, "input"),
        ({"input": ["a", ""]}, "input"),
        ({"input": ["a", 5]}, "input[1]"),
        ({"input": [[]]}, "input[0]"),
        ({"input": [["a"]]}, "input[0]"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
        ({"input": "a", "dimensions": 5000}, "dimensions"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
    ],
)
def test_what_is_wrong_is_named(say, body, param):
    told = say("/embeddings", body)
    assert told.status == 400
    assert told.json["error"]["param"] == param
