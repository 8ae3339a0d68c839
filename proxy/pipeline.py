"""The way of a request, as two literal lists. Outermost first; a policy that is switched off is not in the list at all."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

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
    INSTALLED,  # what is installed beside comporta and named in the configuration: it knows the body, and not yet who serves
    "route",  # which provider serves; needs the body's model
)

#: Once for each attempt at a target.
PER_ATTEMPT = (
    "timeout",  # how long this attempt may take, of what the client's own deadline leaves
    INSTALLED,
)


def compose(policies: Sequence[Policy], innermost: Handler) -> Handler:
    """One handler that runs `policies` around `innermost`."""
    handler = innermost
    for policy in reversed(policies):
        handler = _bound(policy, handler)
    return handler


def _bound(policy: Policy, call_next: Handler) -> Handler:
    return partial(policy.__call__, call_next=call_next)


async def receive(call: Call, call_next: Handler) -> Reply:
    """Read and check the body. How is the edge's affair; when is decided by this policy's place in the list."""
    await call.receive(call)
    return await call_next(call)
