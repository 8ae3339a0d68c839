"""Whether what clients saw and what the gateway wrote down are the same requests."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from loadtests.record import Record

#: What the client saw -> what the gateway may have written. A client that leaves may find that the gateway had just finished.
_AGREES = {
    "ok": {"ok"},
    "refused": {"client_error"},
    "failed": {"upstream_error", "gateway_error"},
    "broken": {"upstream_error", "gateway_error"},
    "cancelled": {"cancelled", "ok", "upstream_error"},
    "gave_up": {"cancelled", "upstream_error"},
    "lost": {"cancelled", "upstream_error", "gateway_error"},
}
_MOST_TOLD = 20


@dataclass(slots=True)
class Ledger:
    """Clients' requests against the gateway's records.

    missing      requests that got an id, of which there is no record
    unclaimed    records that belong to no request with an id
    nameless     requests that got no answer's head, and so no id; each may or may not have reached the gateway
    twice        ids with two records
    differing    both tell of the request, but not the same
    """

    requests: int = 0
    records: int = 0
    pairs: dict[str, int] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    unclaimed: int = 0
    unclaimed_outcomes: dict[str, int] = field(default_factory=dict)
    nameless: int = 0

    @property
    def lost(self) -> int:
        """Requests without a record, and records without a request. One that left before it was read has neither, and is not lost."""
        odd = sum(count for outcome, count in self.unclaimed_outcomes.items() if outcome not in _AGREES["cancelled"])
        return len(self.missing) + len(self.twice) + max(odd, self.unclaimed - self.nameless)

    @property
    def is_balanced(self) -> bool:
        return not self.lost and not self.differing

    def document(self) -> dict[str, Any]:
        """For JSON; of long lists the beginning."""
        found = asdict(self) | {"lost": self.lost}
        return {name: value[:_MOST_TOLD] if isinstance(value, list) else value for name, value in found.items()}


def gateway_records(log: Path) -> list[dict[str, Any]]:
    """The request lines of a gateway's log."""
    found = []
    with log.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            value = _object(line)
            if value.get("event") == "request":
                found.append(value)
    return found


def reconcile(requests: Iterable[Record], records: Iterable[dict[str, Any]]) -> Ledger:
    """Match by id; what has none can only be counted."""
    ledger = Ledger()
    by_id: dict[str, str] = {}
    for line in records:
        ledger.records += 1
        if line["id"] in by_id:
            ledger.twice.append(line["id"])
        by_id[line["id"]] = line["outcome"]
    pairs: Counter[str] = Counter()
    for request in requests:
        ledger.requests += 1
        if request.id is None:
            ledger.nameless += 1
            continue
        outcome = by_id.pop(request.id, None)
        if outcome is None:
            ledger.missing.append(request.id)
            continue
        pairs[f"{request.outcome} = {outcome}"] += 1
        if outcome not in _AGREES[request.outcome]:
            ledger.differing.append(f"{request.id}: {request.operation} was {request.outcome} ({request.error}), its record says {outcome}")
    ledger.pairs = dict(sorted(pairs.items()))
    ledger.unclaimed = len(by_id)
    ledger.unclaimed_outcomes = dict(Counter(by_id.values()))
    return ledger


def _object(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
