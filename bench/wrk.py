"""Load without streams: wrk (https://github.com/wg/wrk), a closed loop over keep-alive connections."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench import payload
from bench.servers import ToolMissing

SCRIPT = Path(__file__).with_name("chat.lua")
_MARK = "RESULT "


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk counted. `answered` are the responses below status 400; `failed` the others and every socket error.

    Latency in ms under full load: mostly waiting for each other, and wrk fills in samples after a stall. Kept, not shown.
    """

    answered: int
    failed: int
    seconds: float
    bytes: int
    p50_ms: float
    p99_ms: float


def parse_output(text: str) -> Load:
    """wrk's output, of which only the script's own line is read. Raises ValueError without one."""
    line = next((line for line in text.splitlines() if line.startswith(_MARK)), None)
    if line is None:
        raise ValueError(f"wrk printed no result: {text.strip()!r}")
    found = json.loads(line.removeprefix(_MARK))
    failed = sum(found[name] for name in ("connect", "read", "write", "status", "timeout"))
    return Load(
        answered=found["requests"] - found["status"],
        failed=failed,
        seconds=found["seconds"],
        bytes=found["bytes"],
        p50_ms=found["p50_us"] / 1000,
        p99_ms=found["p99_us"] / 1000,
    )


def offer(port: int, body: Path, *, connections: int, seconds: int) -> Load:
    """Post the file `body` to the chat completions of the server at `port` for `seconds`."""
    url = f"http://127.0.0.1:{port}{payload.PATH}"
    command = [executable(), "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", str(SCRIPT), url, "--", str(body)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False)
    if done.returncode:
        raise RuntimeError(f"wrk failed: {done.stderr.strip() or done.stdout.strip()}")
    return parse_output(done.stdout)


def executable() -> str:
    """Where wrk is. Raises ToolMissing."""
    found = shutil.which("wrk")
    if found is None:
        raise ToolMissing("wrk", "wrk")
    return found
