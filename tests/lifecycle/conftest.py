"""What the tests of a process's life share: each starts its own gateway, since each ends it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateway import Gateway, provider
from tests.support.upstream import Upstream

Start = Callable[..., Gateway]
PATIENT = {"connect": "1s", "first_token": "20s", "idle": "20s", "total": "30s"}


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        yield server


def configured(upstream: Upstream, server: dict[str, Any] | None = None, **provided: Any) -> dict[str, Any]:
    """A configuration whose one provider is `upstream`; it serves `test-model` and every other name."""
    section = provider(upstream.url, **{"timeouts": PATIENT, **provided})
    return {"server": server or {}, "providers": {"up": section}, "models": {"test-model": "up"}, "default_provider": "up"}


@pytest.fixture
def start(upstream: Upstream, tmp_path: Path) -> Iterator[Start]:
    """Start a gateway before `upstream`, with settings for `server`; what still runs is stopped when the test ends."""
    started: list[Gateway] = []

    def run(server: dict[str, Any] | None = None, *, listen: str = "127.0.0.1:0", env: dict[str, str] | None = None, **how: Any) -> Gateway:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        started.append(Gateway(configured(upstream, server, **how), folder, env, listen=listen))
        return started[-1]

    yield run
    for gateway in started:
        gateway.stop()
