"""Providers that need no configuration: what the usual environment variables name, and an Ollama that runs on this machine."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import TypeAlias
from urllib.parse import urlsplit

from proxy.core.hosts import is_literal
from proxy.settings.tree import Node

#: Whether something accepts a connection at host and port, soon.
Probe: TypeAlias = Callable[[str, int], bool]

OLLAMA_PORT = 11434
_PATIENCE = 0.2  # seconds: a start waits for it, and what listens on this machine accepts at once

_OPENAI = {"OPENAI_BASE_URL": "base_url", "OPENAI_ORG_ID": "organization", "OPENAI_PROJECT_ID": "project"}


def accepts_connection(host: str, port: int) -> bool:
    """The probe for real use."""
    try:
        with socket.create_connection((host, port), timeout=_PATIENCE):
            return True
    except OSError:
        return False


def discover(environ: Mapping[str, str], probe: Probe) -> dict[str, Node]:
    """Provider sections that the environment implies, by name.

    `OPENAI_API_KEY`, `OPENAI_BASE_URL`, `OPENAI_ORG_ID` and `OPENAI_PROJECT_ID` mean what they mean to OpenAI's own libraries;
    `OLLAMA_HOST` what it means to Ollama's client: https://github.com/ollama/ollama/blob/main/docs/faq.md
    """
    found = {"openai": _openai(environ), "ollama": _ollama(environ, probe)}
    return {name: section for name, section in found.items() if section is not None}


def _openai(environ: Mapping[str, str]) -> Node | None:
    key = environ.get("OPENAI_API_KEY", "")
    base_url = environ.get("OPENAI_BASE_URL", "").strip()
    if not key and not base_url:
        return None
    source = "discovered:OPENAI_API_KEY" if key else "discovered:OPENAI_BASE_URL"
    section = {"kind": Node("openai", source)}
    if key:
        section["api_key"] = Node("env:OPENAI_API_KEY", source)
    for variable, name in _OPENAI.items():
        if value := environ.get(variable, "").strip():
            section[name] = Node(value, f"discovered:{variable}")
    # Only for what can mean nothing but this machine: a public name must not resolve to a private address unasked.
    if is_loopback_name(_hostname(base_url)):
        section["allow_private"] = Node(True, "discovered:OPENAI_BASE_URL")
    return Node(section, source)


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _ollama(environ: Mapping[str, str], probe: Probe) -> Node | None:
    written = environ.get("OLLAMA_HOST", "").strip()
    try:
        parts = urlsplit(written if "://" in written else f"http://{written}")
        host = _reachable(parts.hostname or "127.0.0.1")
        # A bare https:// address is a server behind a proxy, on the web's port.
        port = parts.port or ({"http": 80, "https": 443}[parts.scheme] if "://" in written else OLLAMA_PORT)
    except (ValueError, KeyError):
        return None
    if not probe(host, port):
        return None
    source = "discovered:OLLAMA_HOST" if written else "discovered:ollama"
    shown = f"[{host}]" if ":" in host else host
    base_url = f"{parts.scheme}://{shown}:{port}{parts.path.rstrip('/')}/v1"
    section = {"kind": Node("openai", source), "base_url": Node(base_url, source)}
    if not is_literal(host):
        # Ollama is a server of one's own network, and this variable names nothing else.
        section["allow_private"] = Node(True, source)
    return Node(section, source)


def _reachable(host: str) -> str:
    """Ollama's server is told `0.0.0.0` by the same variable, which is where it listens, not where it is."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "localhost": "127.0.0.1"}.get(host, host)  # noqa: S104 - compared with, not bound


def is_loopback_name(host: str) -> bool:
    """RFC 6761 6.3: these names mean this machine and nothing else."""
    return host == "localhost" or host.endswith(".localhost")
