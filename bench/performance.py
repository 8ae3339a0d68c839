"""docs/performance.md, made of what is kept under bench/results/. `python -m bench.performance`, or `make performance-doc`.

Of each kind of result the newest is shown. Nothing but those files goes in, so that the same results always give the same document.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import check, history, layer_report, overhead, performance_text, policies, report, servers, slots
from bench.report import REFERENCE, SUBJECT

DOCUMENT = servers.ROOT / "docs" / "performance.md"

#: What is aimed at: a ratio to nginx, bytes, seconds.
TARGETS = {slots.request_measure(1): 3.5, slots.CHUNK: 1.4}
OPEN_STREAMS, OPEN_STREAMS_BYTES, STARTUP_SECONDS = 10_000, 400e6, 0.5

_NOT_YET = "Not measured yet.\n"


def newest(kind: str, directory: Path = overhead.RESULTS) -> report.Result | None:
    """The newest result of a kind; None when there is none."""
    found = [json.loads(path.read_text()) for path in sorted(directory.glob("*.json"))]
    return max((result for result in found if result["kind"] == kind), key=lambda result: str(result["date"]), default=None)


def document(directory: Path = overhead.RESULTS) -> str:
    """The whole text."""
    against, layers, each, crowd = (newest(kind, directory) for kind in ("overhead", "layers", "policies", "open_streams"))
    parts = [
        performance_text.HEAD,
        "## Against nginx\n",
        _against(against),
        performance_text.RATIOS,
        "## Where the time goes\n",
        _layers(layers),
        "## What each policy costs\n",
        _policies(each),
        "## Many open streams\n",
        _crowd(crowd),
        "## What changes brought\n",
        performance_text.HISTORY,
        _history(history.entries(directory / "history")),
        performance_text.METHOD.format(margin=check.MARGIN),
        performance_text.DOUBTS,
    ]
    return "\n".join(parts)


def where(result: report.Result) -> str:
    """Machine, versions, date: what a figure is worth nothing without."""
    machine, versions = result["machine"], result["versions"]
    names = ("aiohttp", "uvloop", "httptools", "orjson")
    built = ", ".join([versions["python"], *(f"{name} {versions[name]}" for name in names if name in versions)])
    memory = f"{machine['memory_bytes'] / 2**30:.0f} GiB" if "memory_bytes" in machine else "?"
    return (
        f"Measured {result['date'][:10]} at commit `{versions['commit']}` on {machine['cores']} cores of {machine['processor']}, {memory}, "
        f"Linux {machine['kernel']}; {built}; {versions['nginx']}; {versions['wrk'].split(' Copyright')[0].strip()}.\n"
    )


def _against(result: report.Result | None) -> str:
    if result is None:
        return _NOT_YET
    summary, parameters = result["summary"], result["parameters"]
    pace = parameters["pace"]
    cost = [[*row, _target(measure, summary["cost"][measure])] for measure, row in _by_measure(summary["cost"])]
    parts = [
        where(result),
        f"{parameters['rounds']} paired rounds, slots of {parameters['seconds']} s; {parameters['connections']} connections; "
        f"{parameters['streams']} streams of {pace['chunks']} chunks, {pace['interval_ms']} ms apart. Median (least - greatest).\n",
        markdown(["CPU of the server process", "nginx", "comporta", "ratio", "target"], cost),
        markdown(["added to asking directly", "nginx", "comporta"], report.added_rows(summary["added_ms"])),
        _process(result),
        *_doubtful(result["warnings"]),
    ]
    return "\n".join(parts)


def _by_measure(cost: dict[str, Any]) -> list[tuple[str, list[str]]]:
    return list(zip(cost, report.cost_rows(cost), strict=True))


def _target(measure: str, cost: dict[str, Any]) -> str:
    target = TARGETS.get(measure)
    if target is None or cost["ratio"] is None:
        return ""
    return f"{target:.1f} x, {_met(cost['ratio']['median'] <= target)}"


def _met(is_met: bool) -> str:
    return "met" if is_met else "**missed**"


def _process(result: report.Result) -> str:
    rows = []
    startup, memory = result["startup_s"], result["memory"]
    if startup:
        met = _met(startup["median"] < STARTUP_SECONDS)
        rows.append(["from exec to ready", "", f"{startup['median']:.3f} s", f"{STARTUP_SECONDS} s, {met}"])
    if memory:
        for title, name in (("resident memory, idle", "idle_bytes"), ("more for 1,000 open streams", "per_1000_streams_bytes")):
            rows.append([title, f"{memory[REFERENCE][name] / 1e6:.1f} MB", f"{memory[SUBJECT][name] / 1e6:.1f} MB", ""])
    return markdown(["the process", "nginx", "comporta", "target"], rows) if rows else ""


def _doubtful(warnings: dict[str, list[str]]) -> list[str]:
    lines = [f"- {performance_text.WARNINGS[kind]}: {len(found)} slots, such as {found[0]}" for kind, found in warnings.items() if found]
    return ["What makes these figures doubtful:\n", "\n".join(lines) + "\n"] if lines else []


def _layers(result: report.Result | None) -> str:
    if result is None:
        return _NOT_YET
    parts = [where(result), performance_text.LAYERS]
    for what, found in result["driven"].items():
        parts.append(markdown([layer_report.TITLES[what], "us", "least - greatest", "share"], layer_report.rows(found)))
    parts.append(f"A client that connects and leaves costs {result['connection_us']:.1f} us in the process, beside the system calls.\n")
    return "\n".join(parts)


def _policies(result: report.Result | None) -> str:
    if result is None:
        return _NOT_YET
    table = markdown(policies.HEAD, list(policies.rows(result["policies_us"])))
    return "\n".join([where(result), performance_text.POLICIES, table])


def _crowd(result: report.Result | None) -> str:
    if result is None:
        return _NOT_YET
    memory, parameters = result["memory"], result["parameters"]
    whole = memory["idle_bytes"] + memory["per_stream_bytes"] * OPEN_STREAMS
    met = _met(whole < OPEN_STREAMS_BYTES and not result["warnings"]["failed"])
    parts = [
        where(result),
        markdown(
            ["one worker", ""],
            [
                ["streams open at a time", f"{result['streams']['most_open']:,}"],
                ["of them whole, and counted by the server", f"{result['streams']['whole']:,}, {result['streams']['recorded']:,}"],
                ["chunks sent, arrived", f"{result['chunks']['sent']:,}, {result['chunks']['arrived']:,}"],
                ["resident memory, idle", f"{memory['idle_bytes'] / 1e6:.1f} MB"],
                ["resident memory, at most", f"{memory['most_bytes'] / 1e6:.1f} MB"],
                ["for each stream", f"{memory['per_stream_bytes'] / 1e3:.1f} kB"],
                [f"{OPEN_STREAMS:,} streams, under {OPEN_STREAMS_BYTES / 1e6:.0f} MB", f"{whole / 1e6:.0f} MB, {met}"],
            ],
        ),
    ]
    if parameters["streams"] < parameters["wanted"]:
        parts.append(performance_text.FILE_LIMIT.format(**parameters))
    parts += [f"**Lost**: {line}\n" for line in result["warnings"]["failed"]]
    return "\n".join(parts)


def _history(entries: Sequence[dict[str, Any]]) -> str:
    if not entries:
        return _NOT_YET
    measures = list(TARGETS)
    rows = []
    for entry in entries:
        cells = [_moved(entry["before"], entry["after"], measure) for measure in measures]
        rows.append([f"{entry['subject']}: {entry['note']}", f"`{entry['commit']}`", entry["date"][:10], *cells])
    return markdown(["change", "commit", "date", *(report.title(measure) for measure in measures)], rows)


def _moved(before: dict[str, Any] | None, after: dict[str, Any], measure: str) -> str:
    then, now = ((found or {}).get(measure, {}).get("ratio") for found in (before, after))
    if now is None:
        return ""
    return f"{now['median']:.2f} x" if then is None else f"{then['median']:.2f} to {now['median']:.2f} x"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; all columns but the first to the right."""
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def main() -> int:
    """The program; returns the exit status."""
    DOCUMENT.write_text(document(), encoding="utf-8")
    sys.stdout.write(f"wrote {DOCUMENT.relative_to(servers.ROOT)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
