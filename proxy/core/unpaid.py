"""What was made in the background and is not accounted for yet, by its id: what it cost is told to whoever reads its end."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import TypeAlias

from proxy.core.call import Usage

#: The longest id that is kept. Those of OpenAI's have some sixty characters.
_LONGEST = 512

#: An id, with the tokens of its prompt and its completion that are accounted for already; with None: all of them are.
Told: TypeAlias = tuple[str, int | None, int | None]

#: A key of `Call.notes`: the request reads what may not be accounted for yet, so what its answer says of usage is its own.
READ = "unpaid"


class Unpaid:
    """What one process knows of it, the newest `most`. It outlives reloads."""

    def __init__(self, most: int = 10_000) -> None:
        self._most = most
        self._known: OrderedDict[str, Usage] = OrderedDict()
        #: Told what is learnt here, where other processes serve beside this one.
        self.tell: Callable[[list[Told]], None] | None = None

    @property
    def known(self) -> list[Told]:
        """All of it, the oldest first."""
        return [(id, paid.prompt, paid.completion) for id, paid in self._known.items()]

    def __contains__(self, id: str) -> bool:
        return id in self._known

    def note(self, id: str, paid: Usage) -> None:
        """It has begun, and so much of it is accounted for."""
        self._say((id, paid.prompt, paid.completion))

    def settle(self, id: str, whole: Usage) -> Usage | None:
        """What of the `whole`, which a provider has reported, is still to be accounted for; None where it is already."""
        paid = self._known.get(id)
        if paid is None:
            return None
        self._say((id, None, None))
        prompt, completion = max(0, whole.prompt - paid.prompt), max(0, whole.completion - paid.completion)
        return Usage(prompt, completion, min(whole.cached, prompt), min(whole.reasoning, completion), whole.reported)

    def take(self, told: Iterable[Told]) -> None:
        """What another process has told."""
        for id, prompt, completion in told:
            self._known.pop(id, None)
            if prompt is not None and completion is not None and len(id) <= _LONGEST:
                self._known[id] = Usage(prompt, completion)
                if len(self._known) > self._most:
                    self._known.popitem(last=False)

    def _say(self, told: Told) -> None:
        self.take([told])
        if self.tell is not None:
            self.tell([told])
