"""`comporta serve`: start the gateway and say how to reach it."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable
from pathlib import Path

import click

from comporta import streams
from comporta.cli.configuration import config_option, json_option, origin, problem_json, read, warn
from proxy import __version__, app
from proxy.app import Ready
from proxy.secrets import SecretError
from proxy.settings import SIMULATED, Loaded, load, secret_warnings
from proxy.settings.access import is_open

EPILOG = """\b
Examples:
  comporta serve
  comporta serve --config gateway.yaml --listen 0.0.0.0:8080
  OPENAI_API_KEY=... comporta serve
  COMPORTA_SERVER__GRACE=5s comporta serve    any value can be set like this

\b
Applications then need one thing:
  OPENAI_BASE_URL=http://127.0.0.1:8080/v1
"""

_SHOWN_MODELS = 12


@click.command(epilog=EPILOG)
@config_option
@click.option("--listen", metavar="HOST:PORT", help="Address for clients; port 0 is any free one.  [default: 127.0.0.1:8080]")
@click.option("--admin-listen", metavar="HOST:PORT", help="Address for /metrics and administration.  [default: 127.0.0.1:8081]")
@json_option("Print one JSON line when ready, and nothing else, on stdout.")
def serve(path: Path | None, listen: str | None, admin_listen: str | None, as_json: bool) -> None:
    """Start the gateway. It runs until SIGTERM or Ctrl-C, and lets running requests finish. SIGHUP reads the configuration again."""
    flags = {"--listen": listen, "--admin-listen": admin_listen}
    loaded = read(path, flags)
    if as_json:
        for doubt in loaded.warnings:
            click.echo(json.dumps({"event": "configuration_warning", "level": "warning", **problem_json(doubt)}), err=True)
    else:
        warn(loaded.warnings)
    # The server itself reports credentials that are not there.
    doubtful = {doubt.path for doubt in secret_warnings(loaded, os.environ)}
    try:
        announce = _heeded(_announce_json if as_json else _announcer(loaded, doubtful))
        status = app.serve(loaded, ready=announce, load=lambda file: load(file or path, os.environ, flags))
    except SecretError as error:
        raise click.ClickException(f"server.admin_key: {error}") from error
    except RuntimeError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        if error.errno is None:  # our own words, and not about an address
            raise click.ClickException(f"cannot start: {error}") from error
        server = loaded.settings.server
        flag = {server.listen: "--listen", server.admin_listen: "--admin-listen"}.get(error.filename)
        if flag is None:
            raise click.ClickException(f"cannot start: {error}") from error
        raise click.ClickException(f"cannot listen on {error.filename}: {error.strerror}; {flag} chooses another address") from error
    raise SystemExit(status)


def _heeded(announce: Callable[[Ready], None]) -> Callable[[Ready], None]:
    """The same for a gateway that serves whether anybody reads it or not."""

    def told(ready: Ready) -> None:
        try:
            announce(ready)
        except OSError:
            streams.drop_output()

    return told


def _announce_json(ready: Ready) -> None:
    line = {"event": "ready", "pid": os.getpid(), "listen": ready.listen, "admin": ready.admin}
    click.echo(json.dumps({**line, "providers": list(ready.providers), "models": list(ready.models)}, separators=(",", ":")))


def _announcer(loaded: Loaded, doubtful: set[str]) -> Callable[[Ready], None]:
    def announce(ready: Ready) -> None:
        click.echo(announcement(loaded, doubtful, ready))

    return announce


def announcement(loaded: Loaded, doubtful: set[str], ready: Ready) -> str:
    """What people read when the gateway is ready. `doubtful` has the paths of values that may not work."""
    lines = [
        f"comporta {__version__} is ready",
        "",
        f"  OpenAI API   {ready.listen}/v1",
        f"  metrics      {ready.admin}/metrics",
        f"  providers    {_providers(loaded)}",
        f"  models       {_models(loaded, ready)}",
    ]
    model = working_model(loaded, doubtful)
    if model is not None:
        needs_key = not is_open(loaded.settings)
        lines += ["", "Try it, with a key:" if needs_key else "Try it:"]
        if needs_key:
            config = f" --config {shlex.quote(str(loaded.file))}" if loaded.file else ""
            lines += [f"  comporta users add ana{config}", f"  COMPORTA_KEY=$(comporta keys create ana{config})"]
        lines.append(f"  {curl(ready.listen, model, needs_key=needs_key)}")
        if _is_simulated(loaded, model):
            lines.append(f"  ({model} is simulated: no model runs, its text is made up from the prompt)")
    return "\n".join([*lines, ""])


def _providers(loaded: Loaded) -> str:
    def described(name: str) -> str:
        source = loaded.sources.get(f"providers.{name}.kind") or loaded.sources.get(f'providers."{name}".kind', "")
        section = loaded.settings.providers[name]
        if getattr(section, "kind", None) == SIMULATED:
            return f"{name} (simulated)"
        where = getattr(section, "base_url", getattr(section, "kind", ""))
        return f"{name} ({where}; {_found(source, loaded)})"

    return f"\n{'':15}".join(described(name) for name in loaded.settings.providers)


def _found(source: str, loaded: Loaded) -> str:
    return f"{loaded.name} {origin(source)}" if source.startswith("file:") else origin(source)


def _models(loaded: Loaded, ready: Ready) -> str:
    parts = [", ".join(ready.models[:_SHOWN_MODELS])]
    if len(ready.models) > _SHOWN_MODELS:
        parts[0] += f" and {len(ready.models) - _SHOWN_MODELS} more"
    if loaded.settings.models is None and loaded.settings.default_provider:
        parts.append(f"any other name is asked of {loaded.settings.default_provider}")
    parts.append("PROVIDER/MODEL for any other of a provider")
    return "; ".join(part for part in parts if part)


def working_model(loaded: Loaded, doubtful: set[str]) -> str | None:
    """A model that can be asked at once: the first one listed whose provider has what it needs, else the simulated one."""
    settings = loaded.settings
    for name, entry in (settings.models or {}).items():
        if not any(path.startswith((f"providers.{entry.provider}.", f'providers."{entry.provider}".')) for path in doubtful):
            return name
    return SIMULATED if SIMULATED in settings.providers else None


def _is_simulated(loaded: Loaded, model: str) -> bool:
    entry = (loaded.settings.models or {}).get(model)
    section = loaded.settings.providers.get(entry.provider if entry else model)
    return getattr(section, "kind", None) == SIMULATED


def curl(listen: str, model: str, *, needs_key: bool = False) -> str:
    """A command line to paste: one streamed chat, with the key in `$COMPORTA_KEY` where it needs one."""
    body = json.dumps({"model": model, "stream": True, "messages": [{"role": "user", "content": "Hello!"}]}, ensure_ascii=False)
    key = '-H "authorization: Bearer $COMPORTA_KEY" ' if needs_key else ""
    return f"curl -N {listen}/v1/chat/completions {key}-H 'content-type: application/json' -d {shlex.quote(body)}"
