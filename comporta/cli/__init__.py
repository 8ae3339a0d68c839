"""The command `comporta`: one file per sub-command."""

from __future__ import annotations

import errno
import gc
import importlib
from typing import Any

import click
from click.shell_completion import CompletionItem

from comporta import streams
from comporta.group import Group
from proxy import __version__, hangup

EPILOG = """\b
Examples:
  comporta init                               ask for providers and keys, and write a configuration
  comporta serve                              start with what the environment offers
  comporta serve --config gateway.yaml        start with a configuration file
  comporta check gateway.yaml                 say what a file means, and what is wrong with it
  comporta models                             list what can be asked for
  comporta config show                        every value, and where it comes from
  comporta config diff                        what is in force, against the file
  comporta credentials test                   do the providers' keys work
  comporta keys create ana                    a key for the user ana
  comporta explain                            the last requests, and what became of one

\b
Exit status: 0 done, 1 something failed, 2 wrong usage or configuration.
"""


#: In the order of the help, each in the file of its name; what the help and completion say of it begins its own help.
_COMMANDS = {
    "init": "Write a configuration.",
    "serve": "Start the gateway.",
    "check": "Validate a configuration file and explain it.",
    "models": "List the models that clients can ask for.",
    "config": "What can be configured, what is, and what was.",
    "credentials": "Keep providers' keys encrypted, test them, replace them.",
    "users": "Make users, change and remove them.",
    "keys": "Make the keys that clients show, replace and revoke them.",
    "audit": "Read the log of all changes, and see whether it is whole.",
    "explain": "Say what became of a request.",
    "completion": "Print the script that has SHELL complete commands.",
}


#: What a file, or a device, says that takes nothing more.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class _Commands(Group):
    """Imports only the command that is asked for: a server that starts need not know how keys are rotated."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().main(*args, **kwargs)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            streams.drop_output()
            click.echo(f"Error: this cannot be written: {error.strerror}", err=True)
            raise SystemExit(1) from None

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args[:1] == ["serve"]:
            hangup.keep()
            ctx.call_on_close(hangup.forgo)
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        named = [CompletionItem(name, help=said) for name, said in _COMMANDS.items() if name.startswith(incomplete)]
        return [*named, *click.Command.shell_complete(self, ctx, incomplete)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        # Imports make hardly any garbage, and the collector would go through all that they have made again and again: a tenth of a start.
        gc.disable()
        try:
            module = importlib.import_module(f"comporta.cli.{cmd_name}")
        finally:
            gc.freeze()
            gc.enable()
        found: click.Command = getattr(module, cmd_name)
        return found


_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group("comporta", cls=_Commands, epilog=EPILOG, context_settings=_CONTEXT)
@click.version_option(__version__, prog_name="comporta")
def main() -> None:
    """A gateway that speaks OpenAI: unmodified clients in front, any provider behind.

    With no configuration at all it finds providers in the environment (OPENAI_API_KEY, OPENAI_BASE_URL, a running Ollama), and a
    simulated one, `sim`, is always there to try things on.
    """
    streams.reopen()
