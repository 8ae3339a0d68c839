"""A simulated provider to ask, as the gateway would."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import pytest

from providers.sim.engine import SimEngine
from providers.sim.settings import SimSettings
from providers.sim.transport import SimResponse, SimTransport
from providers.sim.wire import Stamp
from proxy.core.call import Timeouts
from proxy.core.protocols import UpstreamRequest

PATIENT = Timeouts(connect=None, first_token=None, idle=None, total=None)


class FixedClock:
    def monotonic(self) -> float:
        return 0.0

    def time(self) -> float:
        return 1_700_000_000.0


@dataclass
class Told:
    """An answer, read to its end."""

    status: int
    parts: list[bytes]

    @property
    def raw(self) -> bytes:
        return b"".join(self.parts)

    @property
    def json(self) -> Any:
        return orjson.loads(self.raw)

    @property
    def chunks(self) -> list[Any]:
        """The events of a chat or completion stream; every part must be one whole event, and `[DONE]` the last."""
        assert self.parts[-1] == b"data: [DONE]\n\n"
        found = []
        for part in self.parts[:-1]:
            assert part.startswith(b"data: ") and part.endswith(b"\n\n") and part.count(b"\n") == 2
            found.append(orjson.loads(part[6:]))
        return found


Say = Callable[..., Told]


@pytest.fixture
def say() -> Say:
    """Asks the engine: `say("/chat/completions", {...}, length=12)`."""

    def ask(path: str, body: Mapping[str, Any] | bytes = b"", method: str = "POST", **settings: Any) -> Told:
        answer = SimEngine(SimSettings(**settings)).answer(method, path, body, Stamp("0", 1))
        return Told(answer.status, [part for part, _ in answer.parts])

    return ask


@pytest.fixture
def chat(say: Say) -> Say:
    """Asks for a chat completion: `chat("prompt", n=2)`, or with `messages`."""

    def ask(prompt: str = "What is the weather in Paris?", settings: Mapping[str, Any] | None = None, **fields: Any) -> Told:
        return say("/chat/completions", {"model": "sim", "messages": [{"role": "user", "content": prompt}], **fields}, **(settings or {}))

    return ask


def transport(**settings: Any) -> SimTransport:
    return SimTransport(SimSettings(**settings), FixedClock())


def chat_request(**fields: Any) -> UpstreamRequest:
    body = {"model": "sim", "messages": [{"role": "user", "content": "hello"}], **fields}
    return UpstreamRequest("POST", "sim://sim/chat/completions", {}, orjson.dumps(body))


async def read(response: SimResponse) -> bytes:
    found = []
    while part := await response.receive():
        found.append(part)
    return b"".join(found)
