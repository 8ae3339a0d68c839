"""A gateway whose provider's key is in its database: stored, replaced and removed while it serves, and seen nowhere else."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from comporta.cli import main
from proxy.core.clock import SystemClock
from proxy.storage.database import Database
from proxy.vault import new_key
from tests.e2e.test_administration import ADMIN_KEY, administer, until
from tests.storage.servers import PostgreSQL
from tests.support.gateway import Gateway, provider
from tests.support.raw_client import Answer, RawClient, chat, chat_body
from tests.support.script import completion, error_response, json_response, script
from tests.support.upstream import Upstream

FIRST, SECOND, THIRD = (f"canary-{number}-not-a-real-key" for number in ("one", "two", "three"))
SPARE = "/admin/credentials/spare"


class Served:
    """A gateway at a database, and the provider that its only key is for: it answers everything, and lists one model."""

    def __init__(self, database: str, workers: int, folder: Path) -> None:
        self.upstream = Upstream(script(json_response(200, {**completion(), "data": [{"id": "zephyr", "object": "model"}]})))
        self.environ = {"ADMIN_KEY": ADMIN_KEY, "DATABASE": database, "PEPPER": "p" * 40, "KEK": new_key()}
        self.folder = folder
        config = {
            "server": {"admin_key": "env:ADMIN_KEY", "workers": workers},
            "providers": {"up": provider(self.upstream.url, api_key="store:spare")},
            "storage": {"url": "env:DATABASE", "pepper": "env:PEPPER"},
            "credentials": {"key": "env:KEK"},
            "policies": {"authenticate": {"open": True, "staleness": "1s"}, "retry": False},
        }
        self.gateway = Gateway(config, folder, self.environ)
        self.client = RawClient(self.gateway.url)

    def shown(self, ask: Callable[[], Answer]) -> str | None:
        """The key that the provider is shown with the next request."""
        self.upstream.forget()
        assert ask().status == 200
        return self.upstream.wait_request().header("authorization")

    def is_shown(self, secret: str | None) -> bool:
        """Whether it is this one in several requests: of clients that come, which get to several workers, and of one that stays."""
        wanted = None if secret is None else f"Bearer {secret}"
        ways = [partial(chat, self.gateway.url)] * 3 + [partial(self.client.ask, "POST", "/v1/chat/completions", chat_body())] * 2
        return all(self.shown(ask) == wanted for ask in ways)

    def command(self, *arguments: str, said: str = "") -> Result:
        """`comporta credentials …` as an operator runs it beside the gateway: in another process than that."""
        words = ["credentials", *arguments, "--config", str(self.gateway.config)]
        result = CliRunner().invoke(main, words, input=said, env=self.environ)
        assert "canary-" not in result.output + repr(result.exception)
        return result

    def stop(self) -> None:
        self.client.close()
        self.gateway.stop()
        self.upstream.stop()
        told = repr(self.gateway.lines)
        assert [secret for secret in (FIRST, SECOND, THIRD) if secret in told] == []
        for path in self.folder.rglob("*"):
            assert path.is_dir() or b"canary-" not in path.read_bytes(), path


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("alone")
    found = Served(f"sqlite:///{folder}/comporta.db", 1, folder)
    yield found
    found.stop()


async def _made(url: str) -> None:
    """Make the tables, so that no process need import what makes them."""
    database = Database(url, SystemClock())
    await database.open()
    await database.close()


@pytest.fixture
def several(tmp_path: Path) -> Iterator[Served]:
    """Two workers at a PostgreSQL, and no Redis: nobody tells them of a change."""
    server = PostgreSQL()
    try:
        url = server.start().create()
        asyncio.run(_made(url))
        found = Served(url, 2, tmp_path)
        yield found
        found.stop()
    finally:
        server.remove()


def test_a_key_is_stored_tried_replaced_and_removed_while_the_gateway_serves(alone: Served):
    gateway = alone.gateway
    gateway.wait_line("credential_missing", provider="up", reference="store:spare")
    assert alone.is_shown(None)
    assert administer(gateway, "PUT", SPARE, {"secret": FIRST})[0] == 200
    until(lambda: alone.is_shown(FIRST))

    verdicts = administer(gateway, "POST", f"{SPARE}/test", {})[1]["data"]
    assert verdicts == [{"provider": "up", "outcome": "ok", "said": "it works: one model: zephyr", "models": ["zephyr"]}]
    alone.upstream.play(script(error_response(401, f"Incorrect API key provided: {FIRST}")))
    status, refused = administer(gateway, "POST", f"{SPARE}/test", {})
    assert (status, refused["data"][0]["outcome"], FIRST in repr(refused)) == (200, "wrong_key", False)

    # Another process changes it: nobody tells this one, and it sees it within `staleness`.
    assert alone.command("rotate", "spare", said=SECOND).exit_code == 0
    until(lambda: alone.is_shown(SECOND))
    gateway.wait_line("credentials_renewed")
    assert [alone.command("remove", "spare", "--yes").exit_code, administer(gateway, "DELETE", SPARE)[0]] == [1, 409]
    assert administer(gateway, "DELETE", f"{SPARE}?force=true")[0] == 204
    until(lambda: alone.is_shown(None))

    rows = administer(gateway, "GET", "/admin/audit?limit=3")[1]["data"]
    assert [row["action"] for row in rows] == ["credential.delete", "credential.rotate", "credential.add"]
    assert [row["actor"].partition(":")[0] for row in rows] == ["admin", "cli", "admin"]
    assert administer(gateway, "GET", "/admin/audit/verify")[1]["whole"] is True


def test_what_cannot_be_audited_does_not_happen_and_what_is_known_goes_on(alone: Served):
    gateway = alone.gateway
    administer(gateway, "PUT", SPARE, {"secret": FIRST})
    until(lambda: alone.is_shown(FIRST))
    version = administer(gateway, "GET", SPARE)[1]["version"]
    database = sqlite3.connect(alone.folder / "comporta.db")
    database.execute("CREATE TRIGGER no_audit BEFORE INSERT ON audit_log BEGIN SELECT RAISE(ABORT, 'no room'); END")
    status, answer = administer(gateway, "PUT", SPARE, {"secret": SECOND})
    assert (status >= 500, SECOND in repr(answer)) == (True, False)
    assert administer(gateway, "DELETE", f"{SPARE}?force=true")[0] >= 500
    database.execute("DROP TRIGGER no_audit")
    database.close()
    assert administer(gateway, "GET", SPARE)[1]["version"] == version
    assert alone.is_shown(FIRST)


def test_every_worker_and_who_starts_later_has_the_key_that_is_in_postgresql_now(several: Served):
    assert several.command("add", "spare", "--json", said=FIRST).exit_code == 0
    until(lambda: several.is_shown(FIRST))
    assert administer(several.gateway, "PUT", SPARE, {"secret": SECOND})[1]["version"] == 2
    until(lambda: several.is_shown(SECOND))
    configuration = administer(several.gateway, "GET", "/admin/config")[1]["text"]
    assert administer(several.gateway, "PUT", "/admin/config", {"text": configuration + "\nmodels: {fast: up, test-model: up}\n"})[0] == 200
    assert several.is_shown(SECOND)
    assert several.command("rotate", "spare", said=THIRD).exit_code == 0
    until(lambda: several.is_shown(THIRD))
