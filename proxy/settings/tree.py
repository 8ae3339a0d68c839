"""The configuration before it is checked: values that remember where they were written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

#: Keys of mappings and indices of lists, from the top of the configuration.
Path: TypeAlias = tuple[str | int, ...]

DEFAULT = "default"
_FILE = "file:"
_BARE = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(slots=True)
class Node:
    """One value. `value` is a scalar, a `dict[str, Node]` or a `list[Node]`.

    `source` is `file:LINE`, `environment:NAME`, `flag:--NAME`, `discovered:WHAT` or `default`; the line of a mapping's entry is its key's.
    """

    value: Any
    source: str = DEFAULT

    @property
    def line(self) -> int | None:
        return line_of(self.source)

    def plain(self) -> Any:
        """The value without its sources, as a validator wants it."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def child(self, part: str | int) -> Node | None:
        if isinstance(self.value, dict) and isinstance(part, str):
            return self.value.get(part)
        if isinstance(self.value, list) and isinstance(part, int) and part < len(self.value):
            child: Node = self.value[part]
            return child
        return None

    def nearest(self, path: Path) -> tuple[Node, int]:
        """The deepest node on the way to `path`, and how many parts of `path` lead to it."""
        node = self
        for depth, part in enumerate(path):
            child = node.child(part)
            if child is None:
                return node, depth
            node = child
        return node, len(path)

    def leaves(self, path: Path = ()) -> Iterator[tuple[Path, Node]]:
        """Every scalar with its path."""
        if isinstance(self.value, dict):
            for key, node in self.value.items():
                yield from node.leaves((*path, key))
        elif isinstance(self.value, list):
            for index, node in enumerate(self.value):
                yield from node.leaves((*path, index))
        else:
            yield path, self

    def set(self, path: Path, node: Node) -> None:
        """Put `node` at `path` (keys only), making the mappings on the way; what was there is replaced."""
        here = self
        for part in path[:-1]:
            child = here.child(part)
            if child is None or not isinstance(child.value, dict):
                child = Node({}, node.source)
                here.value[part] = child
            here = child
        here.value[path[-1]] = node


def grown(value: Any) -> Node:
    """Plain mappings, lists and scalars as nodes, without sources."""
    if isinstance(value, dict):
        return Node({key: grown(item) for key, item in value.items()})
    if isinstance(value, list):
        return Node([grown(item) for item in value])
    return Node(value)


def line_of(source: str) -> int | None:
    """The line in the file, from 1; None for a value from elsewhere."""
    return int(source.removeprefix(_FILE)) if source.startswith(_FILE) else None


def dotted(path: Path) -> str:
    """`server.listen`, `models."gpt-4.1".provider`, `providers.spare.api_keys[0]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if _BARE.fullmatch(part) else '"' + part.encode("unicode_escape").decode().replace('"', '\\"') + '"'
            text += f".{name}" if text else name
    return text


def leaves_of(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every scalar of plain mappings and lists with its path; an empty mapping or list is one itself."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from leaves_of(item, (*path, key))
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from leaves_of(item, (*path, index))
    else:
        yield path, value
