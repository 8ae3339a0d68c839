"""How many retries a provider is spared: a token bucket that requests and time fill.

Source: the retry budget of Finagle, https://twitter.github.io/finagle/guide/Clients.html#retries: a share of the requests and a small
constant rate, both over a sliding window, so that a provider that fails sees little more than what was asked for.
"""

from __future__ import annotations

from math import exp

#: The window, in seconds: what was saved earlier than that is not kept.
WINDOW = 10.0

#: Retries a second that are always allowed, so that one client alone is helped as well.
ALWAYS = 1.0


class RetryBudget:
    """One provider's. Counting a request is `requests += 1`; everything else happens when a retry is wanted.

    requests  since the last `fill`
    tokens    retries that may be made
    recent    requests within the window, an exponential average
    filled    when it was last filled, `Clock.monotonic()` seconds; None before the first time
    """

    __slots__ = ("filled", "recent", "requests", "tokens")

    def __init__(self) -> None:
        self.requests = 0
        self.tokens = ALWAYS * WINDOW
        self.recent = 0.0
        self.filled: float | None = None

    def fill(self, now: float, share: float) -> None:
        """Bring it up to `now`: `share` of a token for each request, `ALWAYS` for each second, as many as the window brings at most."""
        elapsed = 0.0 if self.filled is None else max(0.0, now - self.filled)
        self.filled = now
        self.recent = self.recent * exp(-elapsed / WINDOW) + self.requests
        earned = elapsed * ALWAYS + self.requests * share
        self.requests = 0
        self.tokens = min(self.tokens + earned, ALWAYS * WINDOW + self.recent * share)

    def can_take(self, now: float, share: float) -> bool:
        self.fill(now, share)
        return self.tokens >= 1.0

    def take(self) -> None:
        """Spend one; after `can_take`."""
        self.tokens -= 1.0
