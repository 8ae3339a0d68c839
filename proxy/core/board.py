"""What is known of every target at this moment: who is busy, who is fast, who is out. One per process; policies read and write it."""

from __future__ import annotations

from proxy.core.call import Target


class TargetState:
    """One target's state. Times are `Clock.monotonic()` seconds.

    in_flight        attempts under way
    first_token      moving average of the seconds to the first content (of a whole answer: to its end), None before the first
    measured         when `first_token` was last moved
    failures         failures in a row that count against it
    ejections        times in a row that it was taken out
    closed_until     until when it is out; 0.0: it is in
    probing          whether the one attempt that may bring it back is under way
    """

    __slots__ = ("closed_until", "ejections", "failures", "first_token", "in_flight", "measured", "probing")

    def __init__(self) -> None:
        self.in_flight = 0
        self.first_token: float | None = None
        self.measured = 0.0
        self.failures = 0
        self.ejections = 0
        self.closed_until = 0.0
        self.probing = False


class Board:
    """State by provider and model."""

    def __init__(self) -> None:
        self._states: dict[tuple[str, str | None], TargetState] = {}

    def of(self, target: Target) -> TargetState:
        key = (target.provider, target.model)
        state = self._states.get(key)
        if state is None:
            state = self._states[key] = TargetState()
        return state

    def states(self) -> dict[tuple[str, str | None], TargetState]:
        """All of them, by provider and model."""
        return dict(self._states)
