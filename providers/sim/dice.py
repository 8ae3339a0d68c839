"""Everything random, made from a seed: the same request is answered the same way, in every process."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from hashlib import blake2b
from typing import TypeVar

T = TypeVar("T")

_MASK = (1 << 64) - 1
_BLOCK = 100


def digest(*parts: object) -> int:
    """64 bits that follow from the texts of `parts`."""
    text = "\x1f".join(map(str, parts)).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big")


class Dice:
    """A linear congruential generator with Knuth's MMIX constants: a tenth of the cost of seeding `random.Random`, good enough for prose.

    `shift` is added to every draw. Who needs many different values rewinds `state` and counts `shift` up, and so walks through all options.
    """

    __slots__ = ("shift", "state")

    def __init__(self, seed: int) -> None:
        self.state = seed & _MASK
        self.shift = 0

    def below(self, bound: int) -> int:
        """A number from 0 to `bound` - 1."""
        self.state = state = (self.state * 6364136223846793005 + 1442695040888963407) & _MASK
        return ((state >> 32) + self.shift) % bound

    def pick(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]


class Lot:
    """Says yes to an exact share of its draws: of the first hundred, of the next hundred, and so on, in a seeded order.

    An even pattern would be exact too, but would fall into step with retries: if every second request fails, every retry succeeds.
    """

    __slots__ = ("_count", "_name", "_share", "_winners")

    def __init__(self, share: float, *name: object) -> None:
        self._share = Fraction(share).limit_denominator(1_000_000)
        self._name = name
        self._count = 0
        self._winners: frozenset[int] = frozenset()

    def draw(self) -> bool:
        if not self._share:
            return False
        block, place = divmod(self._count, _BLOCK)
        if not place:
            self._winners = self._deal(block)
        self._count += 1
        return place in self._winners

    def _deal(self, block: int) -> frozenset[int]:
        due = int((block + 1) * _BLOCK * self._share) - int(block * _BLOCK * self._share)
        dice = Dice(digest(*self._name, block))
        places = list(range(_BLOCK))
        return frozenset(places.pop(dice.below(len(places))) for _ in range(due))
