"""Marks on the way of a request, and the seams of the server at which they are set.

A mark is a name and a moment. All that happens between two marks belongs to the pair, so that the parts always make up the whole, and what
the names of the layers do not foresee is shown under the names of its marks instead of being lost.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import wraps
from itertools import pairwise
from time import perf_counter_ns
from typing import Any

#: What the harness itself does between two marks; no part of any figure.
HARNESS = "(harness)"

Segments = dict[str, int]


class SeamMissing(RuntimeError):
    """The server no longer has what the harness hangs a mark on. The harness must follow the code."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is not there: bench/seams.py must follow the code that is measured")


class Timeline:
    """Marks since the last `take`, in order."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._moments: list[int] = []

    def mark(self, name: str) -> None:
        self._names.append(name)
        self._moments.append(perf_counter_ns())

    def take(self) -> list[tuple[str, int]]:
        """All marks with their nanoseconds; forgets them."""
        found = list(zip(self._names, self._moments, strict=True))
        self._names.clear()
        self._moments.clear()
        return found


def layer_of(rules: Sequence[tuple[str, str, str]], begin: str, end: str) -> str:
    """The layer that lies between two marks: of the first rule whose two patterns match, else the marks themselves."""
    for first, second, layer in rules:
        if fnmatchcase(begin, first) and fnmatchcase(end, second):
            return layer
    return f"{begin} to {end}"


def segments(marks: Sequence[tuple[str, int]], rules: Sequence[tuple[str, str, str]]) -> tuple[Segments, dict[str, int]]:
    """Nanoseconds by layer, in the order in which layers first come, and how many pairs of marks each was put together from."""
    spent: Segments = {}
    pairs: dict[str, int] = {}
    for (begin, began), (end, ended) in pairwise(marks):
        layer = layer_of(rules, begin, end)
        spent[layer] = spent.get(layer, 0) + ended - began
        pairs[layer] = pairs.get(layer, 0) + 1
    return spent, pairs


def medians(iterations: Iterable[Mapping[str, int]]) -> dict[str, float]:
    """By layer, the median over iterations; an iteration that has not been in a layer counts as none there."""
    known = list(iterations)
    layers = dict.fromkeys(layer for one in known for layer in one)
    return {layer: statistics.median(one.get(layer, 0) for one in known) for layer in layers}


@contextmanager
def replaced(owner: Any, name: str, make: Callable[[Any], Any]) -> Iterator[None]:
    """`owner.name` is what `make` makes of it, for a while. Raises SeamMissing."""
    original = vars(owner).get(name) if isinstance(owner, type) else getattr(owner, name, None)
    if not callable(original):
        raise SeamMissing(f"{getattr(owner, '__name__', owner)}.{name}")
    setattr(owner, name, make(original))
    try:
        yield
    finally:
        setattr(owner, name, original)


def entering(timeline: Timeline, name: str) -> Callable[[Any], Any]:
    """Marks each call, and lets go of it: nothing stands between its caller and what it returns."""
    mark = timeline.mark

    def make(function: Any) -> Any:
        @wraps(function)
        def entered(*arguments: Any, **named: Any) -> Any:
            mark(name)
            return function(*arguments, **named)

        return entered

    return make


def around(timeline: Timeline, name: str) -> Callable[[Any], Any]:
    """Marks the beginning and the end of each call of a plain function."""
    mark, begin, end = timeline.mark, f"{name}.enter", f"{name}.exit"

    def make(function: Any) -> Any:
        @wraps(function)
        def surrounded(*arguments: Any, **named: Any) -> Any:
            mark(begin)
            try:
                return function(*arguments, **named)
            finally:
                mark(end)

        return surrounded

    return make


def awaiting(timeline: Timeline, name: str) -> Callable[[Any], Any]:
    """Marks the beginning and the end of each call of a coroutine function."""
    mark, begin, end = timeline.mark, f"{name}.enter", f"{name}.exit"

    def make(function: Any) -> Any:
        @wraps(function)
        async def awaited(*arguments: Any, **named: Any) -> Any:
            mark(begin)
            try:
                return await function(*arguments, **named)
            finally:
                mark(end)

        return awaited

    return make
