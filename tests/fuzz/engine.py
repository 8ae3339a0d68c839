"""A small mutating fuzzer: no compiler, no instrumentation. An input that leads to an outcome not seen before is kept and built upon.

An outcome is what a target returns: statuses, kinds of error, what was reused. It stands in for coverage, and it is what the tests are
about.
"""

from __future__ import annotations

import hashlib
import random
import time
import traceback
from collections.abc import Callable, Coroutine, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.core.doubles import HandClock, in_virtual_time

CORPUS = Path(__file__).parent / "corpus"
LONGEST = 20_000
_BATCH = 200  # inputs to one event loop

#: Gives an input's outcome; raises where the input breaks what always holds.
Target = Callable[[bytes, HandClock], Coroutine[Any, Any, Hashable]]


@dataclass(frozen=True, slots=True)
class Subject:
    """Something that reads bytes: its target, inputs to begin with, and words that mean something to it."""

    name: str
    target: Target
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...]


@dataclass(slots=True)
class Finding:
    subject: str
    data: bytes
    trace: str


@dataclass(slots=True)
class Tally:
    """What came of a run."""

    tried: int = 0
    outcomes: set[Hashable] = field(default_factory=set)
    kept: list[bytes] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def corpus_of(subject: Subject) -> list[bytes]:
    """The inputs that earlier runs kept."""
    return [path.read_bytes() for path in sorted((CORPUS / subject.name).glob("*"))]


def keep(subject: Subject, data: bytes) -> Path:
    folder = CORPUS / subject.name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / hashlib.sha256(data).hexdigest()[:16]
    path.write_bytes(data)
    return path


def mutated(data: bytes, others: Sequence[bytes], words: Sequence[bytes], dice: random.Random) -> bytes:
    """One to four small changes."""
    found = bytearray(data)
    for _ in range(dice.choice((1, 1, 1, 2, 3, 4))):
        at = dice.randrange(len(found) + 1)
        end = min(len(found), at + dice.choice((1, 1, 2, 4, 16, 200)))
        match dice.randrange(8):
            case 0:
                found[at:at] = dice.choice(words)
            case 1:
                found[at:end] = dice.choice(words)
            case 2:
                del found[at:end]
            case 3:
                found[at:at] = found[at:end] * dice.choice((1, 2, 9))
            case 4 if at < len(found):
                found[at] ^= 1 << dice.randrange(8)
            case 5 if at < len(found):
                found[at] = dice.randrange(256)
            case 6:
                other = dice.choice(others)
                found[at:] = other[dice.randrange(len(other) + 1) :]
            case _:
                del found[at:]
    return bytes(found[:LONGEST])


def fuzz(subject: Subject, seconds: float, dice: random.Random, *, most: int = 10**9) -> Tally:
    """Try inputs for so long, or so many. The corpus and the seeds come first."""
    tally = Tally()
    until = time.monotonic() + seconds
    pool = [*subject.seeds, *corpus_of(subject)]
    fresh = iter(tuple(pool))
    while not tally.findings and (tally.tried < len(pool) or (time.monotonic() < until and tally.tried < most)):
        batch = [next(fresh, None) or mutated(dice.choice(pool), pool, subject.words, dice) for _ in range(_BATCH)]
        pool += _tried(subject, batch, tally)
    return tally


def _tried(subject: Subject, batch: Iterable[bytes], tally: Tally) -> list[bytes]:
    kept: list[bytes] = []
    trying = b""

    async def main(clock: HandClock) -> None:
        nonlocal trying
        for data in batch:
            trying = data
            outcome = await subject.target(data, clock)
            tally.tried += 1
            if outcome not in tally.outcomes:
                tally.outcomes.add(outcome)
                kept.append(data)

    try:
        in_virtual_time(main)
    except Exception:  # noqa: BLE001 - whatever it is, it is what was looked for
        tally.findings.append(Finding(subject.name, trying, traceback.format_exc()))
    tally.kept += kept
    return kept
