"""The client of every locust file: it asks, reads the answer as it comes, and leaves a record."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import gevent
import orjson
from gevent import GreenletExit
from gevent.local import local
from gevent.pool import Pool
from geventhttpclient.response import HTTPConnectionClosed, HTTPParseError
from locust import FastHttpUser

from loadtests import record
from loadtests.arrivals import arrivals, portion
from loadtests.events import kind_of
from loadtests.plan import current
from loadtests.prompts import Zipf, prompt
from loadtests.record import Record
from loadtests.stages import CURVES

_MOST_OPEN = 2048
_BROKEN = (OSError, HTTPParseError, ValueError, gevent.Timeout)

#: Of a clock that never goes back; only its zero is the epoch's.
_EPOCH = time.time() - time.perf_counter()


def now() -> float:
    """Seconds since the epoch."""
    return _EPOCH + time.perf_counter()


class Leaving(gevent.Timeout):
    """The client goes, as it was told to."""


class NotMeant(Exception):
    """A request ended otherwise than it was meant to; locust counts it as a failure."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request to be made. `leave_after`: seconds to the head, after which the client goes; `leave_at`: that many deltas of content."""

    operation: str
    path: str
    body: bytes
    stream: bool = False
    prompt: int | None = None
    meant: Sequence[str] = ("ok",)
    leave_after: float | None = None
    leave_at: int | None = None


class Caller(FastHttpUser):
    """One client, or in an open loop one generator of arrivals. Its tasks are those of the locust file."""

    abstract = True
    concurrency = _MOST_OPEN
    connection_timeout = 10.0
    network_timeout = current().patience

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        plan = current()
        self.plan = plan
        self.random = Random()
        self._arrival = local()  # of the greenlet that makes a request of an open loop: when it was to be sent
        self._zipf = Zipf(plan.prompts, plan.zipf)

    def on_start(self) -> None:
        if self.plan.rate:
            self._offer()
            raise GreenletExit  # the quiet way to end a user: locust logs a StopUser that comes from here as an error

    def _offer(self) -> None:
        """Send each request at its time. What finds no room waits, and its latency counts from its time all the same."""
        plan = self.plan
        number = max(0, getattr(self.environment.runner, "worker_index", 0))  # -1 and absent: the only process
        times = portion(arrivals(CURVES[plan.shape], plan.rate, plan.seconds, plan.seed), number, plan.users)
        pool = Pool(_MOST_OPEN)
        begin = now()
        for at in times:
            gevent.sleep(max(0.0, begin + at - now()))
            pool.spawn(self._arrive, begin + at)
        pool.join(plan.patience)

    def _arrive(self, intended: float) -> None:
        self._arrival.time = intended
        act: Any = self.random.choice(self.tasks)
        act(self)

    def draw(self) -> int:
        """The rank of a prompt."""
        return self._zipf.rank(self.random.random())

    # -- what can be asked --

    def chat(self, model: str, *, stream: bool, **more: Any) -> Record:
        """One chat; `more` are fields of the Ask."""
        rank = self.draw()
        body = {"model": model, "messages": [{"role": "user", "content": prompt(rank)}], "stream": stream}
        ask = {"operation": "streaming" if stream else "chat", "prompt": rank, **more}
        return self.ask(Ask(path="/v1/chat/completions", body=orjson.dumps(body), stream=stream, **ask))

    def embed(self, model: str) -> Record:
        """The embeddings of one text."""
        rank = self.draw()
        body = orjson.dumps({"model": model, "input": prompt(rank)})
        return self.ask(Ask("embeddings", "/v1/embeddings", body, prompt=rank))

    # -- asking --

    def ask(self, ask: Ask) -> Record:
        """Make one request. Whatever becomes of it, it is recorded, and told to locust."""
        sent = now()
        found = Record(ask.operation, getattr(self._arrival, "time", sent), sent, list(ask.meant), prompt=ask.prompt, stream=ask.stream)
        try:
            self._exchange(ask, found)
        finally:
            found.end = found.end or now()
            record.sink(self.plan.out).write(found.encode())
        return found

    def _exchange(self, ask: Ask, found: Record) -> None:
        manager, error = self._send(ask)
        if isinstance(error, HTTPConnectionClosed):
            # The gateway had closed this connection while it lay idle here, before it read the request. Every client asks again then.
            found.resent += 1
            manager, error = self._send(ask)
        with manager as response:
            found.status = response.status_code
            if response._response is None:
                found.outcome = _outcome_of(error)
                found.error = None if isinstance(error, Leaving) else repr(error)
            else:
                found.id = response.headers.get("x-request-id") if response.headers else None
                self._read(ask, found, response)
            found.end = now()
            response.request_meta["response_time"] = found.latency * 1000
            response.request_meta["response_length"] = found.bytes
            if found.is_as_meant:
                response.success()
            else:
                response.failure(NotMeant(f"{found.outcome}: {found.error or found.status}"))

    def _send(self, ask: Ask) -> tuple[Any, BaseException | None]:
        """The request; comes back with the answer's head, or with why there is none."""
        headers = {"content-type": "application/json", "accept-encoding": "identity"}
        body: Any = ask.body  # bytes go as they are; the annotation of FastHttpSession knows text alone
        leaving = Leaving(ask.leave_after)  # None: never
        leaving.start()
        try:
            manager = self.client.request(
                "POST", ask.path, name=ask.operation, data=body, headers=headers, stream=True, catch_response=True
            )
        finally:
            leaving.close()
        return manager, _cause(getattr(manager, "error", None))

    def _read(self, ask: Ask, found: Record, response: Any) -> None:
        raw = response._response
        try:
            if ask.stream and found.status == 200:
                _read_stream(ask, found, raw, self.plan.gaps)
            else:
                _read_whole(found, response.content)
        except _BROKEN as error:
            found.outcome, found.error = _outcome_of(error), repr(error)
        finally:
            raw.release()  # what was not read to its end is closed, and not used again


def _outcome_of(error: BaseException | None) -> str:
    if isinstance(error, Leaving):
        return "cancelled"
    return "gave_up" if isinstance(error, TimeoutError | gevent.Timeout) else "lost"


def _cause(error: Any) -> BaseException | None:
    """What geventhttpclient packs into its own error, with the address and the time it took, which make every error another one."""
    inner = getattr(error, "original", None)
    found = error if inner is None else inner
    return found if isinstance(found, BaseException) else None


def _read_whole(found: Record, body: bytes) -> None:
    found.bytes = len(body)
    value = orjson.loads(body)
    if found.status == 200:
        found.outcome = "ok" if value.get("choices") or value.get("data") else "lost"
    else:
        found.error = value["error"].get("code")
        found.outcome = "failed" if found.status >= 500 else "refused"


def _read_stream(ask: Ask, found: Record, raw: Any, gaps: bool) -> None:
    """Event by event, to `[DONE]` and the end of the body."""
    before = 0.0
    ending = None
    while event := raw.readline(b"\n\n"):
        at = now()
        found.bytes += len(event)
        kind = kind_of(event)
        if ending is not None:
            raise ValueError(f"after {ending} came {event[:80]!r}")
        if kind == "content":
            found.tokens += 1
            if found.first_token is None:
                found.first_token = at
            elif gaps:
                found.gaps_ms.append(round((at - before) * 1000, 3))
            before = at
        elif kind == "error":
            # OpenAI's SDKs raise here and drop the connection, which the gateway is about to close.
            found.outcome = "broken"
            return
        elif kind == "done":
            ending = kind
        if ask.leave_at is not None and found.tokens >= ask.leave_at:
            found.outcome = "cancelled"
            return
    if ending is None:
        raise ValueError("the stream ended with neither [DONE] nor an error")
    found.outcome = "ok"
