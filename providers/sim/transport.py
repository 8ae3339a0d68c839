"""The way to the simulated server: no socket, but the pace and the faults of one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable, Iterator
from itertools import count

from providers.sim.dice import Lot
from providers.sim.engine import SimEngine
from providers.sim.settings import SimSettings
from providers.sim.wire import Answer, Part, Stamp, refusal
from proxy.core.call import Timeouts
from proxy.core.errors import START, ClientError, UpstreamError, late
from proxy.core.protocols import Clock, ShortCut, UpstreamRequest

_TURN = 16
_ERRORS: dict[int, tuple[str, str]] = {
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("invalid_request_error", "permission_denied"),
    404: ("invalid_request_error", "model_not_found"),
    429: ("requests", "rate_limit_exceeded"),
}
"""Status of a simulated failure -> type and code; below 500 else the request's fault, from there the server's."""


class SimTransport:
    """Answers in process. Implements `proxy.core.protocols.Transport`.

    Errors and cuts fall on POST requests, in the order in which they are sent. `clock` only dates the answers; the loop keeps the pace.
    """

    def __init__(self, settings: SimSettings, clock: Clock) -> None:
        self.settings = settings
        self._clock = clock
        self._engine = SimEngine(settings)
        self._errors = Lot(settings.error_share, settings.seed, "error")
        self._cuts = Lot(settings.cut_share, settings.seed, "cut")
        self._stalls = Lot(settings.stall_share, settings.seed, "stall")
        self._origin = f"{int(clock.time() * 1e6):x}"
        self._serial = count(1)
        self._live: set[SimResponse] = set()
        self._closed = False

    @property
    def live(self) -> int:
        """Answers that are neither read to their end nor closed."""
        return len(self._live)

    async def send(self, request: UpstreamRequest, timeouts: Timeouts) -> SimResponse:
        """Think as long as a server would before its head; a stream's head comes at once.

        Raises UpstreamError (`upstream_timeout`, `connect_failed`).
        """
        if self._closed:
            raise UpstreamError("connect_failed", "The simulated provider is closed.", reached=False)
        path = _path_of(request.url)
        body = (
            request.body
            if isinstance(request.body, bytes)
            else await _collected(request.body, keep=self._engine.takes(request.method, path))
        )
        if request.method == "POST" and self._errors.draw():
            answer = _failure(self.settings.error_status)
        else:
            stamp = Stamp(f"{self._origin}{next(self._serial):06x}", int(self._clock.time()))
            answer = self._engine.answer(request.method, path, body, stamp)
        if not answer.is_stream and answer.status < 400:
            await self._think(answer, timeouts)
        response = SimResponse(answer, self.settings, self._live)
        if answer.is_stream:
            if self._cuts.draw():
                response.cut_after(answer.tokens // 2)
            elif self._stalls.draw():
                response.stall_after(answer.tokens // 2)
        return response

    async def _think(self, answer: Answer, timeouts: Timeouts) -> None:
        seconds = self.settings.first_token + self.settings.per_token * max(answer.tokens - 1, 0)
        if not seconds:
            return
        limits = [limit for limit in (timeouts.first_token, timeouts.total) if limit is not None]
        limit = min(limits, default=seconds)
        await asyncio.sleep(min(seconds, limit))
        if limit < seconds:
            raise late(START, f"The provider did not answer within {limit:g} s.")

    async def close(self) -> None:
        self._closed = True
        for response in list(self._live):
            response.close()


class SimResponse:
    """An answer under way. Implements `proxy.core.protocols.UpstreamResponse`: each `receive` gives an event of a stream when due."""

    __slots__ = (
        "_cut",
        "_ended",
        "_error",
        "_live",
        "_next",
        "_paced",
        "_parts",
        "_per_token",
        "_sent",
        "_stall",
        "_start",
        "_turn",
        "_waiter",
        "headers",
        "status",
    )

    def __init__(self, answer: Answer, settings: SimSettings, live: set[SimResponse]) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self._parts: Iterator[Part] = answer.parts
        self._next: Part | None = None
        self._paced = answer.is_stream and bool(settings.first_token or settings.per_token)
        self._per_token = settings.per_token
        self._start = asyncio.get_running_loop().time() + settings.first_token
        self._sent = 0
        self._turn = 0
        self._cut: int | None = None
        self._stall: int | None = None
        self._ended = False
        self._error: UpstreamError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._live = live
        live.add(self)

    def cut_after(self, tokens: int) -> None:
        """Break the connection once `tokens`, and at least one, have been sent."""
        self._cut = max(tokens, 1)

    def stall_after(self, tokens: int) -> None:
        """Send nothing further once `tokens`, and at least one, have been sent."""
        self._stall = max(tokens, 1)

    def ready(self) -> bytes | None:
        return None

    def attach(self, take: Callable[[bytes], bool], short_cut: ShortCut | None = None) -> None:
        return None

    async def receive(self) -> bytes:
        if self._error is not None:
            raise self._error
        if self._ended:
            return b""
        if self._next is None:
            self._next = next(self._parts, None)
            if self._next is None:
                self._ended = True
                self._live.discard(self)
                return b""
        data, tokens = self._next
        if self._cut is not None and self._sent >= self._cut:
            self.fail(UpstreamError("reset", "The provider broke the connection off."))
        elif self._stall is not None and self._sent >= self._stall:
            await self._wait(None)
        elif self._paced:
            await self._keep_pace(tokens)
        self._turn += 1
        if not self._turn % _TURN:
            # A stream without pauses must not keep the event loop to itself.
            await asyncio.sleep(0)
        if self._error is not None:
            raise self._error
        # Only now: a receive that was cancelled has lost nothing.
        self._next = None
        self._sent += tokens
        return data

    async def _keep_pace(self, tokens: int) -> None:
        # What carries no token comes with the one before it. Due times are absolute, so a slow reader finds what has gathered meanwhile.
        due = self._start + self._per_token * (self._sent if tokens else max(self._sent - 1, 0))
        seconds = due - asyncio.get_running_loop().time()
        if seconds > 0:
            await self._wait(seconds)

    async def _wait(self, seconds: float | None) -> None:
        """Until `seconds` have passed (None: for ever), or until there is an error."""
        loop = asyncio.get_running_loop()
        self._waiter = waiter = loop.create_future()
        timer = None if seconds is None else loop.call_later(seconds, _finish, waiter)
        try:
            await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    def fail(self, error: UpstreamError) -> None:
        if self._error is None:
            self._error = error
        self._live.discard(self)
        if self._waiter is not None:
            _finish(self._waiter)

    def close(self, *, reuse: bool = False) -> None:
        if not self._ended:
            self.fail(UpstreamError("reset", "The connection to the simulated provider was closed."))
        self._live.discard(self)


def _finish(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _path_of(url: str) -> str:
    _, _, rest = url.partition("://")
    _, slash, path = rest.partition("/")
    path = (slash + path).partition("?")[0]
    return path.removeprefix("/v1") if path.startswith("/v1/") else path


async def _collected(body: AsyncIterable[bytes], *, keep: bool) -> bytes:
    """The body, read to its end as a server would; nothing is held of one that nobody looks at."""
    kept = [part async for part in body if keep]
    return b"".join(kept)


def _failure(status: int) -> Answer:
    kind, code = _ERRORS.get(status, ("invalid_request_error", "simulated_error") if status < 500 else ("server_error", "server_error"))
    error = ClientError("This failure is simulated, as error_share asks for.", status=status, type=kind, code=code)
    answer = refusal(error)
    if status in (429, 503):
        answer.headers["retry-after"] = "1"
    return answer
