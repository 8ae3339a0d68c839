"""What is answered where there is no request has a line as well, in the shape of the others, unless requests have none."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from proxy.core.clock import SystemClock
from proxy.core.metrics import Registry
from proxy.core.protocols import Services
from proxy.settings import load
from proxy.snapshot import Snapshot
from tests.core.doubles import HandClock, in_virtual_time
from tests.http.test_data_plane import Edge


def _snapshot(folder: Path, policies: str, lines: list[dict[str, Any]]) -> Snapshot:
    file = folder / "gateway.yaml"
    file.write_text(f"providers: {{}}\npolicies: {{{policies}}}\n", encoding="utf-8")
    return Snapshot(load(file, {}, {}).settings, {}, Services(SystemClock(), Registry(), lines.append))


async def _never(_call: Any) -> Any:
    raise AssertionError


@pytest.mark.parametrize(("policies", "kept"), [("", True), ("record: {log: false}", False), ("record: false", False)])
def test_it_has_a_line_where_requests_have(tmp_path: Path, policies: str, kept: bool):
    lines: list[dict[str, Any]] = []
    snapshot = _snapshot(tmp_path, policies, lines)

    async def main(clock: HandClock) -> None:
        edge = Edge(clock, _never)
        edge.plane.serving = snapshot.serving
        line = edge.line()
        line.feed(b"GET /v1/nope HTTP/1.1\r\nHost: a\r\n\r\n")
        await asyncio.sleep(0.1)
        line.feed(b"secret words\r\n\r\n")
        await asyncio.sleep(0.1)
        away = edge.plane.turn_away()
        assert [found["status"] for found in lines] == ([404, 400, 503] if kept else [])
        for found, answer in zip(lines, (line.text, line.text, away), strict=False):
            assert found["id"].encode() in answer
            assert (found.keys(), found["operation"]) == (lines[0].keys(), "unknown")
        assert "secret" not in str(lines)

    in_virtual_time(main)
