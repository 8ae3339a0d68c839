"""`comporta models`: what can be asked for."""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from comporta.cli.configuration import config_option, json_option, print_json, read, warn
from comporta.cli.model_states import annotate, lines
from comporta.cli.records import stored
from comporta.cli.running import NoRedirect, NotReached, running_options, told
from proxy.fields import Section
from proxy.secrets import SecretError, Store, resolve
from proxy.settings import SIMULATED, ModelEntry, ModelTargets, Settings

EPILOG = """\b
Examples:
  comporta models
  comporta models --config gateway.yaml --json | jq -r '.models[].id'
  comporta models --admin-url http://10.0.0.5:8081 --admin-key env:ADMIN_KEY

\b
With a table of models in the configuration, the table is listed. Without one, each provider is asked for its list.
Where the gateway runs, each target has the health of its provider and the state of its circuit: closed (in use),
open (out, and for how long) or half_open (the next attempt tells).
"""

_PATIENCE = 5.0  # seconds, for each provider; all are asked at once
_MAX_ANSWER = 8 * 2**20


@click.command(epilog=EPILOG)
@config_option
@running_options
@json_option('Print {"models": [...], "unanswered": [...], "gateway": null or why it was not reached}.')
def models(path: Path | None, admin_url: str | None, admin_key: str | None, as_json: bool) -> None:
    """List the models that clients can ask for, and how those who serve them are."""
    loaded = read(path)
    listing = listed(loaded.settings, os.environ)
    unreached: str | None = None
    try:
        annotate(listing.models, told(loaded.settings, "/admin/providers", admin_url, admin_key))
    except NotReached as error:
        unreached = str(error)
    except (KeyError, TypeError):
        unreached = "what answers there is no gateway, or one of another version"
    if as_json:
        print_json({"models": listing.models, "unanswered": listing.unanswered, "gateway": unreached})
        return
    warn(loaded.warnings)
    for line in lines(listing.models, time.time()):
        click.echo(line)
    if unreached is not None and (admin_url or admin_key):
        click.echo(f"{click.style('no states', fg='yellow')}: {unreached}", err=True)
    for missing in listing.unanswered:
        click.echo(f"{click.style('no list', fg='yellow')} from {missing['provider']}: {missing['reason']}", err=True)


@dataclass(frozen=True)
class Listing:
    """What can be asked for, and the providers that did not say."""

    models: list[dict[str, Any]]
    unanswered: list[dict[str, str]]


def listed(settings: Settings, environ: Mapping[str, str]) -> Listing:
    """The configured table; without one, what the providers themselves list, as clients would name it."""
    if settings.models is not None:
        return Listing([_of_table(settings, name, entry) for name, entry in settings.models.items()], [])
    store = stored(settings)
    with ThreadPoolExecutor(max_workers=min(16, len(settings.providers))) as pool:
        answers = list(pool.map(lambda section: ask(section, environ, store), settings.providers.values()))
    found: list[dict[str, Any]] = []
    unanswered: list[dict[str, str]] = []
    for name, answer in zip(settings.providers, answers, strict=True):
        if isinstance(answer, str):
            unanswered.append({"provider": name, "reason": answer})
            continue
        for model in answer:
            # The default provider's models need no prefix, nor does the simulated model.
            bare = name in (settings.default_provider, SIMULATED)
            found.append(_entry(settings, model if bare else f"{name}/{model}", name, model))
    return Listing(found, unanswered)


def _entry(settings: Settings, name: str, provider: str, model: str) -> dict[str, Any]:
    simulated = getattr(settings.providers[provider], "kind", None) == SIMULATED
    return {
        "id": name,
        "provider": provider,
        "model": model,
        "simulated": simulated,
        "targets": [{"provider": provider, "model": model, "simulated": simulated}],
    }


def _of_table(settings: Settings, name: str, entry: ModelEntry | ModelTargets) -> dict[str, Any]:
    found = _entry(settings, name, entry.provider, entry.model)
    found["targets"] = [_entry(settings, name, each.provider, each.model)["targets"][0] for each in entry.targets]
    return found


def ask(section: Section, environ: Mapping[str, str], store: Store | None = None) -> list[str] | str:
    """The names that a provider's own `/models` lists, or why there are none. The key is the provider's first one."""
    base_url = getattr(section, "base_url", None)
    if base_url is None:
        return [SIMULATED] if getattr(section, "kind", None) == SIMULATED else "it has no address to ask"
    headers = {"accept": "application/json", "user-agent": "comporta", **getattr(section, "headers", {})}
    try:
        for reference in getattr(section, "references", ())[:1]:
            headers["authorization"] = f"Bearer {resolve(reference, environ, store)}"
        # Proxies from the environment are not for keys.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), NoRedirect)
        request = urllib.request.Request(f"{base_url}/models", headers=headers)  # noqa: S310 - http or https: the section says so
        with opener.open(request, timeout=_PATIENCE) as answer:
            return _names(json.loads(answer.read(_MAX_ANSWER)))
    except SecretError as error:
        return str(error)
    except urllib.error.HTTPError as error:
        error.close()
        return f"it answered with status {error.code}"
    except (OSError, http.client.HTTPException) as error:
        return f"it could not be reached: {getattr(error, 'reason', None) or error}"
    except ValueError:
        return "its answer is no list of models"


def _names(answer: Any) -> list[str]:
    """Of `{"data": [{"id": ...}]}`. Raises ValueError. Source: https://platform.openai.com/docs/api-reference/models/list"""
    if not isinstance(answer, dict) or not isinstance(answer.get("data"), list):
        raise ValueError("no list")
    return sorted(str(model["id"]) for model in answer["data"] if isinstance(model, dict) and "id" in model)
