"""Commands that have commands: one that is misspelt is told with the nearest."""

from __future__ import annotations

import click

from proxy.core.names import nearest


class Group(click.Group):
    """Says, of a command that it has not, which it has."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not (ctx.resilient_parsing or name.startswith("-")) and self.get_command(ctx, name) is None:
            ctx.fail(f"There is no command {name!r}; {nearest(name, self.list_commands(ctx))}.")
        return super().resolve_command(ctx, args)
