"""structlog, set up once for a process: JSON lines, or colours for people on a terminal."""

from __future__ import annotations

import logging
import sys
from typing import Any

import orjson
import structlog


def configure(*, pretty: bool) -> None:
    """Send everything that is logged to standard error."""
    renderer: Any = structlog.dev.ConsoleRenderer() if pretty else structlog.processors.JSONRenderer(serializer=_dumps)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info if not pretty else _unchanged,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr) if pretty else structlog.BytesLoggerFactory(sys.stderr.buffer),
        cache_logger_on_first_use=True,
    )
    # aiohttp and asyncio speak through the standard library: only what somebody must act on.
    logging.basicConfig(level=logging.WARNING, handlers=[_Bridge()], force=True)


def _dumps(value: Any, **_: Any) -> bytes:
    return orjson.dumps(value, default=str)


def _unchanged(_logger: Any, _method: str, event: Any) -> Any:
    return event


class _Bridge(logging.Handler):
    """The standard library's records, in our form: where they come from and their type, without text that may hold a client's bytes."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        structlog.get_logger().log(
            record.levelno,
            "library",
            logger=record.name,
            place=f"{record.module}:{record.lineno}",
            error=type(error).__name__ if error else None,
        )
