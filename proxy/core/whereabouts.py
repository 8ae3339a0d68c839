"""At which provider that lies which clients go on with: responses and conversations, by their ids. Nothing of what they hold."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

#: The longest id that is kept. Those of OpenAI's have some sixty characters, those of gateways that put a name into them some 250.
_LONGEST = 512


class Whereabouts:
    """What one process has learnt of it, the newest `most` and those that were asked for last. It outlives reloads.

    Ids are the providers' own, and random: two that are alike are one thing. Of an id that clients may choose the first one holds, so that
    nobody leads another one's requests astray. What is not known here may be there all the same.
    """

    def __init__(self, most: int = 10_000) -> None:
        self._most = most
        self._known: OrderedDict[str, str] = OrderedDict()
        self._holders: dict[str, None] = {}
        #: Told what is learnt here, where other processes serve beside this one.
        self.tell: Callable[[list[tuple[str, str]]], None] | None = None

    @property
    def holders(self) -> tuple[str, ...]:
        """The providers that anything was ever known to lie at."""
        return tuple(self._holders)

    @property
    def known(self) -> list[tuple[str, str]]:
        """All ids and their providers, what would be forgotten first before all else."""
        return list(self._known.items())

    def find(self, id: str) -> str | None:
        """The provider that has it."""
        provider = self._known.get(id)
        if provider is not None:
            self._known.move_to_end(id)
        return provider

    def note(self, id: str, provider: str) -> None:
        """It lies there, as an answer of that provider's has shown."""
        if self._keep(id, provider) and self.tell is not None:
            self.tell([(id, provider)])

    def forget(self, id: str) -> None:
        """It lies nowhere that can be asked."""
        self._known.pop(id, None)

    def take(self, told: Iterable[Sequence[str]]) -> None:
        """What another process has noted: ids, each with its provider."""
        for id, provider in told:
            self._keep(id, provider)

    def _keep(self, id: str, provider: str) -> bool:
        """Whether that is news."""
        if len(id) > _LONGEST:
            return False
        self._holders[provider] = None
        if id in self._known:
            self._known.move_to_end(id)
            return False
        self._known[id] = provider
        if len(self._known) > self._most:
            self._known.popitem(last=False)
        return True
