"""The database or Redis is away: at the start, in the middle, or held by somebody else. Nothing here restarts the gateway."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy.core import keys as tokens
from tests.e2e.test_administration import administer, chat, until
from tests.state.test_news import RedisServer
from tests.storage.servers import PostgreSQL
from tests.support.gateway import ROOT, Gateway


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    """It is stopped and started here: each test leaves it running."""
    found = PostgreSQL()
    try:
        yield found.start()
    finally:
        found.remove()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """Not started."""
    found = RedisServer(tmp_path)
    yield found
    found.stop()


def configured(**more: Any) -> dict[str, Any]:
    return {
        "providers": {"sim": {"kind": "sim"}},
        "default_provider": "sim",
        "storage": {"url": "env:DATABASE", "pepper": "env:PEPPER"},
        "policies": {"authenticate": {"open": False, "staleness": "200ms"}},
        **more,
    }


def environ(database: str) -> dict[str, str]:
    return {"DATABASE": database, "PEPPER": "p" * 40}


def readiness(address: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(f"{address}/readyz", timeout=5) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def refusal(gateway: Gateway, key: str) -> tuple[int, str]:
    request = urllib.request.Request(f"{gateway.url}/v1/models", headers={"Authorization": f"Bearer {key}"})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=10)
    with caught.value as error:
        return error.code, json.loads(error.read())["error"]["code"]


def made(gateway: Gateway, user: str) -> str:
    """A new user's key."""
    assert administer(gateway, "POST", "/admin/users", {"id": user})[0] == 201
    status, key = administer(gateway, "POST", "/admin/keys", {"user_id": user})
    assert status == 201
    return str(key["key"])


# ------------------------------------------------------------------------------------------------------------------- at the start
@pytest.mark.parametrize("workers", [1, 2])
def test_what_was_not_there_at_the_start_is_used_once_it_comes(server: PostgreSQL, redis: RedisServer, tmp_path: Path, workers: int):
    database = server.create()
    config = configured(state={"url": redis.url})
    config["server"] = {"workers": workers}
    server.stop()
    try:
        with Gateway(config, tmp_path, environ(database)) as gateway:
            told = gateway.wait_line("storage_unreachable", level="error")
            assert "refused" in told["reason"].lower() or "connect" in told["reason"].lower(), told
            gateway.wait_line("redis_unreachable", level="error")
            assert readiness(gateway.url) == (503, {"status": "keys_unavailable"})
            until(lambda: readiness(gateway.admin)[1]["status"] == "keys_unavailable")
            assert readiness(gateway.admin)[0] == 503
            assert refusal(gateway, tokens.generate()[1]) == (503, "keys_unavailable")
            assert chat(gateway, "sk-no-key-of-ours") == 401
            status, refused = administer(gateway, "POST", "/admin/users", {"id": "ada"})
            assert (status, refused["error"]["code"]) == (503, "storage_unavailable")
            assert gateway.metric("comporta_storage_degraded") >= 1

            server.start()
            redis.start()
            until(lambda: readiness(gateway.admin)[0] == 200)
            until(lambda: [readiness(gateway.url)[0] for _ in range(4)] == [200] * 4)
            key = made(gateway, "ada")
            until(lambda: [chat(gateway, key) for _ in range(4)] == [200] * 4)
            until(lambda: gateway.metric("comporta_storage_degraded") == 0)
            until(lambda: gateway.metric("comporta_redis_degraded") == 0)
            gateway.wait_line("storage_reachable")
            gateway.wait_line("redis_reachable")
    finally:
        server.restart()


def test_an_open_gateway_serves_without_its_database_and_is_ready(tmp_path: Path):
    config = configured(policies={"authenticate": {"open": True}})
    with Gateway(config, tmp_path, environ("postgresql://nobody@127.0.0.1:1/none")) as gateway:
        gateway.wait_line("storage_unreachable")
        assert readiness(gateway.url) == (200, {"status": "ok"})
        assert chat(gateway, "sk-anything") == 200
        assert refusal(gateway, tokens.generate()[1]) == (503, "keys_unavailable")


def started(config: dict[str, Any], folder: Path, database: str) -> subprocess.CompletedProcess[str]:
    """A start that is to fail."""
    file = folder / "comporta.yaml"
    file.write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "comporta", "serve", "--config", str(file), "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]
    env = {**os.environ, **environ(database)}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=30, check=False)


def test_who_requires_the_database_gets_no_gateway_without_it(tmp_path: Path):
    config = configured()
    config["storage"]["required"] = True
    ended = started(config, tmp_path, "postgresql://me:hunter2@127.0.0.1:1/none")
    assert ended.returncode == 1
    assert "storage" in ended.stderr
    assert "hunter2" not in ended.stderr


def test_what_waiting_does_not_mend_is_refused_at_the_start(tmp_path: Path):
    notes = tmp_path / "notes.txt"
    notes.write_text("not a database at all\n" * 100)
    ended = started(configured(), tmp_path, f"sqlite:///{notes}")
    assert ended.returncode == 1
    assert "not a database" in ended.stderr
    assert "Traceback" not in ended.stderr


# ---------------------------------------------------------------------------------------------------------------------- in the middle
def test_postgresql_and_redis_go_and_come_back_under_a_running_gateway(server: PostgreSQL, redis: RedisServer, tmp_path: Path):
    redis.start()
    with Gateway(configured(state={"url": redis.url}), tmp_path, environ(server.create())) as gateway:
        known, unseen = made(gateway, "ada"), made(gateway, "bob")
        assert chat(gateway, known) == 200
        server.stop()
        redis.stop()
        try:
            gateway.wait_line("redis_unreachable")
            until(lambda: chat(gateway, known) == 200 and gateway.metric("comporta_storage_degraded") == 1)
            assert refusal(gateway, unseen) == (503, "keys_unavailable")
            status, refused = administer(gateway, "POST", "/admin/users", {"id": "eve"})
            assert (status, refused["error"]["code"]) == (503, "storage_unavailable")
            assert readiness(gateway.url)[0] == 200, "who is known is served"
            gateway.wait_line("storage_unreachable")
        finally:
            server.start()
        until(lambda: chat(gateway, unseen) == 200)
        late = made(gateway, "eve")
        assert chat(gateway, late) == 200
        redis.start()
        until(lambda: gateway.metric("comporta_redis_degraded") == 0)
        assert administer(gateway, "GET", "/admin/audit/verify")[1] == {"whole": True, "first_broken": None}
        gateway.wait_line("storage_reachable")


def test_a_sqlite_file_that_another_process_has_locked_stops_changes_only(tmp_path: Path):
    file = tmp_path / "comporta.db"
    with Gateway(configured(), tmp_path, environ(f"sqlite:///{file}")) as gateway:
        known, unseen = made(gateway, "ada"), made(gateway, "bob")
        assert chat(gateway, known) == 200
        other = sqlite3.connect(file, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        answers: list[tuple[int, Any]] = []
        writer = threading.Thread(target=lambda: answers.append(administer(gateway, "POST", "/admin/users", {"id": "eve"})))
        writer.start()
        assert [chat(gateway, key) for key in (known, unseen)] == [200, 200]
        assert not answers, "it waits for the lock, and nobody waits for it"
        writer.join(15)
        assert (answers[0][0], answers[0][1]["error"]["code"]) == (503, "storage_unavailable")
        other.execute("ROLLBACK")
        other.close()
        assert chat(gateway, made(gateway, "eve")) == 200
        assert administer(gateway, "GET", "/admin/audit/verify")[1]["whole"] is True
