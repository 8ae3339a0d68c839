"""Times as text, put together from whole numbers: formatting a float costs several times as much."""

from __future__ import annotations

from math import floor

#: The three digits after the point.
THOUSANDTHS = tuple(b"%03d" % number for number in range(1000))

_DIGITS = tuple(digits.decode() for digits in THOUSANDTHS)


def milliseconds(seconds: float) -> str:
    """`seconds` >= 0 in milliseconds, rounded to three decimals: `12.340`. A number in JSON too."""
    micros = floor(seconds * 1e6 + 0.5)
    return f"{micros // 1000}.{_DIGITS[micros % 1000]}"
