"""How a provider's key is taken out of what a client may read.

Where none is needed a word stands for the key (`EMPTY`, `lm-studio`), or anything at all (`x`, `123`), and texts have that for reasons of
their own. So a key of `LONG` characters or more is hidden wherever it stands, a shorter one where it stands alone, and one below `SHORT`
is no secret.
"""

from __future__ import annotations

import json
import re

LONG, SHORT = 16, 8

_STARS = "***"


def shows(text: str, secret: str) -> bool:
    """Whether `secret` is to be read in it, and is one."""
    if secret not in text or len(secret) < SHORT:
        return False
    return len(secret) >= LONG or _alone(secret).search(text) is not None


def without(text: str, secret: str) -> str:
    if not shows(text, secret):
        return text
    return text.replace(secret, _STARS) if len(secret) >= LONG else _alone(secret).sub(_STARS, text)


def spellings(secret: str) -> frozenset[str]:
    """`secret` as JSON may spell it."""
    escaped = json.dumps(secret)[1:-1]
    return frozenset((secret, escaped, escaped.replace("/", "\\/")))


def json_without(text: str, secret: str) -> str | None:
    """`text`, which is JSON; None if it would be no more."""
    found = _respelt(text, secret)
    return found if found is text or _is_json(found) else None


def event_without(event: bytes, secret: str) -> bytes:
    """An event with JSON as its data; nothing of one whose data would be none any more."""
    text = event.decode("utf-8", "surrogateescape")
    found = _respelt(text, secret)
    if found is text:
        return event
    data = "\n".join(line.removeprefix("data: ") for line in found.split("\n") if line.startswith("data: "))
    return found.encode("utf-8", "surrogateescape") if _is_json(data) else b""


def _respelt(text: str, secret: str) -> str:
    """`text` itself, if nothing of it is to be hidden."""
    if len(secret) < SHORT:
        return text
    for spelt in spellings(secret):
        if spelt in text:
            text = text.replace(spelt, _STARS) if len(secret) >= LONG else _alone(spelt).sub(_STARS, text)
    return text


def _alone(secret: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![A-Za-z0-9_-]){re.escape(secret)}(?![A-Za-z0-9_-])")


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
