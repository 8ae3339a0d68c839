"""Two gateways at one PostgreSQL and one Redis: what one is told, the other knows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_administration import ADMIN_KEY, administer, chat, own, until
from tests.state.test_news import RedisServer
from tests.storage.servers import PostgreSQL
from tests.support.gateway import Gateway

#: Far longer than the test: what is seen within it was told.
STALENESS = "60s"


@pytest.fixture
def postgresql() -> Iterator[PostgreSQL]:
    server = PostgreSQL()
    try:
        yield server.start()
    finally:
        server.remove()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    found = RedisServer(tmp_path)
    found.start()
    yield found
    found.stop()


@pytest.fixture
def pair(postgresql: PostgreSQL, redis: RedisServer, tmp_path: Path) -> Iterator[tuple[Gateway, Gateway]]:
    config = {
        "server": {"admin_key": "env:ADMIN_KEY"},
        "storage": {"url": "env:DATABASE", "pepper": "env:PEPPER"},
        "state": {"url": redis.url},
        "policies": {"authenticate": {"open": False, "staleness": STALENESS}},
    }
    environ = {"ADMIN_KEY": ADMIN_KEY, "DATABASE": postgresql.create(), "PEPPER": "p" * 40}
    folders = [tmp_path / name for name in ("one", "other")]
    for folder in folders:
        folder.mkdir()
    one = Gateway(config, folders[0], environ)
    other = Gateway(config, folders[1], environ)
    yield one, other
    one.stop()
    other.stop()


def test_a_key_that_one_revokes_the_other_refuses_long_before_its_copy_is_old(pair: tuple[Gateway, Gateway]):
    one, other = pair
    administer(one, "POST", "/admin/users", {"id": "ada"})
    made = administer(one, "POST", "/admin/keys", {"user_id": "ada"})[1]
    assert [chat(gateway, made["key"]) for gateway in pair] == [200, 200]
    administer(one, "POST", f"/admin/keys/{made['id']}/revoke")
    began = time.monotonic()
    until(lambda: chat(other, made["key"]) == 401)
    assert time.monotonic() - began < 5.0
    assert chat(one, made["key"]) == 401


def test_what_a_user_sets_at_one_holds_at_the_other(pair: tuple[Gateway, Gateway]):
    one, other = pair
    administer(one, "POST", "/admin/users", {"id": "ada"})
    key = administer(one, "POST", "/admin/keys", {"user_id": "ada"})[1]["key"]
    assert own(other, key, "GET")[1]["preferred_model"] is None
    assert own(one, key, "PUT", {"preferred_model": "sim"})[0] == 200
    assert own(other, key, "GET")[1]["preferred_model"] == "sim"
