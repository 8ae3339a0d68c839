"""From a file, the environment and flags to settings that can be relied on, or to everything that is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError

from proxy.core.names import nearest
from proxy.fields import Section
from proxy.secrets import SecretError, resolve
from proxy.settings import checks, kinds
from proxy.settings.credentials import CredentialSettings
from proxy.settings.discovery import Probe, accepts_connection, discover
from proxy.settings.health import HealthSettings
from proxy.settings.kinds import Kinds
from proxy.settings.llm import LlmSettings
from proxy.settings.messages import Findings, Problem, SettingsError, explain, place
from proxy.settings.model import SECTIONS, SIMULATED, ServerSettings, Settings
from proxy.settings.models import Entry, ModelEntry, ModelTargets
from proxy.settings.source import CONFIG_VARIABLE, Mark, mark_of, overlay_environment, overlay_flags, read_file, read_sections
from proxy.settings.storage import StateSettings, StorageSettings
from proxy.settings.tree import DEFAULT, Node, Path, dotted, grown, leaves_of, line_of

_NO_FILE = "configuration"
_LASTING = ("storage", "state")


#: The source of a value that is as it was at the start, whatever the file says now.
KEPT = "kept until a restart"


@dataclass(frozen=True)
class Loaded:
    """The outcome. `sources` says for each value, by dotted path, where it came from (see `Node.source`); `file` may be absent.

    `mark`: the file's, from before it was read.
    """

    settings: Settings
    sources: dict[str, str]
    warnings: list[Problem]
    file: FilePath | None
    mark: Mark = None

    @property
    def name(self) -> str:
        """What the configuration is called in messages."""
        return str(self.file) if self.file else _NO_FILE

    @property
    def kept(self) -> list[str]:
        """Paths of values that are not those of the file before a restart."""
        return [path for path, source in self.sources.items() if source == KEPT]

    def values(self) -> list[tuple[str, Any, str]]:
        """Dotted path, value as it would be written, and source, of everything that is set or has a default."""
        leaves = ((dotted(path), value) for path, value in leaves_of(self.settings.model_dump(mode="json")))
        return [(path, value, self.sources[path]) for path, value in leaves]


def load(
    path: FilePath | None,
    environ: Mapping[str, str],
    flags: Mapping[str, Any],
    *,
    known: Kinds | None = None,
    probe: Probe = accepts_connection,
) -> Loaded:
    """Settings from defaults, the file (`path`, else `COMPORTA_CONFIG`), `COMPORTA_*` variables and `flags`, each over the one before.

    `flags` are named as in `source.FLAGS`. Where nothing lists providers, they are discovered; `probe` is asked for Ollama. `known` is what
    can be configured, by default everything that is installed. Raises SettingsError with all problems at once.
    """
    if path is None and environ.get(CONFIG_VARIABLE):
        path = FilePath(environ[CONFIG_VARIABLE])
    mark = mark_of(path) if path else None
    tree = read_file(path) if path else Node({})
    findings = Findings(str(path) if path else _NO_FILE, tree)
    overlay_environment(tree, environ, findings)
    overlay_flags(tree, flags, findings)
    assembly = _Assembly(tree, findings, known or kinds.wanted(tree.plain()))
    settings = assembly.settings(environ, probe)
    checks.check(settings, assembly.listed, findings)
    if findings.problems:
        raise SettingsError(findings.problems)
    return Loaded(settings, _sources(settings, tree), findings.warnings, path, mark)


def load_lasting(path: FilePath | None, environ: Mapping[str, str]) -> Loaded:
    """What a configuration says of the database, whatever else is wrong with it. Raises SettingsError where that cannot be told."""
    if path is None and environ.get(CONFIG_VARIABLE):
        path = FilePath(environ[CONFIG_VARIABLE])
    tree = read_sections(path, _LASTING) if path else Node({})
    name = str(path) if path else _NO_FILE
    overlay_environment(tree, environ, Findings(name, tree))
    findings = Findings(name, tree)
    lasting = _Assembly(tree, findings, Kinds({}, {})).lasting()
    if findings.problems:
        raise SettingsError(findings.problems)
    return Loaded(Settings(**lasting), {}, [], path)


def dump(settings: Settings) -> dict[str, Any]:
    """What `restore` makes the same settings of: without defaults, since what is written means more than a default of the same value."""
    return settings.model_dump(mode="json", exclude_unset=True)


def restore(document: dict[str, Any], *, known: Kinds | None = None) -> Settings:
    """Settings as they were before `dump`. Raises SettingsError."""
    tree = grown(document)
    findings = Findings(_NO_FILE, tree)
    settings = _Assembly(tree, findings, known or kinds.wanted(document)).settings({}, lambda _host, _port: False)
    if findings.problems:
        raise SettingsError(findings.problems)
    return settings


def secret_warnings(loaded: Loaded, environ: Mapping[str, str]) -> list[Problem]:
    """A warning for each reference to a secret that leads nowhere. It reads the secrets, and shows none; the store is not asked."""
    warnings = []
    for path, reference in checks.references(loaded.settings):
        if path[0] == "providers" and reference.startswith("store:"):
            continue
        source = loaded.sources[dotted(path)]
        try:
            resolve(reference, environ)
        except SecretError as error:
            warnings.append(Problem(place(loaded.name, source), line_of(source), dotted(path), f"{reference} cannot be used: {error}"))
    return warnings


@dataclass
class _Assembly:
    """Validates section by section, so that one bad section does not hide what is wrong with the next."""

    tree: Node
    findings: Findings
    known: Kinds

    @property
    def listed(self) -> list[str]:
        """Names of all providers, also of those whose sections are wrong: who refers to them is right."""
        node = self.tree.child("providers")
        return list(node.value) if node is not None and isinstance(node.value, dict) else []

    def settings(self, environ: Mapping[str, str], probe: Probe) -> Settings:
        """What can be used of the tree; all of it, unless there are problems."""
        top: dict[str, Node] = self.tree.value
        for name in [name for name, node in top.items() if node.value is None]:
            del top[name]  # A section with nothing in it is one that was commented out.
        self._unknown_sections()
        checks.check_text(self.tree, self.findings)
        sim = self._sim()
        server = self._section(ServerSettings, ("server",)) or ServerSettings()
        credentials = self._section(CredentialSettings, ("credentials",)) or CredentialSettings()
        if "providers" not in top:
            top["providers"] = Node(discover(environ, probe))
            self._drop_ourselves(server)
        if sim and isinstance(top["providers"].value, dict) and SIMULATED not in top["providers"].value:
            top["providers"].value[SIMULATED] = Node({"kind": Node(SIMULATED)})
        providers = self._providers()
        models = self._models()
        policies = self._policies()
        default = self._default_provider(self.listed)
        return Settings(
            **self.lasting(),
            server=server,
            sim=sim,
            default_provider=default,
            providers=providers,
            models=models,
            credentials=credentials,
            health=self._section(HealthSettings, ("health",)) or HealthSettings(),
            llm=self._section(LlmSettings, ("llm",)) if "llm" in top else None,
            policies=policies,
        )

    def lasting(self) -> dict[str, Any]:
        """The sections on what is kept. Storage that is not mentioned is absent, not the default: it is opened where it is needed only."""
        storage = self._section(StorageSettings, ("storage",)) if "storage" in self.tree.value else None
        return {"storage": storage, "state": self._section(StateSettings, ("state",)) or StateSettings()}

    def _unknown_sections(self) -> None:
        for name in self.tree.value:
            if name not in SECTIONS:
                self.findings.problem((name,), "unknown section", nearest(name, SECTIONS))

    def _section(self, model: type[Section], path: Path) -> Any:
        """The validated section at `path`, with defaults if it is absent; None where that fails, which is then a problem."""
        node, depth = self.tree.nearest(path)
        try:
            return model.model_validate(node.plain() if depth == len(path) else {})
        except ValidationError as error:
            explain(error, model, path, self.findings)
            return None

    def _entries(self, section: str) -> dict[str, Node]:
        node = self.tree.child(section)
        if node is None:
            return {}
        if not isinstance(node.value, dict):
            self.findings.problem((section,), "wants a mapping from names to entries", Settings.model_fields[section].description)
            return {}
        return node.value

    def _sim(self) -> bool:
        node = self.tree.child("sim")
        value = True if node is None else node.value
        read = {"true": True, "false": False}.get(str(value).lower())
        if read is None:
            self.findings.problem(("sim",), "wants true or false", "its settings go into providers: {sim: {kind: sim, ...}}")
        return True if read is None else read

    def _drop_ourselves(self, server: ServerSettings) -> None:
        """`OPENAI_BASE_URL` often tells applications where the gateway is; in the gateway's own environment it is no provider."""
        found = self.tree.value["providers"].value
        for name, section in list(found.items()):
            base_url = section.value.get("base_url")
            if base_url is not None and checks.leads_here(base_url.value, server):
                self.findings.warning(("providers", name, "base_url"), "is this gateway's own address and is not used as a provider's")
                del section.value["base_url"]
                section.value.pop("allow_private", None)
                if "api_key" not in section.value:
                    del found[name]

    def _providers(self) -> dict[str, Section]:
        read: dict[str, Section] = {}
        for name, node in self._entries("providers").items():
            checks.check_provider_name(name, self.findings)
            path = ("providers", name)
            kind = node.value.get("kind") if isinstance(node.value, dict) else None
            if not isinstance(node.value, dict):
                self.findings.problem(path, "wants a mapping, such as {kind: openai}", nearest("", self.known.providers))
            elif kind is None:
                self.findings.problem(path, "has no kind, which says how to speak to it", nearest("", self.known.providers))
            elif str(kind.value) not in self.known.providers:
                self.findings.problem(
                    (*path, "kind"), f"there is no kind {str(kind.plain())!r}", nearest(str(kind.plain()), self.known.providers)
                )
            else:
                section = self._section(self.known.providers[str(kind.value)], path)
                if section is not None:
                    read[name] = section
        return read

    def _models(self) -> dict[str, Entry] | None:
        if self.tree.child("models") is None:
            return None
        read: dict[str, Entry] = {}
        for name, node in self._entries("models").items():
            if not name.strip():
                self.findings.problem(("models", name), "a model needs a name")
            if not self._written_out(name, node):
                continue
            entry = self._section(ModelTargets if "targets" in node.value else ModelEntry, ("models", name))
            if entry is not None:
                read[name] = entry.named(name)
        return read

    def _written_out(self, name: str, node: Node) -> bool:
        """Makes the short forms of a model the long ones in the tree, so that all have the same sources. False: it is none of the forms."""
        if isinstance(node.value, str):
            node.value = _named(node, name)
        if not isinstance(node.value, dict):
            self.findings.problem(("models", name), "wants a provider's name, or {provider: NAME, model: NAME}")
            return False
        targets = node.value["targets"].value if "targets" in node.value else None
        if isinstance(targets, list):
            for target in targets:
                if isinstance(target.value, str):
                    target.value = _named(target, name)
            only = targets[0].value if len(targets) == 1 else None
            if len(node.value) == 1 and isinstance(only, dict) and only.keys() <= {"provider", "model"}:
                node.value = only
        return True

    def _policies(self) -> dict[str, Any]:
        read: dict[str, Any] = {}
        for name, node in self._entries("policies").items():
            path = ("policies", name)
            if name not in self.known.policies:
                self.findings.problem(path, "there is no such policy", nearest(name, self.known.policies))
            elif node.value is False or str(node.value).lower() == "false":
                read[name] = False
            else:
                if node.value is None or node.value is True:
                    node.value = {}
                section = self._section(self.known.policies[name], path)
                if section is not None:
                    read[name] = section
        return read

    def _default_provider(self, listed: list[str]) -> str | None:
        node = self.tree.child("default_provider")
        if node is None:
            return next((name for name in listed if name != SIMULATED), None)
        if not isinstance(node.value, str):
            self.findings.problem(("default_provider",), "wants a provider's name", nearest("", listed))
            return None
        return node.value


def _named(node: Node, model: str) -> dict[str, Node]:
    """A provider's name alone stands for the model of the same name there."""
    return {"provider": Node(node.value, node.source), "model": Node(model, node.source)}


def _sources(settings: Settings, tree: Node) -> dict[str, str]:
    found: dict[str, str] = {}
    for path, _ in leaves_of(settings.model_dump(mode="json")):
        node, depth = tree.nearest(path)
        found[dotted(path)] = node.source if depth == len(path) else DEFAULT
    return found
