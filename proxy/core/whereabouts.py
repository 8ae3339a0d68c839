"""At which provider that lies which clients go on with: responses and conversations, by their ids. Nothing of what they hold."""

from __future__ import annotations

from collections.abc import Callable

#: The longest id that is kept. Those of OpenAI's have some sixty characters.
_LONGEST = 200


class Whereabouts:
    """What one process has learnt of it, the newest `most` and those that were asked for last. It outlives reloads.

    Ids are the providers' own, and random: two that are alike are one thing. What is not known here may be there all the same.
    """

    def __init__(self, most: int = 10_000) -> None:
        self._most = most
        self._known: dict[str, str] = {}
        self._holders: dict[str, None] = {}
        #: Told what is learnt here, where other processes serve beside this one.
        self.tell: Callable[[tuple[str, str]], None] | None = None

    @property
    def holders(self) -> tuple[str, ...]:
        """The providers that anything was ever known to lie at."""
        return tuple(self._holders)

    def find(self, id: str) -> str | None:
        """The provider that has it."""
        provider = self._known.pop(id, None)
        if provider is not None:
            self._known[id] = provider
        return provider

    def note(self, id: str, provider: str) -> None:
        """It lies there, as an answer of that provider's has shown."""
        self.take((id, provider))
        if self.tell is not None:
            self.tell((id, provider))

    def take(self, told: tuple[str, str]) -> None:
        """What another process has noted."""
        id, provider = told
        if len(id) > _LONGEST:
            return
        self._holders[provider] = None
        self._known.pop(id, None)
        self._known[id] = provider
        if len(self._known) > self._most:
            del self._known[next(iter(self._known))]
