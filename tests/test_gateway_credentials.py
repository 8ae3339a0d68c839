"""Keys that change in the store while a gateway serves: in the middle of a reload, and while the database is away."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.core.clock import SystemClock
from proxy.core.metrics import Registry
from proxy.gateway import Gateway
from proxy.keeping import Keeper
from proxy.settings import load
from proxy.sockets import bind
from proxy.storage.credential_store import CredentialStore
from proxy.vault import new_key
from tests.support.raw_client import chat
from tests.support.script import completion, json_response, script
from tests.support.upstream import Upstream

FIRST, SECOND = "canary-one-not-a-real-key", "canary-two-not-a-real-key"

CONFIGURATION = """\
server: {{listen: "127.0.0.1:0", admin_listen: "127.0.0.1:0"}}
providers: {{up: {{kind: openai, base_url: "{url}/v1", api_key: "store:spare"}}}}
storage: {{url: "sqlite:///{folder}/comporta.db"}}
credentials: {{key: "env:KEK"}}
policies: {{authenticate: {{open: true, staleness: 500ms}}}}
"""


class Served:
    """A gateway in this process, and what its provider is shown."""

    def __init__(self, gateway: Gateway, url: str, upstream: Upstream) -> None:
        self.gateway = gateway
        self._url = url
        self._upstream = upstream

    async def shown(self) -> str | None:
        self._upstream.forget()
        assert (await asyncio.to_thread(chat, self._url)).status == 200
        return self._upstream.wait_request().header("authorization")

    async def store(self) -> CredentialStore:
        return (await self.gateway.keeper()).credentials(self.gateway.settings)

    async def until_shown(self, secret: str) -> None:
        async with asyncio.timeout(10.0):
            while await self.shown() != f"Bearer {secret}":
                await asyncio.sleep(0.02)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    with Upstream(script(json_response(200, completion()))) as upstream:
        file = tmp_path / "gateway.yaml"
        file.write_text(CONFIGURATION.format(url=upstream.url, folder=tmp_path), encoding="utf-8")
        gateway = Gateway(load(file, {}, {}).settings, environ={"KEK": new_key()}, emit=lambda _event: None)
        listening = bind("127.0.0.1", 0)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        await gateway.start(listening)
        found = Served(gateway, url, upstream)
        await (await found.store()).add("root", "spare", FIRST)
        await found.until_shown(FIRST)
        yield found
        await gateway.stop()


async def test_a_key_that_changes_while_a_reload_is_prepared_is_served_after_it(served: Served):
    gateway = served.gateway
    prepared = await gateway.prepare(gateway.settings.model_copy())
    keeper = await gateway.keeper()
    await (await served.store()).rotate("root", "spare", SECOND)
    async with asyncio.timeout(5.0):
        while keeper.secrets("spare") != SECOND:
            await asyncio.sleep(0.02)
    assert await served.shown() == f"Bearer {FIRST}"
    gateway.take(prepared)
    await served.until_shown(SECOND)


async def test_a_reload_that_is_given_up_does_not_hide_a_change(served: Served):
    prepared = await served.gateway.prepare(served.gateway.settings.model_copy())
    await (await served.store()).rotate("root", "spare", SECOND)
    await served.gateway.drop(prepared)
    await served.until_shown(SECOND)


async def test_a_reload_while_the_database_is_away_keeps_the_keys_that_are_known(served: Served):
    await (await served.gateway.keeper()).database.close()
    await served.gateway.reload(served.gateway.settings.model_copy())
    assert await served.shown() == f"Bearer {FIRST}"


async def test_keys_are_known_as_soon_as_a_database_that_was_away_at_the_start_has_come(tmp_path: Path):
    with Upstream(script(json_response(200, completion()))) as upstream:
        file = tmp_path / "gateway.yaml"
        file.write_text(CONFIGURATION.format(url=upstream.url, folder=tmp_path), encoding="utf-8")
        environ = {"KEK": new_key()}
        settings = load(file, {}, {}).settings
        keeper = Keeper(settings, environ, SystemClock(), Registry())
        await keeper.open()
        await keeper.credentials(settings).add("root", "spare", FIRST)
        await keeper.close()
        database, kept = tmp_path / "comporta.db", tmp_path / "kept.db"
        database.rename(kept)
        away = socket.socket(socket.AF_UNIX)
        away.bind(str(database))  # what cannot be opened, and may be something else later
        away.close()
        gateway = Gateway(settings, environ=environ, emit=lambda _event: None)
        listening = bind("127.0.0.1", 0)
        await gateway.start(listening)
        found = Served(gateway, f"http://127.0.0.1:{listening.getsockname()[1]}", upstream)
        assert await found.shown() is None
        kept.replace(database)
        await found.until_shown(FIRST)
        await gateway.stop()
