"""A text that matches a regular expression, by construction.

The expression comes from a client and is never run: backtracking could be made to take for ever. It is parsed into a small tree, and the
tree is written out. What the tree cannot hold (look-around, back-references) raises Unsupported.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import TypeAlias

from providers.sim.dice import Dice

_LONGEST = 1024
_DEEPEST = 40
_WORD = string.ascii_letters + string.digits
_PRINTABLE = string.ascii_letters + string.digits + string.punctuation + " "
_CLASSES = {"d": string.digits, "w": _WORD + "_", "s": " ", "D": string.ascii_letters, "W": " -.", "S": _WORD}
_CONTROLS = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "v": "\v", "0": "\0"}
_OPENINGS = ("?:", "?P<", "?<")


class Unsupported(Exception):
    """The expression is beyond what can be written from, or is none."""


@dataclass(frozen=True, slots=True)
class _One:
    options: str


@dataclass(frozen=True, slots=True)
class _All:
    parts: list[_Node]


@dataclass(frozen=True, slots=True)
class _Any:
    branches: list[_Node]


@dataclass(frozen=True, slots=True)
class _Many:
    part: _Node
    low: int
    high: int | None


_Node: TypeAlias = "_One | _All | _Any | _Many"


class _Parser:
    def __init__(self, pattern: str) -> None:
        self.rest = pattern
        self.depth = 0

    def take(self) -> str:
        if not self.rest:
            raise Unsupported
        first, self.rest = self.rest[0], self.rest[1:]
        return first

    def skip(self, text: str) -> bool:
        if self.rest.startswith(text):
            self.rest = self.rest[len(text) :]
            return True
        return False

    def branches(self) -> _Node:
        found: list[_Node] = [self.sequence()]
        while self.skip("|"):
            found.append(self.sequence())
        return _Any(found)

    def sequence(self) -> _Node:
        parts: list[_Node] = []
        while self.rest and self.rest[0] not in "|)":
            if self.skip("^") or self.skip("$") or self.skip("\\b") or self.skip("\\A") or self.skip("\\Z"):
                continue
            parts.append(self.quantified(self.atom()))
        return _All(parts)

    def atom(self) -> _Node:
        first = self.take()
        if first == "(":
            return self.group()
        if first == "[":
            return _One(self.character_class())
        if first == "\\":
            return _One(self.escape())
        if first in "*+?":
            raise Unsupported
        return _One(_WORD if first == "." else first)

    def group(self) -> _Node:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise Unsupported
        if self.rest.startswith(("?=", "?!", "?<=", "?<!")):
            raise Unsupported
        for opening in _OPENINGS:
            if self.skip(opening):
                if opening.endswith("<"):
                    _, _, self.rest = self.rest.partition(">")
                break
        else:
            if self.rest.startswith("?"):
                raise Unsupported
        inner = self.branches()
        if not self.skip(")"):
            raise Unsupported
        self.depth -= 1
        return inner

    def escape(self) -> str:
        sign = self.take()
        if sign in "123456789kB":
            raise Unsupported
        if sign in "pP":
            if not self.skip("{") or "}" not in self.rest:
                raise Unsupported
            _, _, self.rest = self.rest.partition("}")
            return string.ascii_letters
        if sign in "xu":
            width = 2 if sign == "x" else 4
            code, self.rest = self.rest[:width], self.rest[width:]
            if len(code) < width or not all(digit in string.hexdigits for digit in code):
                raise Unsupported
            return chr(int(code, 16))
        return _CLASSES.get(sign) or _CONTROLS.get(sign) or sign

    def character_class(self) -> str:
        negated = self.skip("^")
        found = ""
        while not self.skip("]"):
            first = self.take()
            low = self.escape() if first == "\\" else first
            if len(low) == 1 and len(self.rest) > 1 and self.rest[0] == "-" and self.rest[1] != "]":
                self.take()
                last = self.take()
                high = self.escape() if last == "\\" else last
                # A range over half of Unicode is as well served by its first few.
                low = "".join(map(chr, range(ord(low), min(ord(high[:1]), ord(low) + 127) + 1)))
            found += low
        options = "".join(sign for sign in _PRINTABLE if sign not in found) if negated else found
        if not options:
            raise Unsupported
        return options

    def quantified(self, part: _Node) -> _Node:
        bounds = self.bounds()
        if bounds is None:
            return part
        # Lazy and possessive marks change what is tried first, not what matches.
        _ = self.skip("?") or self.skip("+")
        low, high = bounds
        if low > _LONGEST or (high is not None and high < low):
            raise Unsupported
        return _Many(part, low, high)

    def bounds(self) -> tuple[int, int | None] | None:
        for sign, pair in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self.skip(sign):
                return pair
        if not self.rest.startswith("{"):
            return None
        inner, closed, rest = self.rest[1:].partition("}")
        low, comma, high = inner.partition(",")
        if not closed or not low.isdecimal() or not (high.isdecimal() or not high):
            raise Unsupported
        self.rest = rest
        return int(low), (int(high) if high else None) if comma else int(low)


class _Writer:
    def __init__(self, dice: Dice, stretch: int) -> None:
        self.dice = dice
        self.stretch = stretch
        self.left = _LONGEST

    def write(self, node: _Node) -> str:
        self.left -= 1
        if self.left < 0:
            raise Unsupported
        if isinstance(node, _One):
            return self.dice.pick(node.options)
        if isinstance(node, _All):
            return "".join(map(self.write, node.parts))
        if isinstance(node, _Any):
            return self.write(self.dice.pick(node.branches))
        times = node.low + self.stretch
        if node.high is not None:
            times = min(times, node.high)
        return "".join(self.write(node.part) for _ in range(times))


def matching(pattern: str, dice: Dice, low: int = 0, high: int | None = None) -> str:
    """A text that `pattern` (ECMA or Python syntax) matches from end to end, of `low` to `high` characters if the expression lets it.

    Raises Unsupported.
    """
    if len(pattern) > _LONGEST:
        raise Unsupported
    parser = _Parser(pattern)
    try:
        tree = parser.branches()
    except RecursionError as error:
        raise Unsupported from error
    if parser.rest:
        raise Unsupported
    # How often what may be repeated is: hardly at first, then as often as the wanted length may need.
    for stretch in (*range(8), *range(max(low - 2, 8), low + 1), *(low * eighths // 8 for eighths in range(1, 8))):
        found = _Writer(dice, stretch).write(tree)
        if len(found) >= max(low, 1) and (high is None or len(found) <= high):
            return found
    found = _Writer(dice, 0).write(tree)
    if low <= len(found) and (high is None or len(found) <= high):
        return found
    raise Unsupported
