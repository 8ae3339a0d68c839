"""What no single section can know: names that must exist elsewhere, addresses that must differ, and what looks like a mistake."""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any
from urllib.parse import SplitResult, urlsplit

from proxy.core.hierarchy import Hierarchy
from proxy.core.hosts import is_literal
from proxy.core.names import nearest
from proxy.http.certificate import context_for
from proxy.settings.access import is_exposed, is_open
from proxy.settings.cors import ANY
from proxy.settings.discovery import is_loopback_name
from proxy.settings.messages import KEY, Findings
from proxy.settings.model import SIMULATED, Address, ServerSettings, Settings
from proxy.settings.models import chained, check_models
from proxy.settings.tree import Node, leaves_of

_PROVIDER_NAME = re.compile(r"[a-z0-9._-]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_CREDENTIAL_HEADERS = frozenset({"authorization", "proxy-authorization", "api-key", "x-api-key", "cookie"})
#: What says how a request is written there (RFC 9110, 7.6.1 and 8.6).
_CONNECTION_HEADERS = frozenset(
    {"connection", "content-encoding", "content-length", "expect", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)
_HOST = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?")
_WEB_PORTS = {"http": 80, "https": 443}


# ---------------------------------------------------------------------------------------------------------------- before the sections
def check_text(tree: Node, findings: Findings) -> None:
    """No control character goes into a header or a log, and no key stands in the file."""
    for path, node in tree.leaves():
        if any(isinstance(part, str) and _CONTROL.search(part) for part in path):
            findings.problem(path, "its name holds a control character, such as a line break")
        if not isinstance(node.value, str):
            continue
        if _CONTROL.search(node.value):
            findings.problem(path, "holds a control character, such as a line break")
        elif KEY.fullmatch(node.value.strip()) and not _is_key_field(path):
            findings.problem(path, "looks like a key; a key is never written itself, only where to find it", 'such as api_key: "env:NAME"')


def _is_key_field(path: tuple[str | int, ...]) -> bool:
    """These refuse it themselves, with the line to write instead."""
    return any(part in ("api_key", "api_keys") for part in path)


def check_provider_name(name: str, findings: Findings) -> None:
    if not _PROVIDER_NAME.fullmatch(name):
        suggestion = re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-")
        findings.problem(
            ("providers", name),
            "a provider's name is made of lower-case letters, digits, dots, dashes and underscores",
            f"such as {suggestion!r}" if suggestion else None,
        )


# ---------------------------------------------------------------------------------------------------------------- between the sections
def check(settings: Settings, listed: Sequence[str], findings: Findings) -> None:
    """Everything that is asked of the sections together. `listed` has the providers' names, of wrong sections too."""
    _names(settings, listed, findings)
    for one in (_listeners, _certificate, _storage, _base_urls, _authorities, _headers, _simulated, _llm, _unmeasured):
        one(settings, findings)


def _names(settings: Settings, listed: Sequence[str], findings: Findings) -> None:
    if not listed and not settings.sim:
        findings.problem(("sim",), "there is no provider", "list one, set OPENAI_API_KEY, or leave the simulated one: sim: true")
    default = settings.default_provider
    if default is not None and default not in listed:
        findings.problem(("default_provider",), f"there is no provider {default!r}", nearest(default, listed))
    check_models(settings.models or {}, listed, findings)


def _listeners(settings: Settings, findings: Findings) -> None:
    server = settings.server
    data, admin = server.address, server.admin_address
    if data.port and data.port == admin.port and (data.host == admin.host or _any_interface(data.host) or _any_interface(admin.host)):
        findings.problem(("server", "admin_listen"), "is where the data plane listens too", "the two planes need a port each")
    if not _is_local(admin.host) and server.admin_key is None:
        findings.problem(
            ("server", "admin_listen"), "can be reached from other machines, and there is no key", 'set admin_key: "env:NAME" beside it'
        )
    if is_exposed(settings) and is_open(settings):
        findings.warning(("server", "listen"), "can be reached from other machines, and no client needs a key")
    if server.cors is not None and ANY in server.cors.origins and is_open(settings):
        findings.warning(
            ("server", "cors", "origins"), "any page that is opened in a browser may use the gateway: no client needs a key", "list origins"
        )


def _storage(settings: Settings, findings: Findings) -> None:
    """Keys are hashed alike by all who read them."""
    storage = settings.storage
    if storage is not None and storage.pepper is None and (storage.url or "").startswith("postgres"):
        findings.problem(("storage", "pepper"), "is needed with this database", 'openssl rand -hex 32 makes one; pepper: "env:NAME"')


def _certificate(settings: Settings, findings: Findings) -> None:
    """Nothing starts without these files, so they are tried before anything does."""
    found = len(findings.problems)
    for name, file in settings.server.tls.paths.items() if settings.server.tls else ():
        path = ("server", "tls", name)
        if not _is_readable(file):
            findings.problem(path, f"{file} cannot be read", "run this where the gateway will run")
        elif name == "key" and file.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
            findings.problem(path, f"{file} is open to every user of this machine", f"chmod 600 {file}")
    if len(findings.problems) == found:
        try:
            context_for(settings.server.tls)
        except OSError as error:
            findings.problem(("server", "tls"), str(error))


def _is_readable(file: FilePath) -> bool:
    return os.path.isfile(file) and os.access(file, os.R_OK)


def _authorities(settings: Settings, findings: Findings) -> None:
    """Whom a provider's certificate may come from."""
    for name, section in settings.providers.items():
        file = getattr(section, "ca", None)
        if file is None:
            continue
        path = ("providers", name, "ca")
        if not _is_readable(file):
            findings.problem(path, f"{file} cannot be read", "run this where the gateway will run")
            continue
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
        except ssl.SSLError:
            findings.problem(path, f"{file} holds no certificate", "it is text (PEM) that begins with -----BEGIN CERTIFICATE-----")


def _base_urls(settings: Settings, findings: Findings) -> None:
    for name, section in settings.providers.items():
        path = ("providers", name, "base_url")
        base_url = str(getattr(section, "base_url", ""))
        parts = urlsplit(base_url)
        host = (parts.hostname or "").lower()
        if not host:
            continue
        if not _has_port(parts):
            findings.problem(path, "has a port that is none", "ports go from 1 to 65535")
        if leads_here(base_url, settings.server):
            findings.problem(path, "is this gateway's own address, so every request would come back to it")
        if is_loopback_name(host) and not getattr(section, "allow_private", True):
            findings.warning(
                path, f"{host} resolves to this machine, which needs permission", "add allow_private: true, or write 127.0.0.1"
            )
        if parts.scheme == "http" and not _is_private(host):
            findings.warning(path, "is not encrypted: the key and every prompt can be read on the way", "use https://")


def _has_port(parts: SplitResult) -> bool:
    try:
        return parts.port is None or parts.port > 0
    except ValueError:
        return False


def _headers(settings: Settings, findings: Findings) -> None:
    for name, section in settings.providers.items():
        headers = getattr(section, "headers", None)
        for header, value in headers.items() if isinstance(headers, Mapping) else ():
            path = ("providers", name, "headers", header)
            if header.lower() in _CREDENTIAL_HEADERS:
                findings.problem(path, "a credential is not written as a header", 'use api_key: "env:NAME"')
            elif header.lower() in _CONNECTION_HEADERS:
                findings.problem(path, "is no further header: the gateway writes it itself, for each request")
            elif not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", header):
                findings.problem(path, "is no header name")
            elif header.lower() == "host":
                _host(section, path, value, findings)


def _host(section: Any, path: tuple[str, ...], value: str, findings: Findings) -> None:
    """Who is asked at the provider's address (RFC 9110, 7.2)."""
    found = _HOST.fullmatch(value)
    if found is None or int(found[1] or 1) not in range(1, 65536):
        findings.problem(path, "is no host, with or without a port", "such as models.example.com")
    elif getattr(section, "proxy", None) and str(getattr(section, "base_url", "")).startswith("http://"):
        findings.warning(path, "is lost: where nothing is encrypted, an HTTP proxy writes the address's own host", "use https://")


def _simulated(settings: Settings, findings: Findings) -> None:
    """An answer that says `sim` is simulated; nothing else may say so."""
    section = settings.providers.get(SIMULATED)
    if section is not None and getattr(section, "kind", None) != SIMULATED:
        findings.problem(("providers", SIMULATED), "this name belongs to the simulated provider", "choose another one")


def _llm(settings: Settings, findings: Findings) -> None:
    """A model that is chosen for requests must be one that they can get."""
    if settings.llm is None:
        return
    say = findings.problem if settings.llm.unknown_models == "refuse" else findings.warning
    hierarchy = settings.llm.hierarchy()
    for path, model in settings.llm.named_models():
        if not _is_routable(settings, model):
            say(path, f"there is no model {model!r}", nearest(model, settings.models or ()))
        elif not hierarchy.allows(model):
            findings.problem(path, f"names {model!r}, which llm.allowed_models does not allow")
    if hierarchy.allowed_models is not None:
        _chains(settings, hierarchy, findings)
    if settings.llm.alias in (settings.models or {}):
        findings.warning(("llm", "alias"), "hides the model of that name")
    larger = settings.llm.larger_model
    if larger is not None and larger not in hierarchy.context_windows:
        findings.problem(("llm", "larger_model"), "has no context_window in model_params, so nobody knows what it takes")


def _unmeasured(settings: Settings, findings: Findings) -> None:
    """What a strategy goes by is measured by the breaker."""
    if settings.policies.get("circuit_breaker") is not False:
        return
    for name, entry in (settings.models or {}).items():
        strategy = getattr(entry, "strategy", None)
        if strategy in ("least_latency", "least_busy") or (strategy == "cheapest" and getattr(entry, "latency", None) is not None):
            findings.warning(
                ("models", name, "strategy"),
                f"{strategy} goes by what policies.circuit_breaker measures, which is off",
                "leave it on, with failures: 1000000",
            )


def _chains(settings: Settings, hierarchy: Hierarchy, findings: Findings) -> None:
    """A model that nobody may ask for answers for no other one either."""
    for name, entry in (settings.models or {}).items():
        for path, _, to in chained(name, entry):
            if hierarchy.allows(name) and not hierarchy.allows(to):
                findings.warning(
                    path, f"names {to!r}, which llm.allowed_models does not allow: it is never asked", "allow it, or leave it out"
                )


def _is_routable(settings: Settings, model: str) -> bool:
    """Whether the table of models, a provider's prefix, or an open default provider takes this name."""
    provider, slash, name = model.partition("/")
    if model in (settings.models or {}) or (slash and name and provider in settings.providers):
        return True
    is_open = settings.models is None and settings.default_provider not in (None, SIMULATED)
    return is_open or (model == SIMULATED and SIMULATED in settings.providers)


# ------------------------------------------------------------------------------------------------------------------------------ addresses
def leads_here(base_url: str, server: ServerSettings) -> bool:
    """Whether `base_url` is where the data plane listens: the same variable often tells clients where the gateway is."""
    try:
        parts = urlsplit(base_url)
        host, port = (parts.hostname or "").lower(), parts.port or _WEB_PORTS.get(parts.scheme, 0)
    except ValueError:
        return False
    data = server.address
    return port == data.port and _same_host(host, data)


def _same_host(host: str, address: Address) -> bool:
    return host == address.host or (_is_local(host) and (_is_local(address.host) or _any_interface(address.host)))


def _any_interface(host: str) -> bool:
    return host in ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound


def _is_local(host: str) -> bool:
    return ipaddress.ip_address(host).is_loopback if is_literal(host) else is_loopback_name(host)


def _is_private(host: str) -> bool:
    """A literal private address, or a name that cannot be one of the public Internet."""
    if is_literal(host):
        return not ipaddress.ip_address(host).is_global
    return is_loopback_name(host) or "." not in host or host.endswith((".local", ".internal", ".lan", ".home.arpa"))


# -------------------------------------------------------------------------------------------------------------------------------- secrets
def references(settings: Settings) -> list[tuple[tuple[str | int, ...], str]]:
    """The references to secrets, each with its path."""
    found: list[tuple[tuple[str | int, ...], str]] = []
    named = {"server": ("admin_key",), "storage": ("url", "pepper"), "state": ("url",), "credentials": ("key",)}
    for section_name, fields in named.items():
        for name in fields:
            value = getattr(getattr(settings, section_name), name, None)
            if value is not None and value.startswith(("env:", "file:", "keyring:")):
                found.append(((section_name, name), value))
    for name, section in settings.providers.items():
        wanted: tuple[Any, ...] = tuple(getattr(section, "references", ()))
        dumped = section.model_dump(mode="json")
        found += [(("providers", name, *path), value) for path, value in leaves_of(dumped) if value in wanted]
    return found
