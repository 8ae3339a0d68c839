"""What one instance tells the others, over a real Redis."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from proxy.core.metrics import Registry
from proxy.state.news import LocalNews, news
from proxy.state.redis_news import RedisNews

Heard = list[tuple[str, str]]


class RedisServer:
    """A private server on a free port."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        binary = shutil.which("redis-server", path="/usr/bin:/usr/local/bin:/bin")
        assert binary is not None, "redis-server is not installed: run .ci/system"
        command = [binary, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self._folder)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while True:
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", self.port)):
                return
            assert self._process.poll() is None, "redis-server has ended"
            time.sleep(0.01)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    @contextlib.contextmanager
    def hung(self) -> Iterator[None]:
        """It keeps its connections, and the kernel takes new ones, but nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)


class Wire:
    """What stands between the gateway and a server, as a firewall does."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._forwarding: list[asyncio.Task[None]] = []
        self._connections: list[asyncio.StreamWriter] = []

    async def start(self) -> None:
        self._listening = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._listening.sockets[0].getsockname()[1]}/0"

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._connections += writer, far_writer
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            self._forwarding.append(asyncio.create_task(self._forward(source, sink)))

    async def _forward(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            sink.write(data)
        sink.close()

    async def forget(self) -> None:
        """Nothing more goes over the connections that there are, and neither end learns of it; new ones work."""
        for forwarding in self._forwarding:
            forwarding.cancel()
        await asyncio.gather(*self._forwarding, return_exceptions=True)
        self._forwarding.clear()

    async def stop(self) -> None:
        self._listening.close()
        await self.forget()
        for connection in self._connections:
            connection.close()


@pytest.fixture
async def wire(server: RedisServer) -> AsyncIterator[Wire]:
    found = Wire(server.port)
    await found.start()
    yield found
    await found.stop()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    found = RedisServer(tmp_path)
    found.start()
    yield found
    found.stop()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


def hearing() -> tuple[Heard, Callable[[str, str], None]]:
    heard: Heard = []
    return heard, lambda subject, name: heard.append((subject, name))


@pytest.fixture
async def pair(server: RedisServer) -> AsyncIterator[tuple[RedisNews, Heard, RedisNews, Heard]]:
    one, other = RedisNews(server.url, Registry()), RedisNews(server.url, Registry())
    (heard, hears), (other_heard, other_hears) = hearing(), hearing()
    await one.start(hears)
    await other.start(other_hears)
    await until(lambda: ("everything", "") in heard and ("everything", "") in other_heard)
    yield one, heard, other, other_heard
    await one.stop()
    await other.stop()


async def test_a_process_alone_hears_itself():
    told = LocalNews()
    heard, hears = hearing()
    await told.start(hears)
    assert await told.tell("user", "u1")
    assert heard == [("user", "u1")]


async def test_what_one_tells_the_other_hears(pair: tuple[RedisNews, Heard, RedisNews, Heard]):
    one, _, _, other_heard = pair
    assert await one.tell("key", "k1")
    await until(lambda: ("key", "k1") in other_heard)


async def test_words_of_others_on_the_channel_are_ignored(server: RedisServer, pair: tuple[RedisNews, Heard, RedisNews, Heard]):
    one, _, _, other_heard = pair
    async with Redis.from_url(server.url) as stranger:
        for words in (b"", b"{", b"[1,2]", b'["a"]', b'{"a":1}', b"\xff"):
            await stranger.publish("comporta:news", words)
    await one.tell("user", "after")
    await until(lambda: ("user", "after") in other_heard)
    assert [subject for subject, _ in other_heard] == ["everything", "user"]


async def test_without_redis_the_process_itself_hears_and_is_told_that_nobody_else_did(server: RedisServer):
    server.stop()
    metrics = Registry()
    told = RedisNews(server.url, metrics)
    heard, hears = hearing()
    await told.start(hears)
    assert not await told.tell("key", "k1")
    assert heard == [("key", "k1")]
    assert metrics.gauges["comporta_redis_degraded"].labels("news").value == 1
    await told.stop()


async def test_after_redis_was_away_everything_that_is_kept_counts_as_old(
    server: RedisServer, pair: tuple[RedisNews, Heard, RedisNews, Heard]
):
    one, heard, _, other_heard = pair
    server.stop()
    heard.clear()
    other_heard.clear()
    server.start()
    await until(lambda: ("everything", "") in other_heard)
    async with asyncio.timeout(10):
        while not await one.tell("user", "u2"):
            await asyncio.sleep(0.05)
    await until(lambda: ("user", "u2") in other_heard)


def degraded(metrics: Registry) -> float:
    return metrics.gauges["comporta_redis_degraded"].labels("news").value


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.getMessage().startswith("redis_")]


async def test_after_redis_hung_during_a_telling_the_next_that_succeeds_says_that_it_is_back(
    server: RedisServer, caplog: pytest.LogCaptureFixture
):
    metrics = Registry()
    told = RedisNews(server.url, metrics, patience=0.3)
    heard, hears = hearing()
    await told.start(hears)
    await until(lambda: heard)
    caplog.set_level(logging.WARNING, logger="comporta")
    with server.hung():
        assert not await told.tell("user", "u1")
        assert not await told.tell("user", "u2")
        assert (degraded(metrics), lines(caplog)) == (1, ["redis_unreachable"])
    async with asyncio.timeout(10):
        while not await told.tell("user", "u3"):
            pass
    assert (degraded(metrics), lines(caplog)) == (0, ["redis_unreachable", "redis_reachable"])
    assert ("everything", "") not in heard[1:], "the subscription was never lost"
    await told.stop()


async def test_after_redis_hung_during_the_last_telling_it_is_found_to_be_back(server: RedisServer):
    metrics = Registry()
    told = RedisNews(server.url, metrics, quiet=0.1, patience=0.5)
    heard, hears = hearing()
    await told.start(hears)
    await until(lambda: heard)
    with server.hung():
        assert not await told.tell("user", "u1")
    await until(lambda: degraded(metrics) == 0)
    await told.stop()


async def test_a_subscription_that_died_without_a_word_is_replaced_and_everything_that_is_kept_counts_as_old(
    server: RedisServer, wire: Wire, caplog: pytest.LogCaptureFixture
):
    metrics = Registry()
    one, other = RedisNews(server.url, Registry()), RedisNews(wire.url, metrics, quiet=0.1, patience=0.5)
    heard, hears = hearing()
    await other.start(hears)
    await until(lambda: heard)
    caplog.set_level(logging.WARNING, logger="comporta")
    await wire.forget()
    heard.clear()
    assert await one.tell("key", "lost")
    await until(lambda: heard)
    assert heard == [("everything", "")]
    assert (degraded(metrics), lines(caplog)) == (0, ["redis_unreachable", "redis_reachable"])
    assert await one.tell("key", "k2")
    await until(lambda: ("key", "k2") in heard)
    await one.stop()
    await other.stop()


async def test_a_subscription_on_which_nobody_speaks_is_asked_whether_it_lives_and_kept(server: RedisServer):
    told = RedisNews(server.url, Registry(), quiet=0.02)
    heard, hears = hearing()
    await told.start(hears)
    async with asyncio.timeout(10), Redis.from_url(server.url) as asking:
        while (await asking.info("commandstats")).get("cmdstat_ping", {"calls": 0})["calls"] < 5:
            await asyncio.sleep(0.01)
    assert heard == [("everything", "")]
    await told.stop()


async def test_a_telling_whose_idle_connection_died_without_a_word_goes_over_another(server: RedisServer, wire: Wire):
    told = RedisNews(wire.url, Registry(), patience=0.5)
    assert await told.tell("user", "u1")
    await wire.forget()
    assert await told.tell("user", "u2")
    await told.stop()


def test_the_address_says_which_it_is():
    assert isinstance(news("memory:", Registry()), LocalNews)
    assert isinstance(news("redis://127.0.0.1:1", Registry()), RedisNews)
