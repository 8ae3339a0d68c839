"""How many tokens a prompt has, about, where nobody has counted them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

#: Bytes of text to a token, about.
BYTES_PER_TOKEN = 4

#: Members of a body that are a prompt, and those inside that hold no text.
PROMPT = ("messages", "input", "prompt", "instructions", "tools")
_NO_TEXT = frozenset({"image_url", "input_audio", "file", "file_data", "data"})

#: Members that are a schema: its properties may be called like what holds no text.
_SCHEMAS = frozenset({"parameters", "schema"})


def estimated_tokens(body: Mapping[str, Any]) -> int:
    """Tokens of a prompt at four bytes each; images, sound and files are left out, since their bytes say nothing of their tokens."""
    return tokens_of(body.get(name) for name in PROMPT)


def tokens_of(values: Iterable[Any]) -> int:
    """The same of whatever has text in it."""
    pending: list[Any] = list(values)
    size = 0
    while pending:
        value = pending.pop()
        if isinstance(value, str):
            size += len(value.encode("utf-8", "replace"))
        elif isinstance(value, dict):
            pending += [inner for name, inner in value.items() if name not in _NO_TEXT]
        elif isinstance(value, list):
            if value and isinstance(value[0], int):
                size += BYTES_PER_TOKEN * len(value)  # prompts may be tokens
            else:
                pending += value
        elif isinstance(value, int):
            size += BYTES_PER_TOKEN  # prompts of the legacy completions may be tokens
    return (size + BYTES_PER_TOKEN - 1) // BYTES_PER_TOKEN


def wordless_bytes(body: Mapping[str, Any]) -> int:
    """Bytes of the images, sound and files that a body holds, as they stand in it."""
    pending: list[Any] = [body]
    media: list[Any] = []
    size = 0
    while pending or media:
        is_media = not pending
        value = (pending or media).pop()
        if isinstance(value, dict):
            for name, inner in value.items():
                if name not in _SCHEMAS:
                    (media if is_media or name in _NO_TEXT else pending).append(inner)
        elif isinstance(value, list):
            if value and not isinstance(value[0], int):  # prompts may be tokens
                (media if is_media else pending).extend(value)
        elif is_media and isinstance(value, str):
            size += len(value)
    return size
