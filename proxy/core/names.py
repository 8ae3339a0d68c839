"""Names that somebody has misspelt."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """The name that was probably meant, and all that there are."""
    names = list(known)
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.6)
    listed = "known here: " + ", ".join(names) if names else "there are none"
    return f"did you mean {close[0]!r}? {listed}" if close else listed
