"""Records and summaries as runs make them, for what reads them."""

from __future__ import annotations

from loadtests import summary
from loadtests.ledger import Ledger
from loadtests.plan import Plan
from loadtests.record import Record


def request(number=0, *, operation="streaming", outcome="ok", seconds=0.1, first=0.02, wait=0.0, **changed):
    """One request that took `seconds`, `wait` of them before it was sent."""
    start = 1000.0 + number
    fields = {"meant": ["ok"], "status": 200, "id": f"req_{number}", "stream": True, "first_token": start + first} | changed
    return Record(operation=operation, start=start, sent=start + wait, end=start + seconds, outcome=outcome, **fields)


def line(number=0, outcome="ok"):
    """The gateway's record of that request."""
    return {"event": "request", "id": f"req_{number}", "outcome": outcome}


def document(records, ledger=None):
    """The summary of these requests."""
    return summary.summarise(records, Plan(), Ledger() if ledger is None else ledger)
