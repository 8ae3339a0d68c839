"""What is asked: a catalogue of prompts of which a few are asked often and most are asked rarely, as Zipf found of words.

G. K. Zipf, Human Behavior and the Principle of Least Effort, 1949: the k-th most popular has a share in proportion to 1 / k^s.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from random import Random

_TEXT = (
    "harbour lantern copper meadow violin granite orchard compass winter saffron ladder thunder pebble cotton falcon mirror "
    "basket canyon ribbon timber glacier anchor velvet spiral marble thistle beacon quarry willow ember feather tunnel"
)
_WORDS = _TEXT.split()


class Zipf:
    """Ranks from 0 (the most popular) to `size` - 1. Raises ValueError for an empty catalogue or a negative exponent."""

    def __init__(self, size: int, exponent: float) -> None:
        if size < 1 or exponent < 0:
            raise ValueError(f"a catalogue has at least one prompt and an exponent of at least 0, not {size} and {exponent}")
        weights = [rank**-exponent for rank in range(1, size + 1)]
        total = sum(weights)
        self.shares = [weight / total for weight in weights]
        self._bounds = list(accumulate(self.shares))

    def rank(self, uniform: float) -> int:
        """The rank that a number from [0, 1) falls on."""
        return min(bisect_right(self._bounds, uniform), len(self._bounds) - 1)


def prompt(rank: int, words: int = 24) -> str:
    """The text of a rank: always the same one, and none like another."""
    random = Random(rank)
    return f"Question {rank}: " + " ".join(random.choices(_WORDS, k=words)) + "?"
