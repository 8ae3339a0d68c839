"""What the code under test logs, as a list."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from proxy.core import events


@contextmanager
def logged() -> Iterator[list[dict[str, Any]]]:
    """The events of the block, each its fields with `event` and `level`."""
    lines: list[dict[str, Any]] = []
    before, events.EAR.hear = events.EAR.hear, lines.append
    try:
        yield lines
    finally:
        events.EAR.hear = before
