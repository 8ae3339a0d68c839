"""Durations and sizes as people write them."""

from __future__ import annotations

import re

_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|m|h|d)")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]?i?b|)", re.IGNORECASE)


def parse_duration(text: str) -> float:
    """Seconds of `"60s"`, `"1m30s"`, `"250ms"`. Raises ValueError."""
    value = text.strip()
    parts = _DURATION.findall(value)
    if not parts or "".join(number + unit for number, unit in parts) != value:
        raise ValueError(f'{text!r} is no duration; write a number and a unit, such as "30s", "1m30s" or "250ms"')
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def parse_size(text: str) -> int:
    """Bytes of `"32MiB"`, `"64kB"`, `"100"`. Raises ValueError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f'{text!r} is no size; write a number and a unit, such as "32MiB" or "64KiB"')
    try:
        return int(float(match[1]) * _BYTES[match[2].lower()])
    except OverflowError:
        raise ValueError("is too large") from None


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` reads back, as far as microseconds: `90` is `"1m30s"`."""
    if seconds and seconds < 1:
        return f"{seconds * 1e3:.10g}ms" if seconds >= 1e-3 else f"{seconds * 1e6:.10g}us"
    whole, rest = divmod(seconds, 60)
    minutes = f"{whole:.0f}m" if whole else ""
    return minutes + (f"{rest:.10g}s" if rest or not minutes else "")
