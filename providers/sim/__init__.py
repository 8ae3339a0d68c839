"""A provider that calls no model: for demonstrations, tests and load. Its answers say that they are simulated."""

from providers.sim.embedding import embed
from providers.sim.engine import SimEngine
from providers.sim.provider import Sim
from providers.sim.settings import SimSettings
from providers.sim.transport import SimResponse, SimTransport
from providers.sim.wire import Answer, Stamp

__all__ = ["Answer", "Sim", "SimEngine", "SimResponse", "SimSettings", "SimTransport", "Stamp", "embed"]
