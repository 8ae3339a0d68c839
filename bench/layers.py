"""Where the time of one request and of one streamed chunk goes, layer by layer.

`python -m bench.layers`, or `make bench-layers`. The server's own objects run in this process, on its own event loop, but over connections
that lead nowhere: bytes are handed to its protocols and taken from its writes, one request at a time, with marks on the way
(`bench/seams.py`). What the marks themselves cost is known from the same runs without them, and taken off evenly. Then the real process is
measured over sockets: what it spends beyond the layers are the system calls, the loop's own work, and whatever traffic from many
connections at once brings.

Exit status: 0; 2 when the measurement cannot run, which it says of a server whose seams have moved.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import layer_report, machine, overhead, ratios, report, rig, seams, servers, slots, timeline
from bench.layer_report import CHUNK, REQUEST, STREAM, Found
from bench.payload import Pace
from bench.timeline import Timeline
from bench.unplugged import Loop, Wire, plug

#: How the real process is measured over sockets.
SOCKETS = slots.Parameters(rounds=3, seconds=1, connections=32, bodies_kib=(1,), streams=64, pace=Pace(256, 8), usage=False)

_FEW = 4  # chunks of a short stream


@dataclass(frozen=True, slots=True)
class Parameters:
    """How much of each in a round; every round is once without marks and once with them.

    `requests`; `streams` of few chunks, for their beginnings and ends; `long_streams` of `chunks`, for the chunks. First, `warm` requests.
    """

    rounds: int
    requests: int = 1000
    streams: int = 300
    long_streams: int = 20
    chunks: int = 200
    warm: int = 300


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.layers", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="without marks and with them (%(default)s)")
    parser.add_argument("--no-sockets", action="store_true", help="only what lies inside the process; kept only with --output")
    parser.add_argument("--json", action="store_true", help="print the result as JSON instead of as a table")
    parser.add_argument("--output", type=Path, help="where the JSON is kept (bench/results/<date>-layers.json)")
    given = parser.parse_args(arguments)
    clean = servers.clean_environment(os.environ)
    os.environ.clear()
    os.environ.update(clean)
    try:
        result = measure(Parameters(rounds=given.rounds), sockets=not given.no_sockets)
    except (timeline.SeamMissing, rig.NoAnswer, servers.ServerFailed, servers.ToolMissing, slots.WrongAnswer) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    text = json.dumps(result, indent=1) + "\n"
    output = given.output or (None if given.no_sockets else overhead.RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-layers.json")
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text)
        sys.stderr.write(f"kept in {output}\n")
    sys.stdout.write(text if given.json else layer_report.table(result))
    return 0


def measure(parameters: Parameters, *, sockets: bool) -> report.Result:
    """Run it all. Raises SeamMissing, NoAnswer; with sockets also ToolMissing, ServerFailed, WrongAnswer."""
    measured = _over_sockets() if sockets else {}
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[-1]})
    try:
        bare, marked = _in_process(parameters)
    finally:
        os.sched_setaffinity(0, set(cores))
    return {
        "schema": 1,
        "kind": "layers",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine.description(),
        "versions": machine.versions(),
        "parameters": asdict(parameters) | {"sockets": asdict(SOCKETS) if sockets else None},
        "connection_us": statistics.median(found.connection_ns for found in bare) / 1e3,
        "driven": {what: layer_report.driven(what, bare, marked, measured.get(what)) for what in (REQUEST, STREAM, CHUNK)},
    }


def _in_process(parameters: Parameters) -> tuple[list[Found], list[Found]]:
    """Rounds without marks and rounds with them, in turn."""
    bare: list[Found] = []
    marked: list[Found] = []
    with tempfile.TemporaryDirectory(prefix="comporta-layers-") as name, asyncio.Runner(loop_factory=Loop) as runner:
        config = Path(name) / "comporta.yaml"
        config.write_text(servers.gateway_config(9, None))
        loop = runner.get_loop()
        assert isinstance(loop, Loop)
        for number in range(parameters.rounds):
            for results, with_marks in ((bare, False), (marked, True)):
                results.append(runner.run(_round(loop, config, parameters, with_marks)))
            sys.stderr.write(f"round {number + 1} of {parameters.rounds}\n")
    return bare, marked


async def _round(loop: Loop, config: Path, parameters: Parameters, marked: bool) -> Found:
    line, found = Timeline(), Found()
    request, short, long = rig.request(), rig.request(_FEW), rig.request(parameters.chunks)
    with ExitStack() as stack:
        log = stack.enter_context(rig.log_thread(config.parent))
        emit: Any = log.emit
        if marked:
            emit = timeline.around(line, "emit")(log.emit)
            emit.members = timeline.around(line, "emit")(log.emit.members)
        stack.enter_context(seams.marked(line) if marked else nullcontext())
        async with rig.started(loop, config, emit, line, marked=marked) as server:
            for _ in range(parameters.warm):
                await server.whole(request)
            gc.collect()
            await asyncio.sleep(0.1)  # the log's thread gathers for half as long
            spent = log.seconds()
            for _ in range(parameters.requests):
                found.add(REQUEST, await server.whole(request))
            await asyncio.sleep(0.1)
            found.log_seconds = (log.seconds() - spent) / parameters.requests
            for _ in range(parameters.streams):
                ends, _pieces = await server.stream(short, _FEW)
                found.add(STREAM, *ends)
            for _ in range(parameters.long_streams):
                _ends, pieces = await server.stream(long, parameters.chunks)
                for piece in pieces:
                    found.add(CHUNK, piece)
            found.connection_ns = await _connections(loop)
    return found


async def _connections(loop: Loop) -> float:
    """Nanoseconds of a client that connects and leaves, the median of some."""
    taken = []
    for _ in range(100):
        wire = Wire("client", None, lambda _wire, _data: None)
        began = time.perf_counter_ns()
        plug(wire, loop.factories[0])
        await asyncio.sleep(0)
        wire.abort()
        await asyncio.sleep(0)
        taken.append(time.perf_counter_ns() - began)
    return statistics.median(taken)


def _over_sockets() -> dict[str, dict[str, float]]:
    """Microseconds of the real process's processor time for a request and for a chunk; `kernel` is the kernel's part of the median."""
    overhead.raise_file_limit()
    mine = os.sched_getaffinity(0)
    cores = sorted(mine)[:2]
    if len(cores) < 2:
        raise servers.ServerFailed("two cores are needed: one for upstream and load, one for the server")
    os.sched_setaffinity(0, {cores[0]})
    try:
        with ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="comporta-bench-")))
            bench = servers.Bench(directory, cores[0], cores[1])
            upstream = stack.enter_context(servers.upstream(bench))
            gateway = stack.enter_context(servers.gateway(bench, upstream.port))
            samples = slots.run(slots.Stage(bench, upstream, (gateway,), SOCKETS, lambda line: None))
    finally:
        os.sched_setaffinity(0, mine)
    names = {slots.request_measure(1): REQUEST, slots.CHUNK: CHUNK}
    found = {}
    for measure, name in names.items():
        spread = ratios.spread(ratios.costs(samples, measure, gateway.name))
        shares = [one.figures["kernel_share"] for one in samples if (one.measure, one.server) == (measure, gateway.name)]
        if spread is not None:
            found[name] = asdict(spread) | {"kernel": statistics.median(shares) * spread.median}
    return found


if __name__ == "__main__":
    sys.exit(main())
