"""The real clock. Tests inject one that they move by hand."""

from __future__ import annotations

import time


class SystemClock:
    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)
