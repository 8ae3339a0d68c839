"""Requests for a model that their path names: they go where that name leads, under the name that the model has there.

It is this model and no other that is meant (it is deleted, it is shared with a project): no fallback stands in for it.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable
from urllib.parse import quote, unquote

from proxy.core.call import Call
from proxy.core.errors import ClientError
from proxy.core.protocols import Handler
from proxy.core.reply import Reply
from proxy.routing.table import Table

#: A checkpoint is the name of a model that is fine-tuned.
_NAMED = re.compile(r"(/models/)(.+)()|(/fine_tuning/checkpoints/)([^/]+)(/permissions.*)")


def split(path: str) -> tuple[str, str, str] | None:
    """What stands before the model's name in a path, the name, unescaped, and what follows; None: it names no model."""
    found = _NAMED.fullmatch(path)
    if found is None:
        return None
    before, name, after = (each for each in found.groups() if each is not None)
    return before, unquote(name), after


class Naming:
    """A policy. Whoever may not have the model is refused as for a body that names it; a name that the table has not is left as it is.

    Stands behind whatever reads the body, which has no say in this.
    """

    def __init__(self, table: Table) -> None:
        self._table = table

    def __call__(self, call: Call, call_next: Handler) -> Awaitable[Reply]:
        found = split(call.path)
        if found is not None:
            try:
                self._table.find(found[1])
            except ClientError:
                pass  # fine-tuned models of the default provider are mostly in no table
            else:
                call.model = found[1]
        return call_next(call)


def rename(call: Call, call_next: Handler) -> Awaitable[Reply]:
    """A policy: the path as the call's target knows it."""
    found, target = split(call.path), call.target
    if found is not None and target is not None and target.model is not None and found[1] == call.model != target.model:
        before, _, after = found
        call.path = before + quote(target.model, safe=":") + after
    return call_next(call)


def by_path(named: Handler, others: Handler) -> Handler:
    """`named` for whoever's path names a model, `others` for everybody else."""

    def ask(call: Call) -> Awaitable[Reply]:
        return (others if split(call.path) is None else named)(call)

    return ask
