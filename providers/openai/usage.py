"""Tokens as providers tell of them, in whichever of their spellings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from proxy.core.call import Usage

_CHAT_NAMES = ("prompt_tokens", "completion_tokens", "prompt_tokens_details", "completion_tokens_details")
_RESPONSE_NAMES = ("input_tokens", "output_tokens", "input_tokens_details", "output_tokens_details")

_COUNTS = frozenset({*_CHAT_NAMES[:2], *_RESPONSE_NAMES[:2], "total_tokens"})

#: DeepSeek's name for those of the prompt that it had in its cache. Source: https://api-docs.deepseek.com/guides/kv_cache
_CACHED = "prompt_cache_hit_tokens"

#: What can be no number of tokens, nor be added to one: a float holds no larger one exactly.
_MOST_TOKENS = 2**53


def read_usage(usage: Any, *, of_text: bool = False) -> Usage | None:
    """Tokens of a usage object in either of OpenAI's spellings; None if it is none, or tells of none: some send zeros before they know.

    A count that is not told is what the total leaves for it. Where that leaves nothing the whole is not `reported`. An answer `of_text`
    has tokens of its own, which must be told, or a total.
    """
    if type(usage) is not dict:
        return None
    for names in (_CHAT_NAMES, _RESPONSE_NAMES):
        prompt, completion = _count(usage.get(names[0])), _count(usage.get(names[1]))
        if prompt or completion:
            break
    else:
        return None
    prompt_details, completion_details = usage.get(names[2]), usage.get(names[3])
    cached = _count(prompt_details.get("cached_tokens")) if type(prompt_details) is dict else 0
    reasoning = _count(completion_details.get("reasoning_tokens")) if type(completion_details) is dict else 0
    found = Usage(prompt or 0, completion or 0, cached or _count(usage.get(_CACHED)) or 0, reasoning or 0, True)
    total = _count(usage.get("total_tokens"))
    is_untold = completion is None and (usage.get(names[1]) is not None or (of_text and total is None))
    if total is not None and total > found.prompt + found.completion:
        if prompt is None:
            found.prompt = total - found.completion
        elif is_untold:
            found.completion = total - found.prompt
        else:
            found.completion += _unnamed(usage, found, total)
    else:
        found.reported = prompt is not None and not is_untold
    return found


def with_later(usage: Usage | None, tokens: int, told: int) -> Usage | None:
    """`usage`, reported behind `told` contents of `tokens`. Where more have come since than it tells of, these are its estimate."""
    if usage is None or tokens == told or tokens <= usage.completion:
        return usage
    return replace(usage, completion=tokens, reported=False)


def read_total(usage: Any) -> Usage | None:
    """The same of an answer that is no text, where nothing but the total is told (Voyage's embeddings): it is the prompt's."""
    total = _count(usage.get("total_tokens")) if type(usage) is dict else None
    return Usage(total, reported=True) if total else None


def _unnamed(usage: dict[str, Any], found: Usage, total: int) -> int:
    """Tokens of an answer that are in the total alone: of reasoning, which xAI does not count among those of the answer, nor Google, which
    says no more of it. A total with anything else in it (Mistral's sound) is left alone.

    Sources: https://docs.x.ai/docs/key-information/consumption-and-rate-limits and, for Google, answers in
    https://discuss.ai.google.dev/t/127400
    """
    beyond = total - found.prompt - found.completion
    if beyond == found.reasoning or {name for name in usage if usage[name]} <= _COUNTS:
        return beyond
    return 0


def _count(value: Any) -> int | None:
    """A number of tokens, which some servers write as `10.0`; None for what is none."""
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= _MOST_TOKENS else None
