"""What `make fuzz` does for ten minutes, for a moment: all that earlier runs kept, and some more by fixed dice."""

from __future__ import annotations

import random
from collections.abc import Hashable

import pytest

from tests.core.doubles import HandClock
from tests.fuzz.engine import LONGEST, Subject, corpus_of, fuzz, mutated
from tests.fuzz.subjects import SUBJECTS, Broken, statuses


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.name)
def test_nothing_that_is_known_and_nothing_near_it_breaks_a_reader(subject: Subject) -> None:
    tally = fuzz(subject, 60, random.Random(7), most=len(corpus_of(subject)) + 1000)
    assert not tally.findings, (tally.findings[0].data, tally.findings[0].trace)
    assert tally.tried >= 1000
    assert len(tally.outcomes) > 3, "every input ends the same: the subject is not reached"


async def _fragile(data: bytes, _clock: HandClock) -> Hashable:
    assert b"!" not in data
    return len(data) > 3


def test_what_breaks_is_found_with_its_input() -> None:
    tally = fuzz(Subject("fragile", _fragile, (b"abc",), (b"!",)), 10, random.Random(1))
    assert len(tally.findings) == 1
    assert b"!" in tally.findings[0].data
    assert "AssertionError" in tally.findings[0].trace


def test_the_same_dice_make_the_same_inputs_and_none_is_too_long() -> None:
    def made() -> list[bytes]:
        dice = random.Random(3)
        return [mutated(b"seed" * 5000, [b"other"], [b"word"], dice) for _ in range(50)]

    assert made() == made()
    assert all(len(data) <= LONGEST for data in made())


@pytest.mark.parametrize(
    "written",
    [
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc",
        b"hello",
        b"HTTP/2 200 OK\r\n\r\n",
    ],
)
def test_what_is_no_answer_is_seen(written: bytes) -> None:
    with pytest.raises(Broken):
        statuses(written, heads=False)


def test_answers_are_told_apart() -> None:
    chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
    whole = b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}"
    assert statuses(b"HTTP/1.1 100 Continue\r\n\r\n" + chunked + whole, heads=False) == [100, 200, 404]
    assert statuses(b"HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n" + whole, heads=True) == [200, 404]
