"""Embeddings whose similarity follows the words of a text.

Each word is a sum of pseudo-random directions: its own, and, weaker, one for each of its trigrams, so that `cat` and `cats` are near each
other. A text is the weighted sum of its words: often repeated ones count by the logarithm, very common ones hardly at all. The hashing
trick with signs: Weinberger et al., https://arxiv.org/abs/0902.2206
"""

from __future__ import annotations

import math
import re
from array import array
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import lru_cache
from hashlib import blake2b
from struct import Struct
from typing import Any

import orjson

from providers.sim.refusal import Check, check_fields, empty_array, instance, integer, missing, one_of, too_long, wrong_type
from providers.sim.text import STOPWORDS, count_tokens
from providers.sim.wire import Answer, long_document, model_name
from proxy.core.errors import ClientError

_WORD = re.compile(r"\w+")
_MOST_INPUTS = 2048
_MOST_DIMENSIONS = 4096
_LONGEST_WORD = 64
_WORD_DIRECTIONS = Struct("<4I")
_TRIGRAM_DIRECTIONS = Struct("<3I")
_SIGN = 1 << 31
_TRIGRAM_WEIGHT = 1.4
_COMMON_WEIGHT = 0.15

_CHECKS: dict[str, Check] = {
    "model": instance(str),
    "dimensions": integer(1, _MOST_DIMENSIONS),
    "encoding_format": one_of("float", "base64"),
    "user": instance(str),
}


def embed(text: str, dimensions: int = 256) -> list[float]:
    """The vector of `text`: `dimensions` numbers, each exact in 32 bits, of length 1."""
    words = Counter(_WORD.findall(text.lower())) or Counter((text,))
    vector = [0.0] * dimensions
    for word, times in words.items():
        weight = 1.0 + math.log(times)
        for index, value in _word_vector(word[:_LONGEST_WORD], dimensions):
            vector[index] += weight * value
    length = math.sqrt(math.sumprod(vector, vector)) if hasattr(math, "sumprod") else math.sqrt(sum(value * value for value in vector))
    if not length:
        # The directions of this text cancel each other out.
        vector[0] = length = 1.0
    return array("f", [value / length for value in vector]).tolist()


@lru_cache(maxsize=8192)
def _word_vector(word: str, dimensions: int) -> tuple[tuple[int, float], ...]:
    found: dict[int, float] = {}
    edged = f"<{word}>"
    common = _COMMON_WEIGHT if word in STOPWORDS else 1.0
    features = [(common, _directions(word, _WORD_DIRECTIONS))]
    if len(word) > 2:
        # Divided among them, so that a long word weighs no more than a short one.
        weight = common * _TRIGRAM_WEIGHT / math.sqrt(len(word))
        # A whole word and a trigram of the same letters are two things.
        features += [(weight, _directions("\x00" + edged[at : at + 3], _TRIGRAM_DIRECTIONS)) for at in range(len(word))]
    for weight, directions in features:
        for direction in directions:
            index = (direction & ~_SIGN) % dimensions
            found[index] = found.get(index, 0.0) + (weight if direction & _SIGN else -weight)
    return tuple(found.items())


@lru_cache(maxsize=16_384)
def _directions(feature: str, form: Struct) -> tuple[int, ...]:
    return form.unpack(blake2b(feature.encode("utf-8", "surrogatepass"), digest_size=form.size).digest())


def embedding_answer(body: Mapping[str, Any], dimensions: int) -> Answer:
    """The answer to a body for `/embeddings`. Raises ClientError. https://platform.openai.com/docs/api-reference/embeddings"""
    check_fields(body, _CHECKS)
    texts, tokens = _read_input(body.get("input"))
    wanted = body.get("dimensions") or dimensions
    return long_document(_rows(texts, tokens, wanted, model_name(body.get("model") or "sim"), body.get("encoding_format") == "base64"))


def _rows(texts: list[str], tokens: int, dimensions: int, model: str, as_base64: bool) -> Iterator[bytes]:
    before = b'{"object":"list","data":['
    for index, text in enumerate(texts):
        vector = embed(text, dimensions)
        value = b'"' + b64encode(_packed(vector)) + b'"' if as_base64 else orjson.dumps(vector)
        yield before + b'{"object":"embedding","index":%d,"embedding":' % index + value + b"}"
        before = b","
    yield b'],"model":' + orjson.dumps(model) + b',"usage":' + orjson.dumps({"prompt_tokens": tokens, "total_tokens": tokens}) + b"}"


def _packed(vector: list[float]) -> bytes:
    return Struct(f"<{len(vector)}f").pack(*vector)


def _read_input(given: Any) -> tuple[list[str], int]:
    """The texts to embed (token numbers become words) and how many tokens they have together."""
    if given is None:
        raise missing("input")
    if isinstance(given, str):
        return [_checked(given, "input")], max(count_tokens(given), 1)
    if not isinstance(given, list):
        raise wrong_type("input", "a string, an array of strings, or an array of integers", given)
    if not given:
        raise empty_array("input")
    if all(type(token) is int for token in given):
        return [_of_tokens(given)], len(given)
    if len(given) > _MOST_INPUTS:
        raise too_long("input", _MOST_INPUTS, len(given))
    texts, tokens = [], 0
    for index, item in enumerate(given):
        if isinstance(item, str):
            texts.append(_checked(item, f"input[{index}]"))
            tokens += max(count_tokens(item), 1)
        elif isinstance(item, list) and item and all(type(token) is int for token in item):
            texts.append(_of_tokens(item))
            tokens += len(item)
        else:
            raise wrong_type(f"input[{index}]", "a string or an array of integers", item)
    return texts, tokens


def _checked(text: str, param: str) -> str:
    if not text:
        raise ClientError(f"Invalid '{param}': input cannot be an empty string.", param="input")
    return text


def _of_tokens(tokens: list[int]) -> str:
    return " ".join(f"t{token}" for token in tokens)
