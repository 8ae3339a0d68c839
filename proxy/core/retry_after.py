"""How long a server asks to wait. Source: RFC 9110, 10.2.3; OpenAI's SDKs also read `retry-after-ms`."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

#: A longer hint is somebody's mistake: the most that is believed, in seconds. Limits by the day ask for hours, a date may be days ahead.
LONGEST = 7 * 86400.0


def parse_retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds to wait, or None where there is no hint that makes sense (negative, NaN, huge, garbage, a date gone by)."""
    for name, scale in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        text = headers.get(name)
        if text is None:
            continue
        try:
            seconds = float(text) * scale
        except ValueError:
            seconds = _until(text, time.time() if now is None else now)
        if math.isfinite(seconds) and 0 <= seconds <= LONGEST:
            return seconds
    return None


def _until(text: str, now: float) -> float:
    try:
        date = parsedate_to_datetime(text)
        # One that says no zone (asctime's, or `-0000`) is in UTC. Source: RFC 9110, 5.6.7.
        seconds = (date if date.tzinfo is not None else date.replace(tzinfo=UTC)).timestamp() - now
    except (ValueError, TypeError, OverflowError):
        return math.nan
    return seconds if seconds > 0 else math.nan
