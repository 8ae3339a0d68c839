"""What the tests over real sockets share: one scripted upstream, and few gateways, since each costs a process."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.gateway import SHORT, Gateway, provider
from tests.support.script import Script, sliced
from tests.support.upstream import LINGER_ZERO, Upstream

#: For all that is not about time: an answer that comes byte by byte takes as long as a busy machine makes it.
PATIENT = {"connect": "1s", "first_token": "6s", "idle": "6s", "total": "10s"}
#: One retry at most and almost at once; each request brings its own into the budget, and no failure tells of the next test.
ONE_RETRY: dict[str, Any] = {"retry": {"max_retries": 1, "base": "1ms", "budget": 1}, "circuit_breaker": False}
BRIEF = {"connect": "1s", "first_token": "1s", "idle": "1s", "total": "800ms"}


def closed_port() -> int:
    """A port on loopback where connecting is refused."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "row(*numbers, cut): rows of the fault matrix, and how bytes are delivered: whole, sliced or both")
    config.addinivalue_line("markers", "several_targets: of rows of the fault matrix, where another target may be asked")


class Deaf:
    """A port where connecting neither succeeds nor fails: its queue is full and nobody accepts."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=0)
        self.port: int = self._listener.getsockname()[1]
        self._fillers: list[socket.socket] = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", self.port))
            self._fillers.append(filler)

    def stop(self) -> None:
        for each in (*self._fillers, self._listener):
            each.close()


class Door:
    """Accepts, says `words` (after it was spoken to, unless `at_once`), and closes: with a reset where it has nothing to say."""

    def __init__(self, words: bytes, *, at_once: bool) -> None:
        self._words = words
        self._at_once = at_once
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, name="door", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            with peer:
                peer.settimeout(2)
                try:
                    self._answer(peer)
                except OSError:
                    pass

    def _answer(self, peer: socket.socket) -> None:
        if not self._words:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
            return
        if not self._at_once:
            peer.recv(65536)
        peer.sendall(self._words)
        peer.recv(65536)

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)


@pytest.fixture(scope="session")
def raw_upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        yield server


@pytest.fixture
def upstream(raw_upstream: Upstream) -> Iterator[Upstream]:
    """The scripted upstream with nothing recorded; a test fails that leaves a script unasked for."""
    raw_upstream.forget()
    yield raw_upstream
    unplayed = raw_upstream.unplayed
    raw_upstream.forget()
    assert not unplayed, f"{unplayed} scripts were never asked for"


@pytest.fixture(scope="session")
def gateway(raw_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """The gateway of most tests: provider `up` is the scripted upstream, `hasty` is too; the others fail or wait in their own ways."""
    deaf, babbler = Deaf(), Door(b"\x15\x03\x09not TLS at all\r\n", at_once=False)
    slammer, greeter = Door(b"", at_once=True), Door(b"SSH-2.0-OpenSSH_9.2\r\n", at_once=True)
    config: dict[str, Any] = {
        "server": {"max_body": "1MiB", "ping": "10s"},
        "providers": {
            "up": provider(raw_upstream.url, timeouts=PATIENT),
            "refusing": provider(f"http://127.0.0.1:{closed_port()}"),
            "deaf": provider(f"http://127.0.0.1:{deaf.port}", timeouts={**PATIENT, "connect": "400ms"}),
            "babbling": provider(f"https://127.0.0.1:{babbler.port}"),
            "slamming": provider(f"http://127.0.0.1:{slammer.port}", timeouts=PATIENT),
            "greeting": provider(f"http://127.0.0.1:{greeter.port}", timeouts=PATIENT),
            "nowhere": provider("http://no-such-host.invalid"),
            "patient": provider(raw_upstream.url, timeouts=PATIENT),
            "hasty": provider(raw_upstream.url),
            "lasting": provider(raw_upstream.url, timeouts={**SHORT, "total": "20s"}),
            "brief": provider(raw_upstream.url, timeouts=BRIEF),
        },
        "models": {"test-model": "up", "other-model": "up", "alias-model": {"provider": "up", "model": "vendor/real-model"}},
        "default_provider": "up",
        "policies": ONE_RETRY,
    }
    with Gateway(config, tmp_path_factory.mktemp("gateway")) as running:
        yield running
    for each in (deaf, babbler, slammer, greeter):
        each.stop()


@pytest.fixture(scope="session")
def tight(raw_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with small limits, frequent pings, and no table of models: every bare name goes to `up`."""
    small = {"body": "8KiB", "header": "4KiB", "event": "4KiB"}
    config: dict[str, Any] = {
        "server": {"max_body": "8KiB", "ping": "300ms", "body_timeout": "1s", "header_timeout": "1s", "write_timeout": "1s"},
        "providers": {
            "up": provider(raw_upstream.url, limits=small, timeouts=PATIENT),
            "patient": provider(raw_upstream.url, limits=small, timeouts=PATIENT),
            "hasty": provider(raw_upstream.url, limits=small),
        },
        "default_provider": "up",
        "policies": ONE_RETRY,
    }
    with Gateway(config, tmp_path_factory.mktemp("tight")) as running:
        yield running


@pytest.fixture(scope="session")
def single(raw_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that tries everything once: for what one attempt ends in."""
    config: dict[str, Any] = {
        "providers": {"up": provider(raw_upstream.url, timeouts=PATIENT)},
        "models": {"test-model": "up"},
        "policies": {"retry": False},
    }
    with Gateway(config, tmp_path_factory.mktemp("single")) as running:
        yield running


@pytest.fixture(params=["whole", "sliced"])
def cut(request: pytest.FixtureRequest) -> Callable[[Script], Script]:
    """How the upstream's answer is delivered: as it is, or each byte on its own."""
    return sliced if request.param == "sliced" else lambda answer: answer
