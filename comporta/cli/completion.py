"""`comporta completion`: what a shell needs to complete the command line, and the names that it is told.

Names of models and task types are read from the configuration; users, keys and versions are asked of a gateway that runs, for a
moment: the database would take too long to open. What cannot be told quickly is not completed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class

from comporta.cli.gateway import Running, Where
from proxy.settings import Loaded, SettingsError, load

EPILOG = """\b
Examples:
  source <(comporta completion bash)                                 in ~/.bashrc, or typed once
  source <(comporta completion zsh)                                  in ~/.zshrc, after compinit
  comporta completion fish > ~/.config/fish/completions/comporta.fish

\b
Users, keys and versions are completed while a gateway answers at server.admin_listen.
"""

_VARIABLE = "_COMPORTA_COMPLETE"
_PATIENCE = 0.5

_Names = Callable[[Where], Iterable[str]]
_Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


@click.command(epilog=EPILOG)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that has SHELL complete commands, options and names."""
    kind = get_completion_class(shell)
    assert kind is not None
    made = kind(context.find_root().command, {}, "comporta", _VARIABLE)
    click.echo(made.source_template % made.source_vars())


def _completer(names: _Names) -> _Completer:
    def complete(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        given = context.params
        try:
            found = list(names(Where(given.get("path"), given.get("admin"), given.get("admin_key"))))
        except (click.ClickException, LookupError, TypeError):
            return []  # there is nobody to tell on a line that is being typed
        return [CompletionItem(name) for name in found if name.startswith(incomplete)]

    return complete


def _read(where: Where) -> Loaded:
    try:
        # Whether an Ollama runs is not asked while somebody types.
        return load(where.path, os.environ, {}, probe=lambda _host, _port: False)
    except SettingsError as error:
        raise click.ClickException(str(error)) from None


def _models(where: Where) -> list[str]:
    settings = _read(where).settings
    known = [] if settings.llm is None else [*settings.llm.hierarchy().uses(), *([settings.llm.alias] if settings.llm.alias else [])]
    return sorted({*(settings.models or ()), *known})


def _task_types(where: Where) -> list[str]:
    llm = _read(where).settings.llm
    return [] if llm is None else sorted(llm.task_types)


def _asked(path: str) -> Callable[[Where], list[str]]:
    def names(where: Where) -> list[str]:
        gateway = Running(where.running.url, where.running.key, _PATIENCE)
        answer: dict[str, Any] = gateway.ask("GET", path, limit=1000)
        return [str(one["id"]) for one in answer["data"]]

    return names


_versions = _asked("/admin/config/versions")


def _sides(where: Where) -> list[str]:
    try:
        return ["running", "file", *_versions(where)]
    except click.ClickException:
        return ["running", "file"]


model_names = _completer(_models)
task_types = _completer(_task_types)
users_of_gateway = _completer(_asked("/admin/users"))
keys_of_gateway = _completer(_asked("/admin/keys"))
versions_of_gateway = _completer(_versions)
requests_of_gateway = _completer(_asked("/admin/requests"))
sides_of_diff = _completer(_sides)
