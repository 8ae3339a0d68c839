"""The simulated provider: OpenAI's dialect, spoken with a server that is inside this process."""

from __future__ import annotations

from proxy.core.protocols import Clock, Transport

from providers.openai import OpenAI, OpenAISettings
from providers.sim.settings import SimSettings
from providers.sim.transport import SimTransport


class Sim(OpenAI):
    Settings = SimSettings  # type: ignore[assignment]  # a provider without a network has settings of its own

    def __init__(self, settings: SimSettings) -> None:
        super().__init__(OpenAISettings(kind="openai", base_url="http://sim.invalid/v1"))
        self.base_url = "sim://sim"
        self._simulated = settings

    def transport(self, clock: Clock) -> Transport:
        """Its own way to its upstream; a provider without this method is reached over the network."""
        return SimTransport(self._simulated, clock)
