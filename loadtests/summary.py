"""A run in figures, all computed from the raw records; and the table of it for people."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain
from typing import Any

from bench import machine, report
from loadtests.ledger import Ledger
from loadtests.percentile import spread
from loadtests.plan import Plan
from loadtests.record import OUTCOMES, Record

SCHEMA = 1
ALL = "all"
FIGURES = {
    "latency_ms": "from the intended start to the last byte, of requests that ended as they were meant to; exact, from the raw records",
    "first_token_ms": "from the intended start to the first delta with content, of streams; exact, from the raw records",
    "service_ms": "as latency_ms, but from the sending; the same in a closed loop. What latency_ms is more is time in line for the client",
    "gap_ms": "between one delta with content and the next; exact, from the raw records",
    "locust": "locust's own: rounded to two digits, and in a closed loop blind to the time in which users waited their turn",
}


def summarise(records: Sequence[Record], plan: Plan, ledger: Ledger | None) -> dict[str, Any]:
    """The figures by operation and of all together. `ledger` is None where the gateway's records cannot be read."""
    by_operation: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_operation[record.operation].append(record)
    operations = {name: _figures(found) for name, found in sorted(by_operation.items())}
    return {
        "schema": SCHEMA,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine.description(),
        "loop": "open" if plan.rate else "closed",
        "plan": {
            "seconds": plan.seconds,
            "users": plan.users,
            "rate": plan.rate,
            "shape": plan.shape,
            "zipf": plan.zipf,
            "prompts": plan.prompts,
        },
        "figures": FIGURES,
        "outcomes": OUTCOMES,
        "operations": {**operations, ALL: _figures(list(records))},
        "ledger": None if ledger is None else ledger.document(),
    }


def _figures(records: list[Record]) -> dict[str, Any]:
    good = [record for record in records if record.is_as_meant]
    # One that was told to leave says nothing of how long an answer takes.
    whole = [record for record in good if record.outcome == "ok"] or good
    seconds = max((record.end for record in records), default=0.0) - min((record.start for record in records), default=0.0)
    errors = Counter(f"{record.outcome}: {record.error or record.status}" for record in records if not record.is_as_meant)
    return {
        "requests": len(records),
        "errors": len(records) - len(good),
        "error_share": (len(records) - len(good)) / len(records) if records else 0.0,
        "error_kinds": dict(errors.most_common(10)),
        "outcomes": dict(sorted(Counter(record.outcome for record in records).items())),
        "per_second": round(len(records) / seconds, 2) if seconds > 0 else 0.0,
        "resent": sum(record.resent for record in records),
        "bytes": sum(record.bytes for record in records),
        "tokens": sum(record.tokens for record in records),
        "latency_ms": spread(record.latency for record in whole),
        "service_ms": spread(record.service for record in whole),
        "first_token_ms": spread(found for record in good if (found := record.time_to_first_token) is not None),
        "gap_ms": spread(gap / 1000 for gap in chain.from_iterable(record.gaps_ms for record in good)),
    }


def table(document: Mapping[str, Any]) -> str:
    """For people."""
    head = ["operation", "requests", "errors", "1/s", "first token p50", "p95", "p99", "latency p50", "p95", "p99", "gap p50", "p99"]
    rows = []
    for name, figures in document["operations"].items():
        row = [name, str(figures["requests"]), str(figures["errors"]), f"{figures['per_second']:.1f}"]
        for kind, parts in (("first_token_ms", ("p50", "p95", "p99")), ("latency_ms", ("p50", "p95", "p99")), ("gap_ms", ("p50", "p99"))):
            row += [f"{figures[kind][part]:.2f}" if figures[kind] else "-" for part in parts]
        rows.append(row)
    text = report.grid(head, rows)
    text += f"\n{document['loop']} loop; times in ms, exact, from the raw records\n"
    ledger = document["ledger"]
    if ledger is not None:
        text += f"{ledger['requests']} requests, {ledger['records']} records of the gateway, {ledger['lost']} lost\n"
    if resent := document["operations"][ALL]["resent"]:
        text += f"{resent} sent again: the gateway had closed an idle connection\n"
    for kind, count in document["operations"][ALL]["error_kinds"].items():
        text += f"  {count} x {kind}\n"
    return text
