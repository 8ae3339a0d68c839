"""Which targets serve a call, and in what order: a choice among what is configured.

What a client sends chooses among configured targets, never a destination.
"""

from __future__ import annotations

from collections.abc import Awaitable

from proxy.core.call import Call
from proxy.core.protocols import Handler
from proxy.core.reply import Reply
from proxy.routing.router import Router


class Route:
    """Sets the call's target, from its provider's settings its timeouts, and the model's further targets for when that one fails."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._routes = router.table.routes
        self._find = router.find

    def __call__(self, call: Call, call_next: Handler) -> Awaitable[Reply]:
        # Without a coroutine of its own: nothing is waited for here.
        router, limits, model = self._router, call.principal, call.model
        if limits.models is None and limits.providers is None and model not in self._routes:
            router.direct(call, self._find(model))
        else:
            first, *others = router.targets(model, call)
            call.others = tuple(others)
            router.direct(call, first)
        return call_next(call)
