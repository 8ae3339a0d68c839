"""`comporta explain`: what became of a request, and why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import click

from comporta.cli.completion import requests_of_gateway
from comporta.cli.configuration import json_option, print_json
from comporta.cli.gateway import Where, gateway_options
from comporta.cli.table import show

EPILOG = """\b
Examples:
  comporta explain                           the last requests, the newest first
  comporta explain req_9f1c0e5ab2d4c6e800000007
  comporta explain --json | jq '.[] | select(.status >= 500) | .id'

\b
The id is what the client got as x-request-id. The gateway that runs is asked; it keeps server.recent_requests of them.
Exit status: 0 shown, 1 there is no such request, or no gateway, 2 wrong usage or configuration.
"""

_COLUMNS = ("id", "at", "operation", "model", "provider", "user", "status", "error", "attempts", "fallback", "total_ms")
_TRIES = ("why", "provider", "model", "credential", "error", "not_repeated", "started_ms", "ended_ms")


@click.command(epilog=EPILOG)
@gateway_options()
@click.argument("id", metavar="[REQUEST_ID]", required=False, shell_complete=requests_of_gateway)
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000), help="How many to list at most, without an id.")
@json_option("Print the explanation as an object; without an id, a list of objects.")
def explain(where: Where, id: str | None, limit: int, as_json: bool) -> None:
    """Say what became of a request: what was asked, what decided, what was tried and how it ended."""
    gateway = where.required()
    if id is None:
        listed: list[dict[str, Any]] = gateway.ask("GET", "/admin/requests", limit=limit)["data"]
        if as_json:
            print_json(listed)
        else:
            show(_COLUMNS, [[each[name] for name in _COLUMNS] for each in listed])
        return
    found: dict[str, Any] = gateway.ask("GET", f"/admin/requests/{quote(id, safe='')}/explain")
    if as_json:
        print_json(found)
    else:
        _print(found)


def _print(found: dict[str, Any]) -> None:
    for line in _head(found):
        click.echo(line)
    configuration = found["configuration"]
    if configuration is not None and configuration["values"]:
        click.echo()
        show(("what", "value", "set by"), [(name, one["value"], one["source"]) for name, one in configuration["values"].items()])
    if found["attempts"]:
        click.echo()
        show(_TRIES, [[each[name] for name in _TRIES] for each in found["attempts"]])
    click.echo()
    for line in _tail(found):
        click.echo(line)


def _head(found: dict[str, Any]) -> Iterator[str]:
    asked = found["asked"]
    error = "" if found["error"] is None else f", {found['error']}"
    worker = "" if found["worker"] is None else f" by worker {found['worker']}"
    yield f"{found['id']}: {found['status']} {found['outcome']}{error}, at {found['at']}{worker}"
    model = "no model" if asked["model"] is None else f"model {asked['model']}"
    key = "" if asked["key"] is None else f" (key {asked['key']})"
    behalf = "" if asked["end_user"] is None else f" for {asked['end_user']}"
    address = "" if asked["address"] is None else f" from {asked['address']}"
    yield f"asked for {asked['operation']}, {model}{', as a stream' if asked['stream'] else ''}, by {asked['user']}{key}{behalf}{address}"


def _tail(found: dict[str, Any]) -> Iterator[str]:
    served, tokens, timing = found["served"], found["tokens"], found["timing"]
    if served is not None:
        name = served["provider"] if served["model"] is None else f"{served['provider']}, {served['model']}"
        yield f"served by {name}" if found["fallback"] is None else f"served by {name}, {_since(found['fallback'])}"
    for each in found["not_asked"]:
        yield f"not asked: {each['provider']}, {each['model']}"
    if tokens is not None:
        yield f"tokens: {_counted(tokens)}"
    for number, each in enumerate(found["attempts"], 1):
        if each["error"] is not None and each.get("tokens") is not None:
            yield f"tokens that attempt {number} may have cost: {_counted(each['tokens'])}"
    first = "" if timing["first_token_ms"] is None else f"the first token after {timing['first_token_ms']:g} ms, "
    where = f"{timing['overhead_ms']:g} ms here and {timing['upstream_ms']:g} ms at providers"
    yield f"{first}{timing['total_ms']:g} ms in all, of which {where}"


def _counted(tokens: dict[str, Any]) -> str:
    return f"{tokens['prompt']} and {tokens['completion']}, {tokens['usage']}"


def _since(fallback: str) -> str:
    return "since the first choice is out, or full" if fallback == "unavailable" else f"after {fallback} at the first choice"
