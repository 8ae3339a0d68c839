"""What names may hold that are kept: logs, headers and terminals would take a control character for something else."""

from __future__ import annotations

import re

from proxy.core.errors import ClientError

_LONGEST_ID = 200

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def require_id(id: str) -> None:
    """Raises ClientError (400) for one that nobody could be told by."""
    if not id.strip() or len(id) > _LONGEST_ID:
        raise ClientError(f"id: wants 1 to {_LONGEST_ID} characters that are not all blanks.", param="id", code="invalid_value")


def require_plain(**names: str | None) -> None:
    """Raises ClientError (400) for one with a control character, with its keyword as the parameter."""
    for param, name in names.items():
        if name is not None and _CONTROL.search(name):
            raise ClientError(f"{param}: holds a control character.", param=param, code="invalid_value")
