"""What was asked of the database, kept for a while: few requests wait for it, and none is the first to notice that it is away.

An answer is fresh for `staleness` seconds. It is used beyond that, up to `outlive` seconds, only while the database cannot be asked.
What many ask for at once is looked up once.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from proxy.core.errors import CapacityError
from proxy.core.protocols import Clock

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Keeping:
    """Seconds, and how many.

    size       answers in hand; the one not asked for longest goes first
    staleness  how long an answer is used without asking again: the bound within which a change made elsewhere is seen
    outlive    how long an answer is used while the database cannot be asked
    pause      how long a database that could not be asked is left alone
    patience   how long a request that has an old answer in hand waits for a new one
    doubt      how long an answer that says "unknown" is used
    guesses    how many questions about what turns out to be unknown are put to the database at once, and
    per_second how many a second then: whoever guesses does not get to use it up
    """

    size: int = 10_000
    staleness: float = 10.0
    outlive: float = 300.0
    pause: float = 1.0
    patience: float = 0.25
    doubt: float = 2.0
    guesses: int = 1000
    per_second: float = 100.0


class Allowance:
    """A token bucket: `most` at once, and `per_second` a second after that. What is given back counts as not taken."""

    def __init__(self, most: float, per_second: float, now: Callable[[], float]) -> None:
        self._most = self._left = most
        self._per_second = per_second
        self._now = now
        self._at = now()

    def take(self) -> bool:
        now = self._now()
        self._left = min(self._most, self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True

    def give_back(self) -> None:
        self._left = min(self._most, self._left + 1.0)


class Kept(Generic[K, V]):
    """Answers by key. Those for which `is_unknown` holds are kept apart: however many strangers ask, they push out nobody who is known."""

    def __init__(self, clock: Clock, keeping: Keeping, is_unknown: Callable[[V], bool] = lambda _: False) -> None:
        self._now = clock.monotonic
        self._keeping = keeping
        self._is_unknown = is_unknown
        self._answers: OrderedDict[K, tuple[float, V]] = OrderedDict()
        self._unknown: OrderedDict[K, tuple[float, V]] = OrderedDict()
        self._flights: dict[K, asyncio.Task[V]] = {}
        self._running: set[asyncio.Task[V]] = set()
        self._away_until = float("-inf")
        self._guesses = Allowance(keeping.guesses, keeping.per_second, clock.monotonic)

    def recall(self, key: K) -> V | None:
        """The answer in hand, if it may be used without asking; never waits."""
        found = self._answers.get(key)
        if found is None:
            return self._recall_unknown(key)
        now = self._now()
        age = now - found[0]
        if age >= self._keeping.staleness and not (now < self._away_until and age < self._keeping.outlive):
            return None
        self._answers.move_to_end(key)
        return found[1]

    def last(self, key: K) -> V | None:
        """The answer in hand, however old."""
        found = self._answers.get(key)
        return None if found is None else found[1]

    async def find(self, key: K, look_up: Callable[[], Awaitable[V]]) -> V:
        """The answer in hand, or `look_up`'s.

        Raises CapacityError where nothing usable is in hand and the database cannot be asked, or is asked too much by those who guess.
        Being cancelled does not cancel what others wait for.
        """
        answer = self.recall(key)
        if answer is not None:
            return answer
        if self._now() < self._away_until:
            raise _refused("cannot be reached")
        flight = self._flights.get(key) or self._start(key, look_up)
        usable = self._usable(key)
        if usable is None:
            return await asyncio.shield(flight)
        # The one that is looking goes on: a database that is only slow answers for those who come next.
        await asyncio.wait([flight], timeout=self._keeping.patience)
        if not flight.done() or flight.cancelled() or isinstance(_failure(flight), CapacityError):
            return usable
        return flight.result()

    def forget(self, which: Callable[[K, V], bool]) -> None:
        """Drop the answers that `which` names. Those that are on their way were asked for before, so they are not kept."""
        for kept in (self._answers, self._unknown):
            for key in [key for key, (_, answer) in kept.items() if which(key, answer)]:
                del kept[key]
        self._flights.clear()

    async def close(self) -> None:
        """Give up what is on its way."""
        running = list(self._running)
        for flight in running:
            flight.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def __len__(self) -> int:
        return len(self._answers)

    def _recall_unknown(self, key: K) -> V | None:
        found = self._unknown.get(key)
        return None if found is None or self._now() - found[0] >= self._keeping.doubt else found[1]

    def _usable(self, key: K) -> V | None:
        found = self._answers.get(key)
        return None if found is None or self._now() - found[0] >= self._keeping.outlive else found[1]

    def _start(self, key: K, look_up: Callable[[], Awaitable[V]]) -> asyncio.Task[V]:
        # What is known already is asked for again whoever guesses.
        if key not in self._answers and not self._guesses.take():
            raise _refused("is asked for too many things that it does not have")
        flight = asyncio.create_task(self._look_up(key, look_up))
        # Whoever waits sees the failure; where all have left, nobody has to.
        flight.add_done_callback(_failure)
        self._running.add(flight)
        flight.add_done_callback(self._running.discard)
        self._flights[key] = flight
        return flight

    async def _look_up(self, key: K, look_up: Callable[[], Awaitable[V]]) -> V:
        task = asyncio.current_task()
        try:
            answer = await look_up()
        except CapacityError:
            self._away_until = self._now() + self._keeping.pause
            self._guesses.give_back()
            raise
        else:
            self._away_until = float("-inf")
            if not self._is_unknown(answer):
                self._guesses.give_back()
            if self._flights.get(key) is task:
                self._keep(key, answer)
            return answer
        finally:
            if self._flights.get(key) is task:
                del self._flights[key]

    def _keep(self, key: K, answer: V) -> None:
        into, other = (self._unknown, self._answers) if self._is_unknown(answer) else (self._answers, self._unknown)
        other.pop(key, None)
        into[key] = (self._now(), answer)
        into.move_to_end(key)
        if len(into) > self._keeping.size:
            into.popitem(last=False)


def _refused(why: str) -> CapacityError:
    return CapacityError(f"The gateway's storage {why}. Try again shortly.", code="storage_unavailable", retry_after=1.0)


def _failure(flight: asyncio.Task[V]) -> BaseException | None:
    return None if flight.cancelled() else flight.exception()
