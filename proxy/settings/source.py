"""Where values come from: a YAML file, the environment, the command's flags. Each becomes nodes that remember it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, TypeAlias

import yaml
from yaml.nodes import MappingNode, ScalarNode, SequenceNode

from proxy.core.names import nearest
from proxy.settings.messages import Findings, Problem, SettingsError, place
from proxy.settings.model import SECTIONS
from proxy.settings.tree import DEFAULT, Node, Path, dotted

PREFIX = "COMPORTA_"
#: Names the file; not a value in it.
CONFIG_VARIABLE = "COMPORTA_CONFIG"
#: Flags that set a value, and which.
FLAGS: dict[str, Path] = {"--listen": ("server", "listen"), "--admin-listen": ("server", "admin_listen")}

#: Variables with names of their own: each sets a value.
LLM_VARIABLES: dict[str, Path] = {
    "LLM_DEFAULT_MODEL": ("llm", "default_model"),
    "LLM_FALLBACK_MODEL": ("llm", "fallback_model"),
    "LLM_DEFAULT_TIMEOUT": ("llm", "timeout"),
    "LLM_MAX_RETRIES": ("llm", "max_retries"),
}
#: The same for whole mappings, as JSON objects.
LLM_OBJECTS: dict[str, Path] = {
    "LLM_TASK_TYPE_CONFIGS": ("llm", "task_types"),
    "LLM_MODEL_PARAMS": ("llm", "model_params"),
}

#: What changes with a file, also where a link is turned to another one: its inode, time and size. None while it is not there.
Mark: TypeAlias = tuple[int, int, int] | None

_MAX_FILE = 4 * 2**20
_MAX_NODES = 200_000
_MERGE = "tag:yaml.org,2002:merge"
_TEXT = ("str", "timestamp", "value")
# What Kubernetes puts into the environment of every pod beside a service called `comporta`.
_SERVICE_LINK = re.compile(r"COMPORTA(_\w+)?_(SERVICE_(HOST|PORT)(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)")


def mark_of(path: FilePath) -> Mark:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def read_file(path: FilePath) -> Node:
    """The file as nodes. Raises SettingsError for one that cannot be read or is not YAML."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE + 1)  # what a device or a pipe holds has no size before
        if len(data) > _MAX_FILE:
            raise SettingsError([Problem(str(path), None, "", f"is larger than {_MAX_FILE >> 20} MiB, which no configuration is")])
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise SettingsError([Problem(str(path), None, "", f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise SettingsError([Problem(str(path), line, "", "is not UTF-8 text")]) from None
    root = parse(text, str(path), lambda line: f"file:{line}")
    if root.value is None:
        return Node({})
    if not isinstance(root.value, dict):
        known = ", ".join(SECTIONS)
        raise SettingsError([Problem(str(path), root.line, "", f"wants a mapping at its top level, with keys out of: {known}")])
    return root


def read_sections(path: FilePath, names: Sequence[str]) -> Node:
    """Some sections of the file, also of one that is no YAML elsewhere. Raises SettingsError for one that cannot be read."""
    try:
        root = read_file(path)
    except SettingsError:
        text = path.read_text(encoding="utf-8-sig", errors="replace") if path.is_file() else ""
        found = re.findall(rf"^(?:{'|'.join(names)})[ \t]*:.*(?:\n(?:[ \t#].*)?)*", text, re.MULTILINE)
        if not found:
            raise
        root = parse("\n".join(found), str(path), lambda _line: DEFAULT)
    return Node({name: node for name, node in root.value.items() if name in names and node.value is not None}, root.source)


def parse(text: str, file: str, source: Callable[[int], str]) -> Node:
    """YAML text as nodes; `source` names a line's source. Safe types only, nothing is expanded, a key stands once. Raises SettingsError."""
    try:
        loader = yaml.SafeLoader(text)
        document = loader.get_single_node()
        reading = _Reading(loader, file, source)
        root = Node(None) if document is None else reading.node(document, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = ", ".join(part for part in (error.context, error.problem) if part)
        raise SettingsError([Problem(file, mark.line + 1 if mark else None, "", f"is not YAML: {said}")]) from None
    except yaml.YAMLError as error:
        position = getattr(error, "position", None)
        line = text[:position].count("\n") + 1 if isinstance(position, int) else None
        raise SettingsError([Problem(file, line, "", "is not YAML: holds a control character")]) from None
    except RecursionError:
        raise SettingsError([Problem(file, None, "", "is nested too deep")]) from None
    if reading.problems:
        raise SettingsError(reading.problems)
    return root


@dataclass
class _Reading:
    """Turns YAML's own nodes into ours. Keys are taken as they are written, so that `on` or `4.1` stay the names that they look like."""

    loader: yaml.SafeLoader
    file: str
    source: Callable[[int], str]
    problems: list[Problem] = field(default_factory=list)
    count: int = 0

    def node(self, written: yaml.Node, path: Path, line: int | None = None) -> Node:
        # Aliases make a graph of few nodes into a tree of many.
        self.count += 1
        if self.count > _MAX_NODES:
            raise SettingsError([Problem(self.file, _line(written), dotted(path), "its aliases expand into too many values")])
        source = self.source(line or _line(written))
        if isinstance(written, MappingNode):
            return Node(self._mapping(written, path), source)
        if isinstance(written, SequenceNode):
            return Node([self.node(item, (*path, index)) for index, item in enumerate(written.value)], source)
        return Node(self._scalar(written, path), source)

    def _mapping(self, written: MappingNode, path: Path) -> dict[str, Node]:
        merged: dict[str, Node] = {}
        own: dict[str, Node] = {}
        lines: dict[str, int] = {}
        for key, value in written.value:
            if key.tag == _MERGE:
                merged = {**self._merged(value, path), **merged}
            elif not isinstance(key, ScalarNode):
                self._problem(key, path, "wants plain names as keys")
            elif key.value in own:
                self._problem(key, (*path, key.value), f"is written twice; the first is on line {lines[key.value]}")
            else:
                lines[key.value] = _line(key)
                own[key.value] = self.node(value, (*path, key.value), _line(key))
        return {**merged, **own}

    def _merged(self, written: yaml.Node, path: Path) -> dict[str, Node]:
        """What `<<: *alias` or `<<: [*one, *two]` brings in; the first one that has a key wins."""
        sources: Iterable[yaml.Node] = written.value if isinstance(written, SequenceNode) else (written,)
        merged: dict[str, Node] = {}
        for one in sources:
            if isinstance(one, MappingNode):
                value = self.node(one, path).value
                merged = {**value, **merged}
            else:
                self._problem(one, path, "<< wants an alias of a mapping, such as <<: *name")
        return merged

    def _scalar(self, written: yaml.Node, path: Path) -> Any:
        kind = written.tag.removeprefix("tag:yaml.org,2002:")
        text = str(written.value)
        # YAML 1.1 would read 1:30 as ninety, and a date as an object.
        if kind in _TEXT or (kind in ("int", "float") and ":" in text):
            return text
        if kind in ("null", "bool", "int", "float"):
            try:
                return self.loader.construct_object(written)
            except ValueError:
                return text
        self._problem(written, path, f"the tag {written.tag} is not for configuration; write plain values")
        return None

    def _problem(self, written: yaml.Node, path: Path, message: str) -> None:
        self.problems.append(Problem(self.file, _line(written), dotted(path), message))


def _line(written: yaml.Node) -> int:
    return int(written.start_mark.line) + 1


# ------------------------------------------------------------------------------------------------------------------------- environment
def overlay_environment(tree: Node, environ: Mapping[str, str], findings: Findings) -> None:
    """Put `COMPORTA_SERVER__LISTEN=...` over `server.listen`, and so on; `__` goes one level down. Empty variables count as unset.

    The variables of `LLM_VARIABLES` and `LLM_OBJECTS` are put over the file too, below `COMPORTA_LLM__*`. Values are text; one that begins
    with `{` or `[` is read as YAML. Names of yours (of providers, models) are found whatever their case, with `_` for every other sign.
    """
    _overlay_llm(tree, environ, findings)
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name == CONFIG_VARIABLE or not environ[name] or _SERVICE_LINK.fullmatch(name):
            continue
        parts = name.removeprefix(PREFIX).lower().split("__")
        if parts[0] not in SECTIONS or "" in parts:
            findings.warning((), f"environment variable {name} sets nothing", _variable_hint(parts))
            continue
        path = _matched(tree, parts)
        try:
            value = _from_text(environ[name], name)
        except SettingsError as error:
            findings.problems.extend(error.problems)
            continue
        _put(tree, path, value, findings)


def _put(tree: Node, path: Path, node: Node, findings: Findings) -> None:
    """Put `node` at `path`. What was written where a mapping belongs, and is none, is a problem, and stays."""
    there, depth = tree.nearest(path[:-1])
    if isinstance(there.value, dict) or there.value is None or _stands_for_mapping(path[:depth], there.value):
        tree.set(path, node)
    else:
        findings.problem(path[:depth], "is no mapping", f"{place(findings.file, node.source)} sets something in it")


def _stands_for_mapping(path: Path, value: Any) -> bool:
    """Whether it is right where it stands: a policy that is on or off, a model's provider."""
    kind = path[0] if len(path) == 2 else None
    return (kind == "models" and isinstance(value, str)) or (kind == "policies" and str(value).lower() in ("true", "false"))


def _overlay_llm(tree: Node, environ: Mapping[str, str], findings: Findings) -> None:
    """Values by their own names. Of a JSON object each inner value is put over the file's, whose others stay."""
    for name, path in LLM_VARIABLES.items():
        if environ.get(name):
            _put(tree, path, Node(environ[name], f"environment:{name}"), findings)
    for name, path in LLM_OBJECTS.items():
        if not environ.get(name):
            continue
        try:
            value = _from_text(environ[name], name)
        except SettingsError as error:
            findings.problems.extend(error.problems)
            continue
        entries = value.value if isinstance(value.value, dict) else {"": value}
        if not all(isinstance(entry.value, dict) for entry in entries.values()):
            shown = f"environment variable {name}"
            findings.problems.append(Problem(shown, None, dotted(path), 'wants a JSON object of objects, such as {"NAME": {"key": 1}}'))
            continue
        for entry, fields in entries.items():
            for field_name, node in fields.value.items():
                _put(tree, (*path, entry, field_name), node, findings)


def _variable_hint(parts: list[str]) -> str:
    inner = {"_".join(("server", *parts)).replace("server_server", "server"): "", "_".join(parts): ""}
    for path in FLAGS.values():
        if "_".join(str(part) for part in path) in inner:
            return f"did you mean {PREFIX}{'__'.join(str(part) for part in path).upper()}?"
    return nearest(parts[0], SECTIONS)


def _matched(tree: Node, parts: list[str]) -> Path:
    """The path that a variable's parts name: a key that is there and reads the same, else the part itself."""
    path: list[str] = []
    node: Node | None = tree
    for part in parts:
        keys = node.value if node is not None and isinstance(node.value, dict) else {}
        key = next((key for key in keys if re.sub(r"[^a-z0-9]", "_", key.lower()) == part), part)
        node = keys.get(key)
        path.append(key)
    return tuple(path)


def _from_text(text: str, name: str) -> Node:
    source = f"environment:{name}"
    if text.lstrip()[:1] in ("{", "["):
        return parse(text, f"environment variable {name}", lambda _line: source)
    return Node(text, source)


# ------------------------------------------------------------------------------------------------------------------------------- flags
def overlay_flags(tree: Node, flags: Mapping[str, Any], findings: Findings) -> None:
    """Put what the command line says over everything else. `flags` has the names with their dashes; None is a flag that was not given."""
    for flag, value in flags.items():
        if value is not None:
            _put(tree, FLAGS[flag], Node(value, f"flag:{flag}"), findings)
