"""The simulated model itself: an `Ask` in, choices of tokens out. No dialect, no time."""

from __future__ import annotations

from dataclasses import dataclass, field

import orjson

from providers.sim.dice import Dice, digest
from providers.sim.request import Ask
from providers.sim.schema import instance_of
from providers.sim.text import clip, keywords, names, split, write
from providers.sim.tools import Tool

_ODD = 0x9E3779B97F4A7C15
MARK = "simulated "


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool; `pieces` joined are its arguments: JSON, or free text for a custom tool."""

    id: str
    name: str
    pieces: list[str]
    custom: bool = False

    @property
    def arguments(self) -> str:
        return "".join(self.pieces)

    @property
    def tokens(self) -> int:
        return 1 + len(self.pieces)


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the answers that were asked for: text in pieces of a token each, or calls."""

    pieces: list[str]
    finish_reason: str
    calls: list[ToolCall] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def tokens(self) -> int:
        return len(self.pieces) + sum(call.tokens for call in self.calls)


def choices_of(ask: Ask, length: int, seed: int) -> list[Choice]:
    """The `ask.n` answers, the same ones for the same prompt and seed. Raises ClientError for a schema that cannot be satisfied."""
    root = digest(seed if ask.seed is None else ask.seed, ask.prompt)
    make = _calls if ask.tools.chosen else _text if ask.format is None else _json
    return [make(ask, length, (root + index * _ODD) & 0xFFFFFFFFFFFFFFFF) for index in range(ask.n)]


def _text(ask: Ask, length: int, seed: int) -> Choice:
    pieces, reason = clip(write(ask.subject, Dice(seed), length), ask.limit, ask.stops)
    return Choice(pieces, reason)


def _json(ask: Ask, length: int, seed: int) -> Choice:
    assert ask.format is not None
    dice = Dice(seed)
    if ask.format.schema is None:
        value: object = {"simulated": True, "answer": "".join(write(ask.subject, dice, length))}
    else:
        value = instance_of(ask.format.schema, dice, keywords(ask.subject), ask.format.param, MARK)
    pieces, reason = clip(split(orjson.dumps(value).decode()), ask.limit, ask.stops)
    return Choice(pieces, reason)


def _calls(ask: Ask, length: int, seed: int) -> Choice:
    calls = []
    reason = "function_call" if ask.tools.legacy else "tool_calls"
    left = ask.limit
    for index, tool in enumerate(ask.tools.chosen):
        call = _call(tool, ask, length, (seed + index) & 0xFFFFFFFFFFFFFFFF)
        if left is not None and call.tokens > left:
            # Like a real server: the arguments break off, and what does not fit at all is not called.
            reason = "length"
            if left > 0:
                calls.append(ToolCall(call.id, call.name, call.pieces[: left - 1], call.custom))
            break
        calls.append(call)
        left = left if left is None else left - call.tokens
    return Choice([], reason, calls)


def _call(tool: Tool, ask: Ask, length: int, seed: int) -> ToolCall:
    dice = Dice(seed)
    if tool.custom:
        pieces = write(ask.subject, dice, length)
    else:
        value = instance_of(tool.parameters, dice, names(ask.subject), tool.param)
        pieces = split(orjson.dumps(value).decode())
    return ToolCall(f"call_sim_{seed:016x}", tool.name, pieces, tool.custom)
