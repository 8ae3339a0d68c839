"""What the documents say that can be checked: their links, their code, and the commands that they name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.gateway import ROOT

_FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_INLINE = re.compile(r"`([^`\n]+)`")
_HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """Fenced text. `line` is where it begins in its document."""

    path: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}"


def documents() -> list[Path]:
    top = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "config" / "README.md"]
    return [*top, *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(*languages: str, of: Path | None = None) -> list[Block]:
    """The fenced blocks in these languages, of one document or of all."""
    found = []
    for path in [of] if of else documents():
        text = path.read_text(encoding="utf-8")
        for match in _FENCE.finditer(text):
            if match["language"] in languages:
                found.append(Block(path, text.count("\n", 0, match.start()) + 2, match["language"], match["text"]))
    return found


def links(path: Path) -> list[str]:
    return [match["target"] for match in _LINK.finditer(prose(path))]


def prose(path: Path) -> str:
    """A document without its fenced blocks."""
    return _FENCE.sub("", path.read_text(encoding="utf-8"))


def anchors(path: Path) -> set[str]:
    """The names that headings get: lower case, blanks as dashes, without punctuation."""
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in _HEADING.findall(prose(path))}


def code_spans(path: Path) -> list[str]:
    return _INLINE.findall(prose(path))


def commands() -> Iterator[tuple[str, str]]:
    """Every line of shell that the documents show, with its place: in blocks, and in words."""
    for block in blocks("sh", ""):
        for line in block.text.replace("\\\n", " ").splitlines():
            yield str(block), line.split("#")[0].strip()
    for path in documents():
        for span in code_spans(path):
            yield str(path.relative_to(ROOT)), span.strip()
