"""The way of a request, as two literal lists. Outermost first; a policy that is switched off is not in the list at all."""

from __future__ import annotations

from collections.abc import Awaitable, Iterator, Mapping, Sequence
from inspect import CO_VARARGS, CO_VARKEYWORDS
from types import FunctionType, MethodType
from typing import Any

import policies as installed
from proxy.core.call import Call
from proxy.core.protocols import Handler, Policy
from proxy.core.reply import Reply

#: Where installed policies stand, in the order of the configuration. One whose class says `per_attempt = True` stands in the second list.
INSTALLED = "(installed)"

#: Once for each request.
PER_REQUEST = (
    "record",  # every request ends in one record, whatever happened, so nothing stands outside it
    "authenticate",  # who asks; nothing further runs for a stranger
    "receive",  # the body is read here: nothing is read for a caller that a policy above refused
    "resolve",  # which configuration holds; needs the caller, and what the body asks for
    INSTALLED,  # what is installed beside comporta and named in the configuration: it knows the body, and not yet who serves
    "route",  # which targets may serve, and in what order; needs the body's model
    "fallback",  # another target when that one fails; each has attempts of its own
)

#: Once for each attempt at a target.
PER_ATTEMPT = (
    "retry",  # the same target again; outside of the breaker, which sees each attempt on its own
    "hedge",  # a second target beside a slow one; inside of retry, which sees one outcome of the two
    "adaptive_limit",  # what a provider can bear: refused here, an attempt costs nothing and says nothing of the target
    "circuit_breaker",  # what becomes of each attempt at each target; whoever chooses among targets asks it
    "timeout",  # how long this attempt may take, of what the client's own deadline leaves
    INSTALLED,
)


def acting(names: tuple[str, ...], configured: Mapping[str, Any], kinds: Mapping[str, Any]) -> Iterator[str]:
    """The policies of a list that are on. `configured` is the section `policies`; `kinds` are all classes by name."""
    for name in names:
        if name == INSTALLED:
            found = [other for other in configured if other not in installed.BUILT_IN and configured[other]]
            yield from (other for other in found if getattr(kinds[other], "per_attempt", False) is (names is PER_ATTEMPT))
        elif not is_off(name, configured, kinds):
            yield name


def is_off(name: str, configured: Mapping[str, Any], kinds: Mapping[str, Any]) -> bool:
    """Whether it is switched off, or only there for who asks for it and nobody has."""
    section = configured.get(name)
    return section is False or (section is None and getattr(kinds.get(name), "is_optional", False))


def compose(policies: Sequence[Policy], innermost: Handler) -> Handler:
    """One handler that runs `policies` around `innermost`."""
    handler = innermost
    for policy in reversed(policies):
        handler = _bound(policy, handler)
    return handler


def _bound(policy: Policy, call_next: Handler) -> Handler:
    """`policy` with what comes after it."""
    ask: Any = policy if isinstance(policy, FunctionType) else policy.__call__
    function = getattr(ask, "__func__", ask)
    if _takes_two(function, bound=function is not ask):
        # A copy of it whose last parameter has a default: each step is one call then, and a closure around it would make it two.
        filled = FunctionType(function.__code__, function.__globals__, function.__name__, (call_next,), function.__closure__)
        return filled if function is ask else MethodType(filled, ask.__self__)

    def handler(call: Call) -> Awaitable[Reply]:
        answer: Awaitable[Reply] = ask(call, call_next)
        return answer

    return handler


def _takes_two(function: Any, *, bound: bool) -> bool:
    """Whether it is written in Python, with a call and a handler as its only parameters."""
    if not isinstance(function, FunctionType) or function.__defaults__ is not None:
        return False
    code = function.__code__
    is_fixed = code.co_kwonlyargcount == 0 and not code.co_flags & (CO_VARARGS | CO_VARKEYWORDS)
    return is_fixed and code.co_argcount == 2 + bound


def receive(call: Call, call_next: Handler) -> Awaitable[Reply]:
    """Read and check the body. How is the edge's affair; when is decided by this policy's place in the list."""
    arriving = call.receive(call)
    return call_next(call) if arriving is None else _received(arriving, call, call_next)


async def _received(arriving: Awaitable[None], call: Call, call_next: Handler) -> Reply:
    await arriving
    call.arriving = call.awaited
    return await call_next(call)
