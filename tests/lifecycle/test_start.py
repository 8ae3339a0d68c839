"""How long a start takes, from the command to the line that says that requests can come."""

from __future__ import annotations

import time

from tests.lifecycle.conftest import Start

#: Seconds. A machine that does other things needs longer at times, so the best of several counts.
TARGET = 0.5
TRIES = 8


def test_it_is_ready_within_half_a_second(start: Start):
    times: list[float] = []
    while len(times) < TRIES and min(times, default=TARGET) >= TARGET:
        begun = time.monotonic()
        gateway = start()
        times.append(time.monotonic() - begun)
        gateway.stop()
    assert min(times) < TARGET, times
