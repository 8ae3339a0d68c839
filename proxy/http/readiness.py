"""`/healthz` and `/readyz` of the data plane: whether the process lives, whether it takes requests, and, if asked, what it works with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeAlias

import orjson

from proxy.http import errors
from proxy.http.request_line import RequestLine
from proxy.http.write import Writer

#: The paths that are answered here.
HEALTH = frozenset({"/healthz", "/readyz"})

#: What of a query asks for what stands behind readiness, as Kubernetes spells that.
_VERBOSE = frozenset({"verbose", "verbose=1", "verbose=true"})

#: What is shown of providers, storage and the rest. Whoever can connect may ask for it.
Told: TypeAlias = Callable[[], Awaitable[dict[str, Any]]]


class Readiness:
    """Neither answer waits for anything, but for `told`. `state` is `ready`, or why it takes no requests."""

    def __init__(self, state: Callable[[], str], told: Told | None, ids: Iterator[str]) -> None:
        self._state = state
        self._told = told
        self._ids = ids

    async def __call__(self, line: RequestLine, writer: Writer) -> bool:
        """Answer; says whether the connection may carry another request."""
        headers = {"content-type": "application/json", "x-request-id": next(self._ids)}
        if line.method != "GET":
            error = errors.unknown_route(line.path, ("GET", "HEAD"))
            writer.whole(error.status, {**errors.headers(error), **headers}, errors.body(error))
        elif line.path == "/readyz" and self._told is not None and not _VERBOSE.isdisjoint(line.query.split("&")):
            told = await self._told()
            status, word = self._answer()
            writer.whole(status, headers, orjson.dumps({"status": word, **told}))
        else:
            status, word = (200, "ok") if line.path == "/healthz" else self._answer()
            writer.whole(status, headers, orjson.dumps({"status": word}))
        return writer.keep_alive

    def _answer(self) -> tuple[int, str]:
        state = self._state()
        return (200, "ok") if state == "ready" else (503, state)
