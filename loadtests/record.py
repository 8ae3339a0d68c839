"""One line for each request: what the client saw of it. Everything else is computed from these lines."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import IO, Any

#: What can become of a request, as its client sees it.
OUTCOMES = {
    "ok": "200 and everything to the end: for a stream, `[DONE]` and nothing after it",
    "refused": "4xx with an error object",
    "failed": "5xx with an error object",
    "broken": "200, then an error event instead of `[DONE]`",
    "cancelled": "the client left, as it was meant to",
    "gave_up": "the client's patience ended",
    "lost": "no answer, or one that breaks the protocol: a connection that ended, an answer that is not what it says it is",
}


@dataclass(slots=True)
class Record:
    """One request. Times are seconds since the epoch, on one monotonic clock for each process.

    start        when it was meant to be sent: in an open loop this is the schedule's time, else that of `sent`
    first_token  the first delta that has content, not the head and not the role; of streams only
    end          the last byte, or when the client left
    meant        the outcomes that were to be had; any other is an error
    resent       how often it was sent again, because the gateway had closed the idle connection that it was sent on
    gaps_ms      between one delta with content and the next
    """

    operation: str
    start: float
    sent: float
    meant: list[str]
    prompt: int | None = None
    stream: bool = False
    first_token: float | None = None
    end: float = 0.0
    status: int = 0
    bytes: int = 0
    tokens: int = 0
    resent: int = 0
    outcome: str = "lost"
    id: str | None = None
    error: str | None = None
    gaps_ms: list[float] = field(default_factory=list)

    @property
    def is_as_meant(self) -> bool:
        return self.outcome in self.meant

    @property
    def latency(self) -> float:
        """Seconds from the intended start to the end: queueing in front of the gateway counts."""
        return self.end - self.start

    @property
    def service(self) -> float:
        """Seconds from the sending to the end."""
        return self.end - self.sent

    @property
    def time_to_first_token(self) -> float | None:
        """Seconds from the intended start."""
        return None if self.first_token is None else self.first_token - self.start

    def encode(self) -> str:
        """One line of JSON, with its newline."""
        fields: dict[str, Any] = {name: value for name, value in asdict(self).items() if value not in (None, [])}
        for name in ("start", "sent", "first_token", "end"):
            if name in fields:
                fields[name] = round(fields[name], 6)
        return json.dumps(fields, separators=(",", ":")) + "\n"

    @staticmethod
    def decode(line: str) -> Record:
        """What `encode` made."""
        return Record(**{"meant": [], **json.loads(line)})


@cache
def sink(folder: str) -> IO[str]:
    """This process's own file of records. Each line is written when it is complete, so a process that is ended loses none."""
    return (Path(folder) / f"records-{os.getpid()}.jsonl").open("w", buffering=1, encoding="utf-8")


def read(folder: Path) -> list[Record]:
    """The records of all processes that wrote to a folder, by their intended start."""
    return sorted(_lines(sorted(folder.glob("records-*.jsonl"))), key=lambda record: record.start)


def _lines(paths: Iterable[Path]) -> Iterable[Record]:
    for path in paths:
        with path.open(encoding="utf-8") as lines:
            yield from map(Record.decode, lines)
