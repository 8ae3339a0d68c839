"""What is wrong with a configuration, told so that it can be put right: file, line, path, what was expected, and the nearest valid name.

No message repeats a value that may be a secret: only pydantic's error type, the path and the fields' own words go into it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from proxy.core.names import nearest
from proxy.fields import Section, model_at
from proxy.settings.tree import Node, Path, dotted

#: How `proxy.fields.SecretRef` begins when it refuses what is no reference.
_NO_REFERENCE = "a secret is written as a reference"

#: How the keys of well-known providers look; what stands within a word (`task_types`) is none.
KEY = re.compile(r"(?<![A-Za-z])(?:Bearer\s+)?(?:sk-|sk_|gsk_|xai-|hf_|r8_|pplx-|AIza|AKIA|ghp_|glpat-|nvapi-)[A-Za-z0-9_\-.]{16,}")

_WANTED = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "a mapping, such as {key: value}",
    "float_parsing": "a number",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "list_type": "a list, such as [one, two]",
    "tuple_type": "a list, such as [one, two]",
    "model_type": "a mapping, such as {key: value}",
    "string_type": "text, in quotes",
}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, or, as a warning, doubtful. `file` is the file, or says where else the value came from."""

    file: str
    line: int | None
    path: str
    message: str
    hint: str | None = None

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        text = f"{place}: {self.path}: {self.message}" if self.path else f"{place}: {self.message}"
        return f"{text}; {self.hint}" if self.hint else text


class SettingsError(Exception):
    """The configuration cannot be used. `problems` has all that is known to be wrong, in the order of the file."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = sorted(problems, key=lambda problem: problem.line or 0)
        super().__init__("\n".join(map(str, self.problems)))


@dataclass
class Findings:
    """Collects problems and warnings while the configuration is read, and finds the place of each."""

    file: str
    tree: Node
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    def problem(self, path: Path, message: str, hint: str | None = None) -> None:
        """Add a problem, unless there is one of this place: the first says what is wrong, further ones follow from it."""
        if not self._has_problem_at(path):
            self.problems.append(self._at(path, message, hint))

    def warning(self, path: Path, message: str, hint: str | None = None) -> None:
        self.warnings.append(self._at(path, message, hint))

    def _at(self, path: Path, message: str, hint: str | None) -> Problem:
        node, _ = self.tree.nearest(path)
        # Names are repeated in messages, and a key may have been written where a name belongs.
        shown = [KEY.sub("[a key]", text) for text in (dotted(path), message, hint or "")]
        return Problem(place(self.file, node.source), node.line, shown[0], shown[1], shown[2] or None)

    def _has_problem_at(self, path: Path) -> bool:
        name = KEY.sub("[a key]", dotted(path))
        return any(problem.path == name for problem in self.problems)


_HIDDEN = (
    (KEY, "[a key]"),
    (re.compile(r"(\bapi_keys[\"']?[ \t]*:)[ \t]*(\[[^\]]*\]|(?:\n[ \t]*-[^\n]*)+)"), r"\1 [keys]"),
    (re.compile(r"(\b(?:api_key|admin_key|pepper|key)[\"']?\s*:\s*)(?![\"']?(?:env|file|keyring|store):)[^\s{\[][^\n,}]*"), r"\1[a key]"),
    (re.compile(r"(://[^/\s:@]*:)[^/\s@]+@"), r"\1[a password]@"),
)


def masked(text: str) -> str:
    """A configuration's text that was not accepted, without what must not be in one: keys, and passwords in addresses."""
    for pattern, shown in _HIDDEN:
        text = pattern.sub(shown, text)
    return text


def place(file: str, source: str) -> str:
    """Where a value came from, for people: the file, or which variable or flag."""
    origin, _, name = source.partition(":")
    if origin == "environment" or (origin == "discovered" and name.isupper()):
        return f"environment variable {name}"
    return f"flag {name}" if origin == "flag" else file


def explain(error: ValidationError, model: type[Section], path: Path, findings: Findings) -> None:
    """Add pydantic's errors about the section at `path` as problems.

    A union reports each of its branches: of one place the first one stays, and none where something is wrong further in.
    """
    details = error.errors(include_url=False, include_input=False)
    places = [_location(detail, findings.tree, path) for detail in details]
    for detail, inner in zip(details, places, strict=True):
        if any(len(other) > len(inner) and other[: len(inner)] == inner for other in places):
            continue
        message, hint = _words(detail, model, inner)
        if message.startswith(_NO_REFERENCE):
            message, hint = "a key is never written itself, only where to find it", _instead((*path, *inner))
        findings.problem((*path, *inner), message, hint)


def _location(detail: ErrorDetails, tree: Node, path: Path) -> Path:
    """The error's place as the file has it: pydantic also names the branches of a union, which are no keys."""
    node, depth = tree.nearest(path)
    found: list[str | int] = []
    if not detail["loc"]:
        return ()
    *parents, last = detail["loc"]
    for part in parents:
        child = node.child(part) if depth == len(path) else None
        if child is not None:
            node = child
            found.append(part)
    if detail["type"] in ("missing", "extra_forbidden") or node.child(last) is not None:
        found.append(last)
    return tuple(found)


def _words(detail: ErrorDetails, model: type[Section], inner: Path) -> tuple[str, str | None]:
    kind = detail["type"]
    if kind == "extra_forbidden":
        section = model_at(model, inner[:-1]) or model
        return "unknown key", nearest(str(inner[-1]), section.model_fields)
    described = _description(model, inner)
    if kind == "missing":
        return "is missing", described
    if kind in _WANTED:
        return f"wants {_WANTED[kind]}", described
    if kind == "literal_error":
        return f"wants {detail['ctx']['expected']}", described
    message = detail["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return message[:1].lower() + message[1:], described


def _description(model: type[Section], inner: Path) -> str | None:
    section = model_at(model, inner[:-1])
    found = section.model_fields.get(str(inner[-1])) if section and inner else None
    return f"it is: {found.description}" if found and found.description else None


def _instead(path: Path) -> str:
    """The line to write in place of a key itself; the variable's name follows the section's."""
    owner, field_name = [str(part) for part in path if isinstance(part, str)][-2:]
    variable = re.sub(r"[^A-Z0-9]+", "_", owner.upper()).strip("_") or "PROVIDER"
    reference = f'"env:{variable}_API_KEY"'
    return f"write instead: {field_name}: " + (f"[{reference}]" if isinstance(path[-1], int) else reference)
