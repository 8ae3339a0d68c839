"""The provider: OpenAI's dialect, spoken to a server that is part of the gateway."""

from __future__ import annotations

from providers.openai import OpenAI, OpenAISettings
from providers.sim.settings import SimSettings
from providers.sim.transport import SimTransport
from proxy.core.protocols import Clock


class Sim(OpenAI):
    """Nothing of the dialect is simulated: requests are encoded and answers are read as those of any OpenAI-compatible server."""

    Settings = SimSettings  # type: ignore[assignment]  # of a section of its own: a server in process has no address and no key

    def __init__(self, settings: SimSettings) -> None:
        super().__init__(OpenAISettings())
        self.base_url = "sim://sim"
        self._simulation = settings

    def transport(self, clock: Clock) -> SimTransport:
        """The way to this provider's own server."""
        return SimTransport(self._simulation, clock)
