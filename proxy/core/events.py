"""What happened, said where it happened: the name of an event and its fields. `proxy.log` makes lines of them.

Not through the standard library's logging: whatever a plug-in or a library sets up there keeps no event from being told. Only where nobody
hears them, as in a program that embeds the gateway, are they records of its logger `comporta`, each with its `fields`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

_LOG = logging.getLogger("comporta")


class Ear:
    """Who hears events: `hear` gets each one's fields, with `event` and `level`."""

    __slots__ = ("hear",)

    def __init__(self) -> None:
        self.hear: Callable[[dict[str, Any]], None] | None = None


EAR = Ear()


def info(event: str, **fields: object) -> None:
    _tell(logging.INFO, "info", event, fields)


def warning(event: str, **fields: object) -> None:
    _tell(logging.WARNING, "warning", event, fields)


def error(event: str, **fields: object) -> None:
    _tell(logging.ERROR, "error", event, fields)


def _tell(number: int, level: str, event: str, fields: dict[str, object]) -> None:
    if EAR.hear is None:
        _LOG.log(number, event, extra={"fields": fields})
    else:
        EAR.hear({**fields, "event": event, "level": level})
