"""`/completions`, the legacy endpoint.

https://platform.openai.com/docs/api-reference/completions
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Any

import orjson

from providers.sim.answer import Choice, choices_of
from providers.sim.refusal import Check, check_fields, instance, integer, too_long
from providers.sim.request import SHARED_CHECKS, Ask, iterate_prompts, read_include_usage, read_stops
from providers.sim.text import count_tokens, split
from providers.sim.wire import (
    DONE,
    FINGERPRINT,
    Answer,
    Part,
    Stamp,
    document,
    duration_of,
    event_stream,
    frame,
    logprob_of,
    model_name,
    usage_of,
)
from proxy.core.errors import ClientError

_MOST_CHOICES = 2048
_DEFAULT_LIMIT = 16

_CHECKS: dict[str, Check] = {
    **SHARED_CHECKS,
    "best_of": integer(1, 20),
    "echo": instance(bool),
    "logprobs": integer(0, 5),
    "suffix": instance(str),
}


def completion_answer(body: Mapping[str, Any], stamp: Stamp, length: int, seed: int) -> Answer:
    """The answer to a body for `/completions`. Raises ClientError."""
    check_fields(body, _CHECKS)
    asks = _read(body)
    # A prompt's choices follow each other, as OpenAI numbers them.
    choices = [choice for ask in asks for choice in choices_of(ask, length, seed)]
    if body.get("echo"):
        prompts = [split(ask.subject) for ask in asks for _ in range(ask.n)]
        choices = [Choice(prompt + choice.pieces, choice.finish_reason) for prompt, choice in zip(prompts, choices, strict=True)]
    head: dict[str, Any] = {
        "id": f"cmpl-sim-{stamp.serial}",
        "object": "text_completion",
        "created": stamp.created,
        "model": model_name(asks[0].model),
        "system_fingerprint": FINGERPRINT,
    }
    usage = usage_of(sum(ask.prompt_tokens for ask in asks), sum(choice.tokens for choice in choices))
    tokens = duration_of(choices)
    top = body.get("logprobs")
    if asks[0].stream:
        return event_stream(_events(head, choices, top, usage if asks[0].include_usage else None), tokens)
    return document({**head, "choices": [_whole(choice, index, top) for index, choice in enumerate(choices)], "usage": usage}, tokens)


def _read(body: Mapping[str, Any]) -> list[Ask]:
    limit = body.get("max_tokens")
    n = body.get("n") or 1
    prompts = list(iterate_prompts(body.get("prompt")))
    if len(prompts) * n > _MOST_CHOICES:
        raise too_long("prompt", _MOST_CHOICES // n, len(prompts))
    if body.get("best_of") is not None and body["best_of"] < n:
        raise ClientError("You requested that the server return more choices than it will generate ('best_of' < 'n').", param="best_of")
    stops = read_stops(body.get("stop"))
    return [
        Ask(
            model=body.get("model") or "sim",
            prompt=prompt,
            subject=prompt,
            prompt_tokens=max(count_tokens(prompt), 1),
            seed=body.get("seed"),
            n=n,
            limit=_DEFAULT_LIMIT if limit is None else limit,
            stops=stops,
            stream=bool(body.get("stream")),
            include_usage=read_include_usage(body),
        )
        for prompt in prompts
    ]


def _whole(choice: Choice, index: int, top: int | None) -> dict[str, Any]:
    logprobs = None if top is None else _logprobs(choice.pieces, top, 0)
    return {"text": choice.text, "index": index, "logprobs": logprobs, "finish_reason": choice.finish_reason}


def _logprobs(pieces: list[str], top: int, offset: int) -> dict[str, Any]:
    entries = [logprob_of(piece, top) for piece in pieces]
    offsets = []
    for piece in pieces:
        offsets.append(offset)
        offset += len(piece)
    return {
        "tokens": pieces,
        "token_logprobs": [entry["logprob"] for entry in entries],
        "top_logprobs": [{other["token"]: other["logprob"] for other in entry["top_logprobs"]} for entry in entries],
        "text_offset": offsets,
    }


def _events(head: dict[str, Any], choices: list[Choice], top: int | None, usage: dict[str, Any] | None) -> Iterator[Part]:
    before = b"data: " + orjson.dumps(head)[:-1] + b',"choices":['
    after = b'],"usage":null}\n\n' if usage else b"]}\n\n"
    for together in zip_longest(*(_deltas(choice, index, top) for index, choice in enumerate(choices))):
        first = True
        for part in together:
            if part is not None:
                yield before + part[0] + after, part[1] if first else 0
                first = False
    if usage:
        yield frame({**head, "choices": [], "usage": usage}), 0
    yield DONE, 0


def _deltas(choice: Choice, index: int, top: int | None) -> Iterator[Part]:
    before, after = b'{"text":', b',"index":%d,"logprobs":null,"finish_reason":null}' % index
    offset = 0
    for piece in choice.pieces:
        if top is None:
            yield before + orjson.dumps(piece) + after, 1
        else:
            yield orjson.dumps({"text": piece, "index": index, "logprobs": _logprobs([piece], top, offset), "finish_reason": None}), 1
            offset += len(piece)
    yield orjson.dumps({"text": "", "index": index, "logprobs": None, "finish_reason": choice.finish_reason}), 0
