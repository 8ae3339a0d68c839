"""The standard streams of a command that may go on for long after whoever started it has left."""

from __future__ import annotations

import os
import sys

_NAMES = {0: ("stdin", "r"), 1: ("stdout", "w"), 2: ("stderr", "w")}


def reopen() -> None:
    """Have /dev/null for those that were closed: else what is opened next has their number, and gets what is written there."""
    while (opened := os.open(os.devnull, os.O_RDWR)) in _NAMES:
        os.set_inheritable(opened, True)
    os.close(opened)
    for number, (name, mode) in _NAMES.items():
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def drop_output() -> None:
    """Nobody reads it: what was not written is not written at the end either."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
