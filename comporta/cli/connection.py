"""Whether a provider can be reached with a key, for commands; see `proxy.trial`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from proxy import trial
from proxy.fields import Section
from proxy.secrets import SecretError
from proxy.trial import Verdict

#: How many providers are asked at once.
_AT_ONCE = 16


def tried_with(section: Section, secret: str | None) -> Verdict:
    """The verdict with this key, which is kept nowhere; None: with no key."""
    return tried_all([(section, secret)])[0]


def tried_all(wanted: Sequence[tuple[Section, str | Verdict | None]]) -> list[Verdict]:
    """The verdict on each section with its key; what stands in a key's place as a verdict is one already."""

    async def run() -> list[Verdict]:
        turns = asyncio.Semaphore(_AT_ONCE)

        async def one(section: Section, secret: str | Verdict | None) -> Verdict:
            if isinstance(secret, Verdict):
                return secret
            async with turns:
                return await trial.tried(section, secret)

        return await asyncio.gather(*(one(section, secret) for section, secret in wanted))

    return asyncio.run(run())


def found(reference: str | None, find: Callable[[str], str]) -> str | Verdict | None:
    """What the reference to a key leads to; a verdict where that is nowhere."""
    if reference is None:
        return None
    try:
        return find(reference)
    except SecretError as error:
        return Verdict("no_key", f"{reference}: {error}")
