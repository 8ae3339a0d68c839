"""What requests are answered with, and within which bounds: what a reload replaces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from proxy.core.protocols import Emit, Handler
from proxy.http.cors import Cors


@dataclass(frozen=True, slots=True)
class EdgeLimits:
    """Bytes and seconds of the edge; `server` in the configuration."""

    max_body: int = 32 * 2**20
    max_upload: int = 512 * 2**20
    body_timeout: float = 15.0
    write_timeout: float = 30.0
    ping: float = 10.0
    max_in_flight: int = 20_000


@dataclass(frozen=True, slots=True, eq=False)
class Serving:
    """What answers requests: `gateway` those that go to a provider; `local`, by operation, those that are answered here or go a way of
    their own. `cors`: None where no page may read answers.

    A reload puts another in its place; a request keeps the one that it began with.
    """

    gateway: Handler
    local: Mapping[str, Handler]
    limits: EdgeLimits
    emit: Emit | None = None
    cors: Cors | None = None
