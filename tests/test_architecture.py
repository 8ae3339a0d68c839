"""What the design forbids, looked for in the syntax tree of every source file.

A rule is a function from a parsed file to findings. `ALLOWED` names the exceptions, each with its reason; an exception that no
longer applies fails too, so that the list only holds what is true. Import order between packages is import-linter's work.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("comporta", "proxy", "providers", "policies", "bench", "loadtests")

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_PARAMETERS = 6

# (rule, file, symbol) -> why this one may stand.
ALLOWED: dict[tuple[str, str, str], str] = {
    (
        "imports_at_the_top",
        "proxy/storage/migrations/__init__.py",
        "upgrading",
    ): "Alembic takes long to import, and most starts need nothing of it",
    ("imports_at_the_top", "comporta/__init__.py", "__getattr__"): "pydantic takes as long as all the rest that a command's help needs",
    ("imports_at_the_top", "proxy/storage/database.py", "_postgresql"): "the driver takes a quarter of a second to import",
    ("imports_at_the_top", "proxy/app.py", "_supervised"): "one process has no use for it",
    ("imports_at_the_top", "proxy/app.py", "_run"): "what administrators may ask is a tenth of a start, and they seldom ask",
    ("imports_at_the_top", "proxy/app.py", "_run.desk"): "what administrators may ask is a tenth of a start, and they seldom ask",
    ("imports_at_the_top", "proxy/log.py", "_shown"): "with structlog come rich and pygments, and only lines for people need them",
    ("imports_at_the_top", "proxy/http/admin.py", "_exposition"): "prometheus_client brings a web server of its own",
    (
        "imports_at_the_top",
        "proxy/snapshot.py",
        "Snapshot._own",
    ): "needs what checks administrators' bodies, and only stored users have any",
    ("imports_at_the_top", "proxy/app.py", "Cabinet._opened"): "the database's libraries take longer to import than a start",
    ("imports_at_the_top", "proxy/gateway.py", "_keeping"): "the database's libraries take longer to import than a start",
    (
        "imports_at_the_top",
        "providers/sim/provider.py",
        "_server",
    ): "the simulated server is a twentieth of a start, and most gateways that have one never ask it",
    ("imports_at_the_top", "proxy/secrets.py", "installed_keyring"): "an optional dependency: servers mostly have no keyring",
    ("imports_at_the_top", "comporta/cli/records.py", "with_keeper"): "the database's libraries take longer to import than a start",
    ("imports_at_the_top", "proxy/vault.py", "_cipher"): "cryptography is slow to load, and only a credential store needs it",
    ("imports_at_the_top", "proxy/vault.py", "_decrypt"): "cryptography is slow to load, and only a credential store needs it",
    ("imports_at_the_top", "proxy/state/news.py", "news"): "redis-py is slow to load, and most gateways have no Redis",
    ("no_code_from_data", "comporta/cli/__init__.py", "importlib.import_module"): "names of a literal table beside it",
    ("few_parameters", "proxy/core/errors.py", "GatewayError.__init__"): "an error is its fields; all but the message go by name",
    ("few_parameters", "proxy/core/errors.py", "UpstreamError.__init__"): "an error is its fields; all but the message go by name",
    ("few_parameters", "proxy/transport/client.py", "ClientTransport.__init__"): "settings of one pool, all by name, most with a default",
    ("few_parameters", "proxy/transport/pool.py", "PooledTransport.__init__"): "settings of one pool, all by name, most with a default",
    ("providers_do_no_io", "providers/sim/transport.py", "asyncio"): "it stands in for the network, whose pace and faults it plays",
}


@dataclass(frozen=True)
class Source:
    """One parsed file; `path` is relative to the repository, with forward slashes."""

    path: str
    text: str

    @property
    def tree(self) -> ast.Module:
        return _parse(self.text)

    @property
    def room(self) -> str:
        return self.path.split("/", 1)[0]


@dataclass(frozen=True)
class Finding:
    """A breach: `symbol` is stable when lines move, `line` is for the person who looks."""

    symbol: str
    line: int
    message: str


Rule = Callable[[Source], Iterator[Finding]]
Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def _parse(text: str) -> ast.Module:
    return ast.parse(text)


def _functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, Function]]:
    """Every function with its qualified name, methods and inner functions included."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + node.name, node
            yield from _functions(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.ClassDef):
            yield from _functions(node, f"{prefix}{node.name}.")
        else:
            yield from _functions(node, prefix)


def _imported(node: ast.AST) -> list[str]:
    """Dotted names that an import statement brings in; for `from a import b` both `a` and `a.b`."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


def _imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        for name in _imported(node):
            yield name, getattr(node, "lineno", 0)


def _is_within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


# ------------------------------------------------------------------------------------------------------------------------ shape of code
def no_globals(source: Source) -> Iterator[Finding]:
    """State that a function rebinds belongs to an object that the composition root made."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Global):
            yield Finding(",".join(node.names), node.lineno, "global statement")


def imports_at_the_top(source: Source) -> Iterator[Finding]:
    """An import inside a function hides a dependency; only an optional one may."""
    for name, function in _functions(source.tree):
        for node in ast.walk(function):
            if isinstance(node, ast.Import | ast.ImportFrom):
                yield Finding(name, node.lineno, f"import inside the function {name}")


def short_functions(source: Source) -> Iterator[Finding]:
    for name, node in _functions(source.tree):
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        if length > MAX_FUNCTION_LINES:
            yield Finding(name, node.lineno, f"{name} has {length} lines, more than {MAX_FUNCTION_LINES}")


def short_files(source: Source) -> Iterator[Finding]:
    length = source.text.count("\n")
    if length > MAX_FILE_LINES:
        yield Finding("", 1, f"{length} lines, more than {MAX_FILE_LINES}")


def few_parameters(source: Source) -> Iterator[Finding]:
    for name, node in _functions(source.tree):
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        count = len([argument for argument in arguments if argument.arg not in ("self", "cls")])
        if count > MAX_PARAMETERS:
            yield Finding(name, node.lineno, f"{name} takes {count} parameters, more than {MAX_PARAMETERS}")


def nouns_for_names(source: Source) -> Iterator[Finding]:
    """A name that fits everything says nothing."""
    vague = {"util", "utils", "helper", "helpers", "common", "manager", "managers", "misc", "stuff"}
    for part in Path(source.path).with_suffix("").parts:
        if vague & set(part.lower().split("_")):
            yield Finding(part, 1, f"the name {part} says nothing")
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ClassDef) and node.name.endswith(("Manager", "Helper", "Helpers", "Util", "Utils")):
            yield Finding(node.name, node.lineno, f"the name {node.name} says nothing")


def nothing_happens_on_import(source: Source) -> Iterator[Finding]:
    """A bare call in a module's body is a side effect of importing it."""
    if source.path.endswith("/__main__.py"):
        return
    for node in source.tree.body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call | ast.Await):
            yield Finding(ast.unparse(node.value)[:40], node.lineno, "a call while importing")


# ----------------------------------------------------------------------------------------------------------------------------- security
FORBIDDEN_CALLS = {
    "eval": "runs text as code",
    "exec": "runs text as code",
    "compile": "turns text into code",
    "__import__": "imports by string",
    "importlib.import_module": "imports by string; plug-ins come through entry points",
    "pkgutil.resolve_name": "imports by string; plug-ins come through entry points",
    "yaml.load": "builds objects that the file names; use yaml.safe_load",
    "yaml.unsafe_load": "builds objects that the file names",
    "os.system": "runs a shell",
    "os.popen": "runs a shell",
}
FORBIDDEN_IMPORTS = {
    "pickle": "loading runs code",
    "marshal": "loading runs code",
    "shelve": "is pickle underneath",
    "dill": "loading runs code",
    "cloudpickle": "loading runs code",
    "runpy": "runs files by name",
    "contextvars": "what belongs to a request travels in its Call",
    "structlog.contextvars": "what belongs to a request travels in its Call",
}


def no_code_from_data(source: Source) -> Iterator[Finding]:
    """Text never becomes code, and a configuration string never chooses what is imported."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and (reason := FORBIDDEN_CALLS.get(ast.unparse(node.func))):
            yield Finding(ast.unparse(node.func), node.lineno, reason)
    for name, line in _imports(source.tree):
        for banned, reason in FORBIDDEN_IMPORTS.items():
            if _is_within(name, banned):
                yield Finding(name, line, f"imports {name}: {reason}")


# ----------------------------------------------------------------------------------------------------------------------------- the rooms
PROVIDER_NAMES = frozenset({"anthropic", "azure", "azure_openai", "deepseek", "huggingface", "ollama", "openai", "sim"})


def no_branch_on_a_provider(source: Source) -> Iterator[Finding]:
    """What differs between providers is behind their interface; elsewhere it is looked up in a table."""
    if source.room == "providers":
        return
    for node in ast.walk(source.tree):
        tested: list[ast.AST] = []
        if isinstance(node, ast.Compare):
            tested = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            tested = [node.value]
        for part in tested:
            for leaf in ast.walk(part):
                if isinstance(leaf, ast.Constant) and leaf.value in PROVIDER_NAMES:
                    yield Finding(str(leaf.value), leaf.lineno, f"compares with the provider name {leaf.value!r}")


def core_is_plain_python(source: Source) -> Iterator[Finding]:
    if not source.path.startswith("proxy/core/"):
        return
    for name, line in _imports(source.tree):
        if name.split(".")[0] not in sys.stdlib_module_names and not _is_within(name, "proxy.core"):
            yield Finding(name, line, f"proxy.core imports {name}")


def providers_do_no_io(source: Source) -> Iterator[Finding]:
    """Values in, values out: no session, no clock, no environment."""
    if source.room != "providers":
        return
    for name, line in _imports(source.tree):
        if _is_within(name, "aiohttp", "asyncio", "httptools", "os", "socket", "ssl", "time", "urllib.request", "uvloop"):
            yield Finding(name, line, f"a provider imports {name}")


def one_room_knows_the_server(source: Source) -> Iterator[Finding]:
    if source.path.startswith("proxy/http/") or source.room in ("bench", "loadtests"):
        return
    for name, line in _imports(source.tree):
        if name.startswith("aiohttp.web"):
            yield Finding(name, line, "imports aiohttp.web outside proxy/http")


COMPOSING = tuple(
    f"proxy/{name}.py"
    for name in (
        "administration",
        "app",
        "catalogue",
        "configuration",
        "gateway",
        "health",
        "keeping",
        "reload",
        "snapshot",
        "standing",
        "supervisor",
        "worker",
    )
)


def settings_are_handed_down(source: Source) -> Iterator[Finding]:
    """Only what puts the parts together sees the whole file; a part is given its own section."""
    if source.room == "comporta" or source.path.startswith(("proxy/settings/", *COMPOSING)):
        return
    for name, line in _imports(source.tree):
        if _is_within(name, "proxy.settings"):
            yield Finding(name, line, "imports proxy.settings")


def tools_stay_outside(source: Source) -> Iterator[Finding]:
    """What is shipped knows nothing of what tests and measures it."""
    tools = ("tests",) if source.room in ("bench", "loadtests") else ("tests", "bench", "loadtests")
    for name, line in _imports(source.tree):
        if _is_within(name, *tools):
            yield Finding(name, line, f"imports {name}")


RULES: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (
        no_globals,
        imports_at_the_top,
        short_functions,
        short_files,
        few_parameters,
        nouns_for_names,
        nothing_happens_on_import,
        no_code_from_data,
        no_branch_on_a_provider,
        core_is_plain_python,
        providers_do_no_io,
        one_room_knows_the_server,
        settings_are_handed_down,
        tools_stay_outside,
    )
}

# For each rule a file that breaks it, so that a rule that has stopped seeing anything is noticed.
BREACHES: dict[str, tuple[str, str]] = {
    "no_globals": ("proxy/app.py", "n = 0\ndef f():\n    global n\n    n = 1\n"),
    "imports_at_the_top": ("proxy/app.py", "class A:\n    async def f(self):\n        from json import loads\n"),
    "short_functions": ("proxy/app.py", "def f():\n" + "    x = 1\n" * MAX_FUNCTION_LINES),
    "short_files": ("proxy/app.py", "x = 1\n" * (MAX_FILE_LINES + 1)),
    "few_parameters": ("proxy/app.py", "class A:\n    def f(self, a, b, c, *, d, e, f, g): ...\n"),
    "nouns_for_names": ("proxy/http_utils.py", ""),
    "nothing_happens_on_import": ("proxy/app.py", "import logging\nlogging.basicConfig()\n"),
    "no_code_from_data": ("proxy/app.py", "import importlib\nx = importlib.import_module('a')\n"),
    "no_branch_on_a_provider": ("policies/retry.py", "def f(name):\n    return name in ('openai', 'x')\n"),
    "core_is_plain_python": ("proxy/core/call.py", "from aiohttp import web\n"),
    "providers_do_no_io": ("providers/openai.py", "from os import environ\n"),
    "one_room_knows_the_server": ("proxy/transport.py", "from aiohttp import web\n"),
    "settings_are_handed_down": ("policies/retry.py", "from proxy import settings\n"),
    "tools_stay_outside": ("proxy/app.py", "import tests.e2e\n"),
}


@cache
def _sources() -> list[Source]:
    files = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return [Source(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) for path in files]


@cache
def _findings(name: str) -> list[tuple[str, Finding]]:
    """What a rule finds, each with the path of its file."""
    return [(source.path, finding) for source in _sources() for finding in RULES[name](source)]


@pytest.mark.parametrize("name", RULES)
def test_the_source_keeps_the_rule(name: str) -> None:
    breaches = [
        f"{path}:{finding.line}: {finding.message}" for path, finding in _findings(name) if (name, path, finding.symbol) not in ALLOWED
    ]
    assert not breaches, "\n".join(breaches)


@pytest.mark.parametrize("name", RULES)
def test_each_rule_sees_a_breach(name: str) -> None:
    assert list(RULES[name](Source(*BREACHES[name])))


def test_every_exception_still_applies_and_says_why() -> None:
    found = {(name, path, finding.symbol) for name in RULES for path, finding in _findings(name)}
    assert not set(ALLOWED) - found, "no longer needed"
    assert all(reason.strip() for reason in ALLOWED.values())


def test_the_server_package_holds_nothing_but_its_version() -> None:
    body = ast.parse((ROOT / "proxy" / "__init__.py").read_text(encoding="utf-8")).body
    code = [node for node in body if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))]
    assert [ast.unparse(target) for node in code if isinstance(node, ast.Assign) for target in node.targets] == ["__version__"]
    assert len(code) == 1


def test_every_room_has_its_place_in_the_order() -> None:
    """A new module of the server is put into the layers, or the order says nothing about it."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["id"] == "layers")
    placed = {name.strip(" ()") for layer in layers for name in layer.replace(":", "|").split("|")}
    modules = {f"proxy.{path.stem}" for path in (ROOT / "proxy").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert modules - {"proxy.__init__"} <= placed


@pytest.mark.parametrize("room", ["policies", "providers"])
def test_every_policy_and_provider_has_tests_of_its_name(room: str) -> None:
    """`tests/<room>/test_<name>.py`, or a folder `tests/<room>/<name>/` for one that is a folder itself."""
    modules = {path.stem for path in (ROOT / room).iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()} - {"__init__"}
    mirror = ROOT / "tests" / room
    assert [name for name in sorted(modules) if not (mirror / f"test_{name}.py").exists() and not (mirror / name).is_dir()] == []
