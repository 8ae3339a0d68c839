"""What is answered where there is no request: to bytes that are none, and to a connection too many. Each answer has a line."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from policies.record import line, verdict
from proxy.core.call import Call
from proxy.core.errors import CapacityError, GatewayError
from proxy.core.metrics import Registry
from proxy.core.protocols import Clock
from proxy.http import errors
from proxy.http.server import Connection
from proxy.http.serving import Serving
from proxy.http.write import Writer, compose_head


class Refusals:
    """`serving` is asked each time for what takes the line, None where requests have none, and for which pages may read it."""

    def __init__(self, ids: Iterator[str], clock: Clock, metrics: Registry, serving: Callable[[], Serving]) -> None:
        self._ids = ids
        self._clock = clock
        self._rejected = metrics.counter("llm_rejected_total", "Requests that the gateway itself refused.", "code")
        self._serving = serving

    def refuse(self, connection: Connection, status: int) -> None:
        """The answer to bytes that are no HTTP request."""
        error = errors.no_http(status)
        writer = Writer(connection)
        writer.close_after()
        writer.cors = self._cors(connection.origin)
        writer.whole(status, self._noted(error), errors.body(error))

    def turn_away(self) -> bytes:
        """The whole answer to a connection that is one too many."""
        error = CapacityError("The gateway has as many connections as it may have.", retry_after=1.0)
        content = errors.body(error)
        headers = {**self._noted(error), "content-length": str(len(content)), "connection": "close"}
        return compose_head(error.status, headers, self._cors(None)) + content

    def _cors(self, origin: str | None) -> str:
        cors = self._serving().cors
        return "" if cors is None else cors.lines(origin)

    def _noted(self, error: GatewayError) -> dict[str, str]:
        """The headers of the answer, which is counted and has its line from now on."""
        id, emit, now = next(self._ids), self._serving().emit, self._clock.monotonic()
        status, outcome, code = verdict(None, error)
        self._rejected.labels(code or "unknown").value += 1
        if emit is not None:
            emit(line(Call(id, "unknown", "", "", "", {}, now, lambda _call: None), status, outcome, code, now))
        return {**errors.headers(error), "x-request-id": id}
