"""What one instance tells the others, over a real Redis."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
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

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None


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


def test_the_address_says_which_it_is():
    assert isinstance(news("memory:", Registry()), LocalNews)
    assert isinstance(news("redis://127.0.0.1:1", Registry()), RedisNews)
