"""Who shows a key, and what that user has set: `proxy.core.protocols.Identities` and `UserPreferences`, answered from memory nearly always.

A key is known here by the digest of all of it, never by its public id alone, and never by itself. A change that is made in this process
is told by `forget`; one made elsewhere is seen after `Keeping.staleness` seconds, or, while the database cannot be asked, after
`Keeping.outlive`.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from proxy.core.call import Principal
from proxy.core.errors import CapacityError
from proxy.core.keys import digest, parse
from proxy.core.protocols import Clock
from proxy.core.resolved import Preferences
from proxy.storage.kept import Keeping, Kept

_NOTHING = Preferences()
_KEEPING = Keeping()


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A key that may be used. `until` is when it expires, in seconds since the epoch."""

    principal: Principal
    digest: bytes = field(repr=False)
    until: float | None = None


#: Looks a key up by its public id; None for one that may not be used. Raises CapacityError. See `Keys.find`.
FindKey: TypeAlias = Callable[[str], Awaitable[KnownKey | None]]
#: Looks up what a user has set, with the tier; empty for nothing. Raises CapacityError. See `PreferenceTable.account`.
FindPreferences: TypeAlias = Callable[[str], Awaitable[Preferences]]


@dataclass(frozen=True, slots=True)
class _Stranger:
    """A key that is none: its public id, which a key made later may have."""

    id: str


class Identities:
    """Whose key that is.

    `pepper` is what the stored digests were made with.
    """

    def __init__(self, find: FindKey, pepper: bytes, clock: Clock, keeping: Keeping = _KEEPING) -> None:
        self._find = find
        self._pepper = pepper
        self._time = clock.time
        self._kept: Kept[bytes, KnownKey | _Stranger] = Kept(clock, keeping, lambda answer: isinstance(answer, _Stranger))

    def mark(self, token: str) -> bytes:
        """What the key is kept under."""
        return digest(token, self._pepper)

    def recall(self, mark: bytes) -> Principal | None:
        """The principal of the key with this mark, if it is in hand and fresh enough; never waits."""
        return self._principal(self._kept.recall(mark))

    async def find(self, token: str) -> Principal | None:
        """The key's principal; None for a key that is unknown, revoked or expired. Raises CapacityError (503 `keys_unavailable`)."""
        id = parse(token)
        if id is None:
            return None
        mark = self.mark(token)
        try:
            return self._principal(await self._kept.find(mark, lambda: self._look_up(id, mark)))
        except CapacityError as error:
            # What is wrong with the storage is not for strangers.
            detail = error.detail or error.message
            raise CapacityError("Keys cannot be checked at the moment.", code="keys_unavailable", retry_after=1.0, detail=detail) from error

    def forget_everything(self) -> None:
        self._kept.forget(lambda _mark, _known: True)

    def forget(self, *, user: str | None = None, key: str | None = None) -> None:
        """Ask again about a user's keys, or about one key by its public id."""

        def is_meant(_: bytes, known: KnownKey | _Stranger) -> bool:
            if isinstance(known, _Stranger):
                # Which strangers' keys are this user's, who may be active again, is not known here.
                return user is not None or known.id == key
            return (user is not None and known.principal.id == user) or (key is not None and known.principal.key == key)

        self._kept.forget(is_meant)

    async def close(self) -> None:
        await self._kept.close()

    async def _look_up(self, id: str, mark: bytes) -> KnownKey | _Stranger:
        found = await self._find(id)
        if found is None or not hmac.compare_digest(found.digest, mark):
            return _Stranger(id)
        return found

    def _principal(self, known: KnownKey | _Stranger | None) -> Principal | None:
        if known is None or isinstance(known, _Stranger):
            return None
        if known.until is not None and known.until <= self._time():
            return None
        return known.principal


class KeptPreferences:
    """What users have set for themselves."""

    def __init__(self, find: FindPreferences, clock: Clock, keeping: Keeping = _KEEPING) -> None:
        self._find = find
        self._kept: Kept[str, Preferences] = Kept(clock, keeping)

    def recall(self, user: str) -> Preferences | None:
        """The user's preferences (empty ones where nothing is set), with the tier, if they are in hand and fresh enough; never waits."""
        return self._kept.recall(user)

    async def find(self, user: str) -> Preferences:
        """The same. A database that cannot be asked: what was last known, or empty ones of an unknown user."""
        try:
            return await self._kept.find(user, lambda: self._find(user))
        except CapacityError:
            return self._kept.last(user) or _NOTHING

    def forget_everything(self) -> None:
        self._kept.forget(lambda _user, _preferences: True)

    def forget(self, *, user: str) -> None:
        """Ask again about `user`."""
        self._kept.forget(lambda kept, _: kept == user)

    async def close(self) -> None:
        await self._kept.close()
