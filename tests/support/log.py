"""What the code under test logs, as a list."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from proxy.core import events


@contextmanager
def logged() -> Iterator[list[dict[str, Any]]]:
    """The events of the block, each its fields with `event` and `level`."""
    lines: list[dict[str, Any]] = []

    class Listening(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append({**vars(record)["fields"], "event": record.msg, "level": record.levelname.lower()})

    logger, handler = logging.getLogger(events.NAME), Listening()
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before
