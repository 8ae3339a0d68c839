"""What one event of a chat stream says, as far as a load test wants to know."""

from __future__ import annotations

from typing import Literal

import orjson

Kind = Literal["content", "done", "error", "other"]


def kind_of(event: bytes) -> Kind:
    """The kind of one event, its blank line included. Comments, the role, the finish reason and the usage are `other`.

    Raises ValueError for data that is no JSON object.
    """
    data = b"".join(line[5:].strip() for line in event.splitlines() if line.startswith(b"data:"))
    if not data:
        return "other"
    if data == b"[DONE]":
        return "done"
    value = orjson.loads(data)
    if not isinstance(value, dict):
        raise ValueError(f"an event is {data[:80]!r}")
    if value.get("error"):
        return "error"
    choices = value.get("choices") or [{}]
    return "content" if (choices[0].get("delta") or {}).get("content") else "other"
