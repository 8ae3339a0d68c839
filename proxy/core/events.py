"""What happened, said where it happened: the name of an event and its fields. `proxy.log` makes lines of them.

They are records of the standard library's logger `comporta`, so that who embeds the gateway can hear them as well.
"""

from __future__ import annotations

import logging

#: The name of the logger. What a record's event is of is in its attribute `fields`.
NAME = "comporta"

_LOG = logging.getLogger(NAME)


def info(event: str, **fields: object) -> None:
    _LOG.info(event, extra={"fields": fields})


def warning(event: str, **fields: object) -> None:
    _LOG.warning(event, extra={"fields": fields})


def error(event: str, **fields: object) -> None:
    _LOG.error(event, extra={"fields": fields})
