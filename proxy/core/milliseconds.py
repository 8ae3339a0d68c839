"""Times as text, put together from texts that are there: to format a number costs several times as much."""

from __future__ import annotations

from math import floor

#: Before the point, of what takes less than a second, and after it.
_WHOLE = tuple(str(number) for number in range(1000))
_REST = tuple(f".{number:03d}" for number in range(1000))


def milliseconds(seconds: float) -> str:
    """`seconds` >= 0 in milliseconds, rounded to three decimals: `12.340`."""
    micros = floor(seconds * 1e6 + 0.5)
    if micros < 1_000_000:
        return _WHOLE[micros // 1000] + _REST[micros % 1000]
    return f"{micros // 1000}{_REST[micros % 1000]}"
