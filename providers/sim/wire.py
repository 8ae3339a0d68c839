"""What every dialect of the simulated server is made of: its answers, ids, usage, log probabilities and frames."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeAlias

import orjson

from providers.sim.answer import Choice
from providers.sim.dice import Dice, digest
from providers.sim.refusal import error_body
from providers.sim.text import STOPWORDS
from proxy.core.errors import ClientError

FINGERPRINT = "fp_sim"
DONE = b"data: [DONE]\n\n"

Part: TypeAlias = tuple[bytes, int]
"""Bytes of an answer's body, and how many tokens of time they take."""

_JSON = {"content-type": "application/json"}
_EVENTS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}


@dataclass(frozen=True, slots=True)
class Stamp:
    """What differs between two answers to the same request. `created` is in seconds since the epoch, `serial` is unique."""

    serial: str = "0"
    created: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer. `parts` are its body and can be read once; `tokens` is the time that it takes, in tokens.

    Of an event stream each part is one event. Otherwise the parts are one document, and exist so that a long one need not be made at once.
    """

    status: int
    parts: Iterator[Part]
    tokens: int = 0
    is_stream: bool = False
    headers: dict[str, str] = field(default_factory=dict)

    def read(self) -> bytes:
        """The whole body."""
        return b"".join(part for part, _ in self.parts)


def document(value: object, tokens: int = 0, status: int = 200) -> Answer:
    body = orjson.dumps(value)
    return Answer(status, iter(((body, 0),)), tokens, headers={**_JSON, "content-length": str(len(body))})


def long_document(parts: Iterable[bytes]) -> Answer:
    return Answer(200, ((part, 0) for part in parts), headers=_JSON.copy())


def event_stream(parts: Iterator[Part], tokens: int) -> Answer:
    return Answer(200, parts, tokens, is_stream=True, headers=_EVENTS.copy())


def refusal(error: ClientError) -> Answer:
    body = error_body(error)
    return Answer(error.status, iter(((body, 0),)), headers={**_JSON, "content-length": str(len(body))})


def model_name(asked: str) -> str:
    """The name that an answer bears: whoever reads it sees that no real model was at work."""
    return asked if asked == "sim" or asked.startswith(("sim/", "sim-")) else f"sim/{asked}"


def usage_of(prompt_tokens: int, completion_tokens: int) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def duration_of(choices: list[Choice]) -> int:
    """Tokens of time: choices are made side by side, so the longest counts."""
    return max(choice.tokens for choice in choices)


def frame(value: object) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"


_OTHERS = tuple(f" {word}" for word in sorted(STOPWORDS) if len(word) > 1)


@lru_cache(maxsize=4096)
def logprob_of(piece: str, top: int) -> dict[str, Any]:
    """A plausible entry of `logprobs.content`, with the `top` likeliest tokens; the token itself is always the likeliest.

    Shared between calls: not to be changed.
    """
    dice = Dice(digest(piece))
    share = 0.5 + dice.below(4900) / 10_000
    entry = _entry(piece, share)
    tops = [entry]
    start = dice.below(len(_OTHERS))
    for other in _OTHERS[start:] + _OTHERS[:start]:
        if len(tops) >= top:
            break
        if other != piece:
            share = (1 - share) / 2 if len(tops) == 1 else share / 2
            tops.append(_entry(other, share))
    return {**entry, "top_logprobs": tops[:top]}


def _entry(piece: str, share: float) -> dict[str, Any]:
    return {"token": piece, "logprob": math.log(share), "bytes": list(piece.encode())}
