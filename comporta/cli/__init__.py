"""The command `comporta`: one file per sub-command."""

from __future__ import annotations

import gc
import importlib
import os

import click

from proxy import __version__

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


#: In the order of the help, each in the file of its name.
_COMMANDS = ("init", "serve", "check", "models", "config", "credentials", "users", "keys", "audit", "explain", "completion")


class _Commands(click.Group):
    """Imports only the command that is asked for: a server that starts need not know how keys are rotated."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        # To find plug-ins for itself pydantic would read the metadata of everything that is installed, and nobody has any for a gateway.
        os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
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
