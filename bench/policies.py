"""What each policy costs a request that needs nothing of it: its first attempt succeeds at once.

`python -m bench.policies`, or `make bench-policies`.

Each policy is run around a handler that answers, with calls as the edge makes them for a head that a client repeats; what the handler and
the making of the call cost is taken off, round by round. Processor time of the thread.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import orjson
from multidict import CIMultiDict, CIMultiDictProxy

from bench import machine, overhead, payload, report
from policies.authenticate import Authenticate
from policies.circuit_breaker import CircuitBreaker
from policies.fallback import Fallback
from policies.hedge import Hedge
from policies.record import Record
from policies.resolve import Resolve
from policies.retry import Retry
from policies.route import Route
from policies.timeout import Timeout
from proxy.core import keys
from proxy.core.call import Call, Principal, Target, Timeouts, Usage
from proxy.core.hierarchy import Hierarchy
from proxy.core.metrics import Registry
from proxy.core.protocols import Handler, Policy, Services
from proxy.core.reply import Reply
from proxy.core.resolved import Preferences
from proxy.pipeline import compose
from proxy.routing.router import Router
from proxy.routing.table import Table
from proxy.storage.identities import Identities, KnownKey

_PEPPER = b"b" * 32
_FOR = Timeouts()
_USED = Usage(200, 50, reported=True)

#: For people: a policy, or several that always come together.
TITLE = "a request whose first attempt succeeds"


class _Clock:
    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)


class _Log:
    """Takes what the server's own log does, and writes nothing."""

    def __call__(self, _event: dict[str, Any], /) -> None:
        pass

    def members(self, _form: bytes, _values: tuple[bytes | int, ...]) -> None:
        pass


class _Patience:
    def timeouts(self, _call: Call) -> Timeouts:
        return _FOR


async def _answered(_call: Call) -> Reply:
    return Reply(200, None, b"{}")


def _known(token: str, id: str) -> Identities:
    """A key that is in hand, as it is for nearly every request."""

    async def find(_id: str) -> KnownKey:
        return KnownKey(Principal("ann", id), keys.digest(token, _PEPPER))

    identities = Identities(find, _PEPPER, _Clock())
    asyncio.run(identities.find(token))
    return identities


def chains() -> dict[str, tuple[list[Policy], str | None]]:
    """By name: the policies, and the key that the client shows."""
    public, token = keys.generate()
    services = Services(_Clock(), Registry(), _Log())
    keyed = Services(_Clock(), Registry(), _Log(), _known(token, public))
    table = Table({payload.MODEL: Target("upstream", payload.MODEL, payload.MODEL)}, frozenset({"upstream"}), "upstream")
    router = Router(table, {"upstream": _Patience()}, services.board, services.clock)
    llm = Hierarchy(Preferences(timeout=60.0, max_retries=2), {"REPORT": Preferences(timeout=120.0)}, {payload.MODEL: {"top_p": 0.9}})
    is_open = Authenticate(Authenticate.Settings(open=True), services)
    resilience: list[Policy] = [
        Route(router),
        Fallback(Fallback.Settings(), services, router),
        Retry(Retry.Settings(), services),
        CircuitBreaker(CircuitBreaker.Settings(), services),
        Timeout(Timeout.Settings(), services),
    ]
    record = Record(Record.Settings(), services)
    return {
        "record, without the log's line": ([Record(Record.Settings(log=False), services)], None),
        "record": ([record], None),
        "authenticate, an open gateway": ([is_open], None),
        "authenticate, a key that is known": ([Authenticate(Authenticate.Settings(open=False), keyed)], token),
        "resolve, without a section `llm`": ([Resolve(None, services)], None),
        "resolve, with one": ([Resolve(llm, services)], None),
        "route, fallback": (resilience[:2], None),
        "retry": (resilience[2:3], None),
        "circuit_breaker": (resilience[3:4], None),
        "timeout": (resilience[4:], None),
        "route, fallback, retry, circuit_breaker, timeout": (resilience, None),
        "the same with hedge": ([*resilience[:3], Hedge(Hedge.Settings(), services, router), *resilience[3:]], None),
        "all of a gateway without configuration": ([record, is_open, Resolve(None, services), *resilience], None),
    }


def calls(token: str | None) -> Callable[[], Call]:
    """Makes calls of a client that repeats its head."""
    shown = "sk-somebody-else" if token is None else token
    headers = CIMultiDictProxy(CIMultiDict({"Authorization": f"Bearer {shown}", "Content-Type": "application/json", "Accept": "*/*"}))
    raw = payload.chat_body(1024)
    body: dict[str, Any] = orjson.loads(raw)
    memo: dict[Any, Any] = {}
    target = Target("upstream", payload.MODEL, payload.MODEL)

    def make() -> Call:
        call = Call("req_1", "chat", "POST", "/chat/completions", "", headers, time.monotonic(), _no_body, memo, "127.0.0.1")
        call.raw, call.body, call.model, call.target, call.timeouts = raw, body, payload.MODEL, target, _FOR
        call.usage = _USED
        return call

    return make


def _no_body(_call: Call) -> None: ...


def seconds(handler: Handler, make: Callable[[], Call], times: int) -> float:
    """Processor time of one call, in seconds. Raises RuntimeError where a policy waits for anything."""
    started = time.thread_time()
    for _ in range(times):
        answering = cast(Coroutine[Any, Any, Reply], handler(make()))
        try:
            answering.send(None)
        except StopIteration as done:
            done.value.close()
        else:
            raise RuntimeError("a policy waits where nothing is to be waited for")
    return (time.thread_time() - started) / times


def measure(rounds: int, times: int) -> report.Result:
    """Microseconds of each, over its handler's."""
    handlers = {name: (compose(policies, _answered), calls(token)) for name, (policies, token) in chains().items()}
    bare = calls(None)
    found: dict[str, list[float]] = {name: [] for name in handlers}
    for _ in range(rounds):
        for name, (handler, make) in handlers.items():
            # Side by side, since a machine's pace changes from one moment to the next.
            floor = seconds(_answered, bare, times)
            found[name].append(seconds(handler, make, times) - floor)
    return {
        "schema": 1,
        "kind": "policies",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine.description(),
        "versions": machine.versions(),
        "parameters": {"rounds": rounds, "times": times},
        "policies_us": {name: _spread(took) for name, took in found.items()},
    }


def _spread(took: Sequence[float]) -> dict[str, float]:
    """In microseconds: the median, and the middle half of the rounds."""
    low, median, high = (1e6 * each for each in statistics.quantiles(took, n=4))
    return {"median": median, "low": low, "high": high}


def rows(found: Mapping[str, Mapping[str, float]]) -> Iterator[list[str]]:
    """For tables: the name, the median microseconds, and the middle half of the rounds."""
    for name, spread in found.items():
        yield [name, f"{spread['median']:.2f}", f"{spread['low']:.2f} - {spread['high']:.2f}"]


#: Over the columns of `rows`.
HEAD = (TITLE, "us", "middle half of the rounds")


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.policies", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=51, help="(%(default)s)")
    parser.add_argument("--times", type=int, default=500, help="calls of each policy in a round (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON instead of as a table")
    parser.add_argument("--output", type=Path, help="where the JSON is kept (bench/results/<date>-policies.json)")
    given = parser.parse_args(arguments)
    result = measure(given.rounds, given.times)
    text = json.dumps(result, indent=1) + "\n"
    output = given.output or overhead.RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-policies.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text)
    sys.stderr.write(f"kept in {output}\n")
    sys.stdout.write(text if given.json else report.grid(list(HEAD), list(rows(result["policies_us"]))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
