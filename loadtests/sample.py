"""What a process holds, read once a second from /proc and from its metrics."""

from __future__ import annotations

import os
import threading
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from bench.procfs import parse_resident
from loadtests.processes import Server

#: The kernel's numbers for the states of a TCP connection (include/net/tcp_states.h).
_ESTABLISHED, _CLOSE_WAIT = "01", "08"
_TASKS = "comporta_tasks"


@dataclass(frozen=True, slots=True)
class Sample:
    """One moment. `at` is in seconds since the soak began; `tasks` is None while the gateway has no such gauge."""

    at: float
    rss: int
    descriptors: int
    threads: int
    upstream: int
    closing: int
    active: float
    requests: float
    tasks: float | None
    retries: float = 0.0
    switches: float = 0.0

    def document(self) -> dict[str, float | None]:
        """For JSON."""
        return asdict(self)


def take(gateway: Server, upstream_port: int, began: float) -> Sample:
    """Now. Raises OSError when the gateway is gone."""
    process = Path(f"/proc/{gateway.pid}")
    metrics = read_metrics(gateway.admin)
    tcp = Path("/proc/net/tcp").read_text()
    return Sample(
        at=round(time.monotonic() - began, 3),
        rss=parse_resident((process / "status").read_text()),
        descriptors=len(os.listdir(process / "fd")),
        threads=len(os.listdir(process / "task")),
        upstream=connections_to(tcp, upstream_port, _ESTABLISHED),
        closing=connections_to(tcp, upstream_port, _CLOSE_WAIT),
        active=metrics.get("llm_active_requests", 0.0),
        requests=metrics.get("llm_requests_total", 0.0),
        tasks=metrics.get(_TASKS),
        retries=metrics.get("llm_retries_total", 0.0),
        switches=metrics.get("llm_fallbacks_total", 0.0),
    )


def read_metrics(admin: str) -> Mapping[str, float]:
    """Each metric's sum over its series."""
    with urllib.request.urlopen(f"{admin}/metrics", timeout=10) as answer:  # noqa: S310 - of the gateway that the soak started
        text = answer.read().decode()
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


def connections_to(table: str, port: int, state: str) -> int:
    """Of /proc/net/tcp (proc(5)): connections whose other end is this port of loopback, and whose near end is in this state."""
    remote = f"0100007F:{port:04X}"
    return sum(fields[2] == remote and fields[3] == state for line in table.splitlines()[1:] if len(fields := line.split()) > 3)


class Sampler:
    """A thread that takes a sample each second. What it could not take is in `failed`."""

    def __init__(self, gateway: Server, upstream_port: int) -> None:
        self.began = time.monotonic()
        self.samples: list[Sample] = []
        self.failed: list[str] = []
        self._gateway, self._port = gateway, upstream_port
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ending.set()
        self._thread.join(15)

    def now(self) -> Sample:
        """One more, out of turn."""
        return take(self._gateway, self._port, self.began)

    def _run(self) -> None:
        while not self._ending.wait(max(0.0, self.began + len(self.samples) + len(self.failed) + 1 - time.monotonic())):
            try:
                self.samples.append(self.now())
            except OSError as error:
                self.failed.append(repr(error))
