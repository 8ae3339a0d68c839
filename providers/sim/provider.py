"""The provider: OpenAI's dialect, spoken to a server that is part of the gateway."""

from __future__ import annotations

from providers.openai import OpenAI, OpenAISettings
from providers.sim.settings import SimSettings
from proxy.core.call import Timeouts
from proxy.core.errors import UpstreamError
from proxy.core.late import Late
from proxy.core.protocols import Clock, Transport, UpstreamRequest, UpstreamResponse


class Sim(OpenAI):
    """Nothing of the dialect is simulated: requests are encoded and answers are read as those of any OpenAI-compatible server."""

    Settings = SimSettings  # type: ignore[assignment]  # of a section of its own: a server in process has no address and no key

    def __init__(self, settings: SimSettings) -> None:
        super().__init__(OpenAISettings())
        self.base_url = "sim://sim"
        self._simulation = settings

    def transport(self, clock: Clock) -> SleepingTransport:
        """The way to this provider's own server."""
        return SleepingTransport(self._simulation, clock)


class SleepingTransport:
    """The way to a simulated server that is loaded when it is first asked: nearly every gateway has one, and most never ask it anything.

    Implements `proxy.core.protocols.Transport`.
    """

    def __init__(self, settings: SimSettings, clock: Clock) -> None:
        self._server: Late[Transport] = Late(lambda: _server(settings, clock))
        self._awake: Transport | None = None
        self._closed = False

    async def send(self, request: UpstreamRequest, timeouts: Timeouts) -> UpstreamResponse:
        """As `SimTransport.send`."""
        if self._closed:
            raise UpstreamError("connect_failed", "The simulated provider is closed.", reached=False)
        return await (self._awake or await self._woken()).send(request, timeouts)

    async def _woken(self) -> Transport:
        self._awake = server = await self._server()
        if self._closed:
            await server.close()
        return server

    async def close(self) -> None:
        self._closed = True
        if self._awake is not None:
            await self._awake.close()


def _server(settings: SimSettings, clock: Clock) -> Transport:
    from providers.sim.transport import SimTransport

    return SimTransport(settings, clock)
