"""A good answer, read as far as it is accounted for. The rest is checked to be JSON, and no objects are made of it. See decision 020."""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeAlias

import msgspec

from proxy.core.call import Usage

_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**53)] | None


# None of these is ever part of a cycle, so the collector need not know them.
class _Details(msgspec.Struct, frozen=True, gc=False):
    cached_tokens: _Count = 0
    reasoning_tokens: _Count = 0


class _Usage(msgspec.Struct, frozen=True, gc=False):
    """In either of OpenAI's spellings."""

    prompt_tokens: _Count = -1  # is not there
    completion_tokens: _Count = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    input_tokens: _Count = None
    output_tokens: _Count = None
    input_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None
    total_tokens: _Count = None
    #: DeepSeek's.
    prompt_cache_hit_tokens: _Count = 0


class _Choice(msgspec.Struct, frozen=True, gc=False):
    """An object. What it holds is passed over."""


class _Answer(msgspec.Struct, frozen=True, gc=False):
    usage: _Usage | None = None
    choices: list[_Choice] | None = None
    error: Any = None
    #: A response's.
    status: Any = None


_decode: Final = msgspec.json.Decoder(_Answer).decode


def reported_usage(body: bytes, *, with_choices: bool) -> Usage | None:
    """The usage of an answer that reports one and has nothing wrong with it, its choices (`with_choices`) included.

    None for every other: it takes a closer look to say what it is.
    """
    try:
        answer = _decode(body)
        if not body.isascii():
            body.decode()  # what was passed over may hold anything
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    usage = answer.usage
    if usage is None or answer.error is not None or answer.status == "failed" or (with_choices and not answer.choices):
        return None
    if usage.prompt_tokens == -1:
        prompt, completion = usage.input_tokens, usage.output_tokens
        read, written = usage.input_tokens_details, usage.output_tokens_details
    else:
        prompt, completion = usage.prompt_tokens, usage.completion_tokens
        read, written = usage.prompt_tokens_details, usage.completion_tokens_details
    total = usage.total_tokens
    if prompt is None or not (prompt or completion) or (with_choices and completion is None and total is None):
        return None
    completion = completion or 0
    if total is not None and total > prompt + completion:
        return None  # it holds more than is named
    cached = (read.cached_tokens if read is not None else 0) or usage.prompt_cache_hit_tokens or 0
    reasoning = written.reasoning_tokens or 0 if written is not None else 0
    return Usage(prompt, completion, cached, reasoning, True)
