"""The command `comporta`: one file per sub-command."""

from __future__ import annotations

import click

from comporta.cli.audit import audit
from comporta.cli.check import check
from comporta.cli.config import config
from comporta.cli.credentials import credentials
from comporta.cli.init import init
from comporta.cli.keys import keys
from comporta.cli.models import models
from comporta.cli.serve import serve
from comporta.cli.users import users
from proxy import __version__

EPILOG = """\b
Examples:
  comporta init                               ask for providers and keys, and write a configuration
  comporta serve                              start with what the environment offers
  comporta serve --config gateway.yaml        start with a configuration file
  comporta check gateway.yaml                 say what a file means, and what is wrong with it
  comporta models                             list what can be asked for
  comporta config show                        every value, and where it comes from
  comporta credentials test                   do the providers' keys work
  comporta keys create ana                    a key for the user ana

\b
Exit status: 0 done, 1 something failed, 2 wrong usage or configuration.
"""


_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(
    "comporta", commands=[init, serve, check, models, config, credentials, users, keys, audit], epilog=EPILOG, context_settings=_CONTEXT
)
@click.version_option(__version__, prog_name="comporta")
def main() -> None:
    """A gateway that speaks OpenAI: unmodified clients in front, any provider behind.

    With no configuration at all it finds providers in the environment (OPENAI_API_KEY, OPENAI_BASE_URL, a running Ollama), and a
    simulated one, `sim`, is always there to try things on.
    """
