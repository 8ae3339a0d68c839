"""What a result must say of where it was measured."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path

from bench import servers, wrk

_PACKAGES = ("aiohttp", "uvloop", "orjson", "httptools", "pydantic", "structlog", "prometheus-client")


def description() -> dict[str, str | int]:
    """Processor, cores, memory, kernel."""
    return {
        "processor": _field("/proc/cpuinfo", "model name") or platform.processor(),
        "architecture": platform.machine(),
        "cores": os.cpu_count() or 0,
        "memory_bytes": int((_field("/proc/meminfo", "MemTotal") or "0 kB").split()[0]) * 1024,
        "kernel": platform.release(),
    }


def versions() -> dict[str, str]:
    """Python, what the gateway is built of, nginx, wrk, and the commit (`+` where the tree differs from it)."""
    found = {"python": f"{platform.python_implementation()} {platform.python_version()}", "commit": _commit()}
    for tool, find in (("nginx", servers.nginx_executable), ("wrk", wrk.executable)):
        try:
            found[tool] = _first_line([find(), "-v"])
        except servers.ToolMissing:
            found[tool] = "absent"
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "absent"
    return found


def _field(path: str, name: str) -> str | None:
    lines = Path(path).read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name), None)


def _commit() -> str:
    commit = _first_line(["git", "rev-parse", "--short=12", "HEAD"])
    if not re.fullmatch(r"[0-9a-f]+", commit):  # outside a checkout git says so in words
        return "unknown"
    return f"{commit}+" if _first_line(["git", "status", "--porcelain", "--untracked-files=no"]) else commit


def _first_line(command: list[str]) -> str:
    """The first line that a program prints, on whichever of its outputs; empty if there is none."""
    try:
        done = subprocess.run(command, cwd=servers.ROOT, capture_output=True, text=True, timeout=10, check=False)
    except FileNotFoundError:
        return ""
    text = (done.stdout or done.stderr).strip()
    return text.splitlines()[0] if text else ""
