"""What the gateway costs: CPU per request and per streamed chunk, against nginx in front of the same upstream in the same run.

`python -m bench.overhead`, or `make bench`. Upstream and load share one core, the server under test has another to itself. In every round
each server is measured in each slot, one after the other, the order turned from round to round. A chunk's cost holds its share of the
stream's request. Added latencies are against asking the upstream directly, which shares its core with the client: a little below zero is
possible.

What a chunk costs depends on how many come at a time: few wake the server for each, many are served in one turn of its loop, and that is
much cheaper for everyone (nginx: 45 us with one stream, 5 us with 64 streams at 1 ms). Compare only runs with the same parameters.

Exit status: 0, 1 when something was
answered wrongly, 2 when the measurement cannot run.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench import crowd, footprint, machine, report, servers, slots, wrk
from bench.payload import Pace

RESULTS = Path(__file__).with_name("results")

#: Why a run may not come to its end.
FAILURES = (servers.ServerFailed, servers.ToolMissing, slots.WrongAnswer, ConnectionError, TimeoutError)


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line chose."""

    parameters: slots.Parameters
    cores: tuple[int, int]
    startups: int
    memory: bool
    open_streams: int | None
    json: bool
    output: Path | None


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns the exit status."""
    options = parse(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # unwinds, so that every server is stopped
    try:
        result = measure(options) if options.open_streams is None else measure_crowd(options, options.open_streams)
    except FAILURES as error:
        sys.stderr.write(f"{error}\n")
        return 2
    text = json.dumps(result, indent=1) + "\n"
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(text)
        sys.stderr.write(f"kept in {options.output}\n")
    table = report.table if options.open_streams is None else crowd.table
    sys.stdout.write(text if options.json else table(result))
    return 1 if result["warnings"]["failed"] else 0


def parse(arguments: Sequence[str] | None) -> Options:
    """The command line. Exits on what it does not understand, as argparse does."""
    parser = argparse.ArgumentParser(prog="python -m bench.overhead", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="about 25 s in all: fewer, shorter rounds; kept only with --output")
    parser.add_argument("--rounds", type=int, help="paired rounds (5)")
    parser.add_argument("--seconds", type=int, help="length of a slot (3)")
    parser.add_argument("--connections", type=int, default=32, help="of the load without streams (%(default)s)")
    parser.add_argument("--bodies", type=_numbers, help="sizes of the request in KiB, one slot each (1,32)")
    parser.add_argument("--streams", type=int, default=64, help="streams at a time (%(default)s)")
    parser.add_argument("--chunks", type=int, help="of each stream (256)")
    parser.add_argument("--interval-ms", type=int, default=8, help="from one chunk of a stream to the next (%(default)s)")
    parser.add_argument("--ask-usage", action="store_true", help="the client asks for the usage event, as upstream is asked in any case")
    parser.add_argument("--memory", action="store_true", help="resident memory too: idle, and with 1,000 streams open")
    parser.add_argument("--open-streams", type=int, metavar="N", help="only this: hold so many slow streams open, a minute in all")
    parser.add_argument("--cores", type=_numbers, help="core of upstream and load, core of the server (the first two allowed)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON instead of as a table")
    parser.add_argument("--output", type=Path, help="where the JSON is kept (bench/results/<date>-overhead.json)")
    given = parser.parse_args(arguments)
    cores = given.cores or tuple(sorted(os.sched_getaffinity(0))[:2])
    if len(cores) != 2 or cores[0] == cores[1]:
        parser.error("two different cores are needed: one for upstream and load, one for the server under test")
    if given.chunks is not None and given.chunks < 2:
        parser.error("a stream has at least two chunks: the role, and text")
    quick = given.quick
    parameters = slots.Parameters(
        rounds=given.rounds or (2 if quick else 5),
        seconds=given.seconds or (1 if quick else 3),
        connections=given.connections,
        bodies_kib=given.bodies or ((1,) if quick else (1, 32)),
        streams=given.streams,
        pace=Pace(given.chunks or (128 if quick else 256), given.interval_ms),
        usage=given.ask_usage,
    )
    kind = "overhead" if given.open_streams is None else "open-streams"
    output = given.output or (None if quick else RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-{kind}.json")
    return Options(parameters, (cores[0], cores[1]), 3 if quick else 5, given.memory, given.open_streams, given.json, output)


def measure(options: Options) -> report.Result:
    """Run it all. Raises ToolMissing, ServerFailed, WrongAnswer; ConnectionError or TimeoutError from a server that fails under load."""
    wrk.executable(), servers.nginx_executable()
    raise_file_limit()
    os.sched_setaffinity(0, {options.cores[0]})  # this process is the load generator, and wrk inherits it
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="comporta-bench-")))
        bench = servers.Bench(directory, *options.cores)
        upstream = stack.enter_context(servers.upstream(bench))
        startup = footprint.startup(bench, upstream.port, options.startups)
        memory = footprint.memory(bench, upstream.port) if options.memory else None
        nginx = stack.enter_context(servers.nginx(bench, upstream.port))
        gateway = stack.enter_context(servers.gateway(bench, upstream.port))
        stage = slots.Stage(bench, upstream, (nginx, gateway), options.parameters, _tell)
        samples = slots.run(stage)
    run = report.Run(machine.description(), machine.versions(), options.cores, options.parameters, samples, startup, memory)
    return report.document(run, datetime.now(UTC))


def measure_crowd(options: Options, wanted: int) -> report.Result:
    """Hold streams open, as many as are wanted or as this process's file limit lets in. Raises as `measure`."""
    raise_file_limit()
    plan = crowd.Plan(crowd.most_streams(wanted))
    os.sched_setaffinity(0, {options.cores[0]})
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="comporta-bench-")))
        bench = servers.Bench(directory, *options.cores)
        upstream = stack.enter_context(servers.upstream(bench))
        gateway = stack.enter_context(servers.gateway(bench, upstream.port, pool=plan.streams + 16))
        found = crowd.run(upstream, gateway, plan)
    return crowd.document(found, plan, wanted, datetime.now(UTC))


def _tell(line: str) -> None:
    sys.stderr.write(line + "\n")


def raise_file_limit() -> None:
    """As many open files as this process may have; what it starts inherits that."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


if __name__ == "__main__":
    sys.exit(main())
