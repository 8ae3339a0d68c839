"""Where the server is marked, and what lies between two marks. The one file here that knows the server's own names.

Hung on are the interfaces that the design names: the data plane's call, the list of policies that `compose` is given, a provider's methods,
a transport's `send`. The rest is asyncio's.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any

import providers
from bench.timeline import HARNESS, SeamMissing, Timeline, around, awaiting, entering, replaced
from proxy import dispatch, pipeline, transport
from proxy.http import data_plane

KIND = "openai"

#: All of it, where nothing is marked on the way.
WHOLE = "(whole)"

#: What lies between two marks (patterns as in fnmatch). The first that fits; what fits none is shown by its marks.
RULES: tuple[tuple[str, str, str], ...] = (
    ("*.write", "*.written", HARNESS),
    ("begin", "*.in", HARNESS),
    ("begin", "idle", WHOLE),  # without marks on the way
    ("client.in", "client.out", "parse head, take in body"),
    ("client.out", "plane.enter", "wake the connection's task"),
    ("plane.enter", "policy.*.enter", "find route, make call"),
    ("policy.receive.enter", "*", "read and parse body"),
    ("policy.*.enter", "*", "policies, going in"),
    ("dispatch.enter", "encode.enter", "attempt, going out"),
    ("encode.enter", "encode.exit", "encode"),
    ("encode.exit", "send.enter", "attempt, going out"),
    ("send.enter", "upstream.write", "transport: send"),
    ("upstream.written", "client.out", "suspend until the answer"),  # where a request is begun within the read of its body
    ("upstream.written", "upstream.in", "suspend until the answer"),
    ("upstream.in", "upstream.out", "transport: receive"),
    ("upstream.in", "feed.enter", "transport: receive"),
    ("upstream.in", "client.write", "chunk: receive, know and write"),  # where it goes by in one step
    ("upstream.in", "decode.enter", "transport: receive"),
    ("upstream.out", "decode.enter", "wake the request's task"),
    ("upstream.out", "stream_decoder.enter", "wake the request's task"),
    ("upstream.out", "feed.enter", "wake the request's task"),
    ("upstream.out", "client.write", "wake the request's task"),
    ("stream_decoder.enter", "stream_decoder.exit", "decode"),
    ("stream_decoder.exit", "feed.enter", "attempt, coming back"),
    ("decode.enter", "decode.exit", "decode"),
    ("feed.enter", "feed.exit", "decode"),
    ("decode.exit", "dispatch.exit", "attempt, coming back"),
    ("feed.exit", "dispatch.exit", "attempt, coming back"),
    ("dispatch.exit", "policy.*.exit", "policies, coming back"),
    ("policy.*.exit", "policy.*.exit", "policies, coming back"),
    ("policy.*.exit", "client.write", "write"),
    ("feed.exit", "client.write", "write"),
    ("client.written", "emit.enter", "record"),
    ("emit.enter", "emit.exit", "log (hand over)"),
    ("emit.exit", "plane.exit", "record"),
    ("client.written", "upstream.out", "after the write"),
    ("client.written", "idle", "after the write"),
    ("upstream.out", "idle", "after the write"),
    ("plane.exit", "*", "await the next request"),
)


@contextmanager
def marked(timeline: Timeline) -> Iterator[None]:
    """Gateways that are built meanwhile are marked. Raises SeamMissing."""
    provider = providers.kinds().get(KIND)
    if provider is None:
        raise SeamMissing(f"the provider kind {KIND}")
    with ExitStack() as stack:
        stack.enter_context(replaced(data_plane._Exchange, "answer", awaiting(timeline, "plane")))
        for module in _composers():
            stack.enter_context(replaced(module, "compose", _composing(timeline)))
        stack.enter_context(replaced(dispatch.Dispatch, "__call__", awaiting(timeline, "dispatch")))
        stack.enter_context(replaced(transport.PooledTransport, "send", entering(timeline, "send.enter")))
        stack.enter_context(replaced(provider, "encode", around(timeline, "encode")))
        stack.enter_context(replaced(provider, "decode", around(timeline, "decode")))
        stack.enter_context(replaced(provider, "stream_decoder", _decoding(timeline, stack)))
        yield


def _composers() -> list[ModuleType]:
    """The modules that put lists of policies together. Raises SeamMissing."""
    modules = [module for name, module in sys.modules.items() if name.startswith("proxy.") and name != pipeline.__name__]
    found = [module for module in modules if vars(module).get("compose") is pipeline.compose]
    if not found:
        raise SeamMissing("whoever calls proxy.pipeline.compose")
    return found


def _composing(timeline: Timeline) -> Callable[[Any], Any]:
    """Marks each policy where it begins, and the outermost of a list also where it ends."""

    def make(compose: Any) -> Any:
        def composed(policies: Sequence[Any], innermost: Any) -> Any:
            return compose([_policy(timeline, policy, index == 0) for index, policy in enumerate(policies)], innermost)

        return composed

    return make


def _policy(timeline: Timeline, policy: Any, outermost: bool) -> Any:
    function = policy if inspect.isfunction(policy) else type(policy).__call__.__get__(policy)
    name = f"policy.{getattr(policy, '__name__', type(policy).__name__).lower()}"
    wrap = awaiting(timeline, name) if outermost else entering(timeline, f"{name}.enter")
    return wrap(function)


def _decoding(timeline: Timeline, stack: ExitStack) -> Callable[[Any], Any]:
    """Marks the making of a stream's decoder, and from then on the decoder's `feed`."""
    mark = timeline.mark
    known: set[type] = set()

    def make(stream_decoder: Any) -> Any:
        def decoding(*arguments: Any, **named: Any) -> Any:
            mark("stream_decoder.enter")
            decoder = stream_decoder(*arguments, **named)
            if type(decoder) not in known:
                known.add(type(decoder))
                stack.enter_context(replaced(type(decoder), "feed", around(timeline, "feed")))
            mark("stream_decoder.exit")
            return decoder

        return decoding

    return make
