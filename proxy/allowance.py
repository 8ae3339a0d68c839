"""Whose limit ended an attempt: the administrator's, which speaks against the provider, or a stricter one of the request's."""

from __future__ import annotations

from dataclasses import replace

from proxy.core.call import Call, Timeouts
from proxy.core.errors import CONNECT, IDLE, PACE, START
from proxy.core.hierarchy import SYSTEM, TASK_TYPE, TIMEOUTS
from proxy.core.resolved import Resolved

#: Levels of the configuration hierarchy that are the administrator's. What users and requests set is theirs.
_ADMINISTRATORS = frozenset({SYSTEM, TASK_TYPE})

#: How much of its time an attempt must have had. A client's limit that is as long as the administrator's is reached a moment sooner: it
#: began with the request, the attempt later.
_NEARLY = 0.9

_FOREVER = float("inf")

#: Seconds to the first content where nobody has set any.
_UNBOUNDED = Timeouts().first_token


def had_its_time(bound: str, given: Timeouts, due: Timeouts, deadline: float | None = None) -> bool:
    """Whether an attempt that `bound` has ended, of the limits it was `given`, had the time that is `due` to it.

    That are the administrator's limits for an attempt, and of `deadline` seconds for the whole request. Whole answers whose beginning
    nobody bounds are given as long as a stream's, lest a provider that is silent to everybody be kept for good.
    """
    if bound == PACE:
        floor, least = given.min_tokens_per_second or 0.0, due.min_tokens_per_second or 0.0
        return floor <= least and given.window >= due.window
    own = _longest(bound, due, _UNBOUNDED)
    return _longest(bound, given, None) >= _NEARLY * (own if deadline is None else min(own, deadline))


def own_share(given: Timeouts, awaited: float) -> Timeouts:
    """What is left of the total of an attempt that waited so many seconds for the client's own body: those were not the provider's.

    One that nobody has set began anew with each piece of that body, and is the provider's whole.
    """
    return given if given.total is None or "total" in given.defaults else replace(given, total=given.total - awaited)


def due_to(call: Call, own: Timeouts) -> tuple[Timeouts, float | None]:
    """What the administrator gives an attempt of `call`, and the whole of it, in seconds. `own`: the provider's timeouts."""
    resolved: Resolved | None = call.resolved
    if resolved is None:
        return own, None
    by = resolved.sources
    set_for_it = {name: value for name, value in resolved.timeouts.items() if by.get(TIMEOUTS + name) in _ADMINISTRATORS}
    return own.overridden(set_for_it) if set_for_it else own, resolved.timeout if by.get("timeout") in _ADMINISTRATORS else None


def _longest(bound: str, limits: Timeouts, first_token: float | None) -> float:
    """Seconds from the beginning of the attempt, or of the silence, to its end by that bound. `first_token` holds where it is unset."""
    if bound == START:
        limit = first_token if limits.first_token is None else limits.first_token
    else:
        limit = limits.connect if bound == CONNECT else limits.idle if bound == IDLE else limits.total
    total = _FOREVER if limits.total is None else limits.total
    return total if limit is None or limit > total else limit
