"""`comporta check`: say what a configuration means, and what is wrong with it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from comporta.cli.configuration import BadConfiguration, json_option, origin, print_json, problem_json, read, warn
from proxy.settings import SIMULATED, Loaded, ModelEntry, ModelTargets, Problem, secret_warnings

EPILOG = """\b
Examples:
  comporta check gateway.yaml
  comporta check                      what would be served with no file
  comporta check gateway.yaml --json | jq .problems

\b
Nothing is started and no provider is asked. References to secrets are followed, so run it where the gateway will run.
Exit status: 0 usable (perhaps with warnings), 2 not.
"""


@click.command(epilog=EPILOG)
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path), metavar="[FILE]", required=False)
@json_option("Print the findings as JSON.")
def check(path: Path | None, as_json: bool) -> None:
    """Validate a configuration file and explain it."""
    try:
        loaded = read(path)
    except BadConfiguration as error:
        if not as_json:
            raise
        print_json(
            {"ok": False, "file": str(path) if path else None, "problems": [problem_json(one) for one in error.problems], "warnings": []}
        )
        raise SystemExit(error.exit_code) from None
    warnings = loaded.warnings + secret_warnings(loaded, os.environ)
    if as_json:
        print_json(_as_json(loaded, warnings))
        return
    click.echo("\n".join(_explained(loaded)))
    warn(warnings)
    click.secho(f"{loaded.name}: usable" + (f", with {_count(warnings)}" if warnings else ""), fg="green")


def _count(warnings: list[Problem]) -> str:
    return "one warning" if len(warnings) == 1 else f"{len(warnings)} warnings"


def _as_json(loaded: Loaded, warnings: list[Problem]) -> dict[str, Any]:
    settings = loaded.settings.model_dump(mode="json")
    found = {name: settings[name] for name in ("server", "providers", "models", "default_provider", "policies")}
    return {
        "ok": True,
        "file": str(loaded.file) if loaded.file else None,
        "problems": [],
        "warnings": [problem_json(warning) for warning in warnings],
        **found,
    }


def _explained(loaded: Loaded) -> list[str]:
    settings = loaded.settings
    server = settings.server
    lines = ["listens", f"  clients          {server.listen}", f"  administration   {server.admin_listen}", "", "providers"]
    width = max((len(name) for name in (*settings.providers, *(settings.models or ()))), default=0)
    for name, section in settings.providers.items():
        lines.append(f"  {name:{width}}   {_provider(section)}")
    lines += ["", "models"]
    if settings.models is None:
        default = settings.default_provider
        lines.append(f"  any name is asked of {default}" if default else "  no table and no default provider: only PROVIDER/MODEL")
    else:
        lines += [f"  {name:{width}}   {_served(entry)}" for name, entry in settings.models.items()]
    lines += [f"  {next(iter(settings.providers))}/NAME and so on: any model of a provider"]
    if settings.policies:
        lines += ["", "policies"]
        lines += [f"  {name}: {'off' if section is False else _set_values(loaded, name)}" for name, section in settings.policies.items()]
    return [*lines, ""]


def _served(entry: ModelEntry | ModelTargets) -> str:
    """Who serves a model, how the choice is made, and what is tried after."""
    text = ", ".join(f"{target.model} at {target.provider}" for target in entry.targets)
    if isinstance(entry, ModelTargets) and len(entry.targets) > 1:
        text += f" ({entry.strategy})"
    chain = [rule if isinstance(rule, str) else f"{rule.to} ({rule.on})" for rule in entry.fallback]
    return f"{text}; then {', '.join(chain)}" if chain else text


def _provider(section: Any) -> str:
    if section.kind == SIMULATED:
        return "simulated: answers are made up, no model runs"
    keys = ", ".join(getattr(section, "references", ())) or "none"
    return f"{section.kind} at {getattr(section, 'base_url', 'its usual address')}, key: {keys}"


def _set_values(loaded: Loaded, policy: str) -> str:
    prefix = f"policies.{policy}."
    given = [(path.removeprefix(prefix), value, source) for path, value, source in loaded.values() if path.startswith(prefix)]
    return ", ".join(f"{name} = {value} ({origin(source)})" for name, value, source in given) or "on"
