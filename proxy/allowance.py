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

#: Seconds that are due to an attempt where nobody has set any: to its first content, of whole answers to their end; and in silence after
#: it. A provider that is silent for longer is waited for by who has the patience; it is not kept for those who have it not.
_FIRST_TOKEN, _IDLE = 60.0, 30.0


def had_its_time(bound: str, given: Timeouts, due: Timeouts, deadline: float | None = None) -> bool:
    """Whether an attempt that `bound` has ended, of the limits it was `given`, had the time that is `due` to it.

    That are the administrator's limits for an attempt, and of `deadline` seconds for the whole request. Silences that nobody bounds have
    limits of their own, lest a provider that is silent to everybody be kept for good.
    """
    if bound == PACE:
        floor, least = given.min_tokens_per_second or 0.0, due.min_tokens_per_second or 0.0
        return floor <= least and given.window >= due.window
    own = _longest(bound, _due(due))
    return _longest(bound, given) >= _NEARLY * (own if deadline is None else min(own, deadline))


def _due(own: Timeouts) -> Timeouts:
    """The administrator's limits, with those of ours where nobody has set any."""
    unset = own.defaults
    first = _FIRST_TOKEN if own.first_token is None or "first_token" in unset else own.first_token
    return replace(own, first_token=first, idle=_IDLE if "idle" in unset else own.idle)


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


def _longest(bound: str, limits: Timeouts) -> float:
    """Seconds from the beginning of the attempt, or of the silence, to its end by that bound."""
    limit = {START: limits.first_token, CONNECT: limits.connect, IDLE: limits.idle}.get(bound, limits.total)
    total = _FOREVER if limits.total is None else limits.total
    return total if limit is None or limit > total else limit
