"""Tables for people: as wide as the terminal, or, in a pipe, as what is in them."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

_IN_A_PIPE = 1000


def show(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """None is shown as a dash. Values are text, never markup."""
    table = Table(*columns, box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for row in rows:
        table.add_row(*(Text("-" if value is None else str(value)) for value in row))
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else _IN_A_PIPE, highlight=False)
    console.print(table)
