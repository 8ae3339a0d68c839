"""One change of a gateway at a time: what is prepared is taken or dropped before anything else changes, and nothing of it is left."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from proxy.core.errors import CapacityError
from proxy.core.keys import digest, generate
from proxy.gateway import Gateway
from proxy.keeping import Keeper
from proxy.settings import ModelEntry, Settings, load
from proxy.sockets import bind
from proxy.vault import new_key
from tests.lifecycle.test_certificate import write_certificate
from tests.support.raw_client import chat
from tests.support.script import Gate, completion, error_response, json_response, script
from tests.support.upstream import Upstream

SIM = 'server: {listen: "127.0.0.1:0", admin_listen: "127.0.0.1:0"}\nproviders:\n  sim: {kind: sim, length: 3}\n'

#: Seconds for what must not go on; nothing waits for it elsewhere.
A_WHILE = 0.6


def read(folder: Path, text: str) -> Settings:
    file = folder / "gateway.yaml"
    file.write_text(text, encoding="utf-8")
    return load(file, {}, {}).settings


class Served:
    def __init__(self, gateway: Gateway, listening: socket.socket) -> None:
        self.gateway = gateway
        self.address = listening.getsockname()
        self.url = f"http://127.0.0.1:{self.address[1]}"

    async def chat(self, **how: Any) -> int:
        return (await asyncio.to_thread(chat, self.url, **how)).status

    async def knows(self, key: str) -> bool:
        """Whether a client that shows `key` is served."""
        status = await self.chat(model="sim", headers={"Authorization": f"Bearer {key}"})
        assert status in (200, 401)
        return status == 200


async def serve(settings: Settings, environ: dict[str, str]) -> Served:
    gateway = Gateway(settings, environ=environ, emit=lambda _event: None)
    listening = bind("127.0.0.1", 0)
    found = Served(gateway, listening)
    await gateway.start(listening)
    return found


def opened(folder: Path) -> int:
    """How many descriptors this process has of the database's files in `folder`."""
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return sum(str(folder) in _target(link) and "comporta.db" in _target(link) for link in links)


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return ""


# ------------------------------------------------------------------------------------------------------------------------------ storage
class Environ(dict[str, str]):
    """An environment that cannot be read while it is `broken`."""

    broken = False

    def __contains__(self, name: object) -> bool:
        if self.broken:
            raise RuntimeError("the environment cannot be read")
        return super().__contains__(name)


@pytest.fixture
def environ(tmp_path: Path) -> Environ:
    return Environ(XDG_DATA_HOME=str(tmp_path), UP="a-key-of-no-provider")


@pytest.fixture
async def served(tmp_path: Path, environ: Environ) -> AsyncIterator[Served]:
    found = await serve(read(tmp_path, SIM + "  up: {kind: openai, base_url: 'http://127.0.0.1:1/v1', api_key: 'env:UP'}\n"), environ)
    yield found
    await found.gateway.stop()
    assert opened(tmp_path) == 0


@pytest.mark.parametrize("stores", [False, True])
async def test_who_needs_storage_while_a_change_is_prepared_gets_the_one_that_is_used_after_it(
    served: Served, tmp_path: Path, stores: bool
):
    gateway = served.gateway
    text = (tmp_path / "gateway.yaml").read_text() + (f'storage: {{url: "sqlite:///{tmp_path}/comporta.db"}}\n' if stores else "")
    prepared = await gateway.prepare(read(tmp_path, text))
    asked = asyncio.create_task(gateway.keeper())
    done, _ = await asyncio.wait({asked}, timeout=A_WHILE)
    gateway.take(prepared)
    keeper = await asked
    assert not done
    assert await gateway.keeper() is keeper
    assert isinstance(keeper, Keeper) and keeper.is_open


async def test_storage_that_cannot_be_served_with_is_not_kept(served: Served, environ: Environ, tmp_path: Path):
    environ.broken = True
    with pytest.raises(RuntimeError, match="environment"):
        await served.gateway.keeper()
    assert opened(tmp_path) == 0
    environ.broken = False
    records = (await served.gateway.keeper()).records()
    public, token = generate()
    await records.users.create("root", "ada")
    await records.keys.create("root", records.new_key(public, "ada", digest(token, records.pepper), token[-4:]))
    assert await served.knows(token), "keys are not looked up"


class Models(dict[str, Any]):
    """Models that note in which threads all of them are gone through."""

    def __init__(self, models: dict[str, Any], threads: set[str]) -> None:
        super().__init__(models)
        self._threads = threads

    def items(self) -> Any:
        self._threads.add(threading.current_thread().name)
        return super().items()


async def test_many_models_keep_no_stream_waiting_while_a_change_is_prepared(served: Served):
    gateway, threads = served.gateway, set[str]()
    settings = gateway.settings.model_copy(update={"models": Models({"fast": ModelEntry(provider="sim", model="sim")}, threads)})
    await gateway.reload(settings)
    assert gateway.settings is settings
    assert threads and threading.main_thread().name not in threads


async def test_a_change_that_fails_or_is_dropped_lets_the_next_one_in(served: Served, environ: Environ):
    gateway = served.gateway
    environ.broken = True
    with pytest.raises(RuntimeError, match="environment"):
        await gateway.reload(gateway.settings.model_copy())
    environ.broken = False
    await gateway.drop(await gateway.prepare(gateway.settings.model_copy()))
    waiting = asyncio.create_task(gateway.prepare(gateway.settings.model_copy()))
    prepared = await waiting
    given_up = asyncio.create_task(gateway.prepare(gateway.settings.model_copy()))
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.wait({given_up})
    gateway.take(prepared)
    async with asyncio.timeout(5.0):
        await gateway.reload(gateway.settings.model_copy())


async def test_nothing_is_opened_after_the_end(served: Served, tmp_path: Path):
    gateway = served.gateway
    held = await gateway.prepare(gateway.settings.model_copy())
    asked = [asyncio.create_task(each) for each in (gateway.keeper(), gateway.reload(gateway.settings.model_copy()))]
    await asyncio.sleep(0)
    stopping = asyncio.create_task(gateway.stop())
    done, _ = await asyncio.wait({stopping}, timeout=A_WHILE / 2)
    assert not done, "what is being changed was not waited for"
    gateway.take(held)
    await stopping
    for each in (*asked, gateway.keeper()):
        with pytest.raises(CapacityError) as refused:
            await each
        assert refused.value.code == "shutting_down"
    assert opened(tmp_path) == 0


async def test_a_change_that_takes_too_long_does_not_keep_the_end_waiting(served: Served):
    gateway = served.gateway
    held = await gateway.prepare(gateway.settings.model_copy())
    async with asyncio.timeout(10.0):
        await gateway.stop()
    await gateway.drop(held)


# ----------------------------------------------------------------------------------------------------------------------------- providers
CHECKED = """\
server: {{listen: "127.0.0.1:0", admin_listen: "127.0.0.1:0"}}
providers:
  up: {{kind: openai, base_url: "{url}/v1", api_key: "store:spare"}}
  other: {{kind: openai, base_url: "{other}/v1", allow_private: true}}
storage: {{url: "sqlite:///{folder}/comporta.db"}}
credentials: {{key: "env:KEK"}}
policies: {{authenticate: {{open: true, staleness: 100ms}}}}
models: {{test-model: up, other-model: other}}
health: {{unlisted_models: {unlisted}}}
"""


async def test_other_keys_wait_for_a_change_that_is_being_tried(tmp_path: Path):
    """Had they been taken meanwhile, the connections of what is being tried would be closed, and its keys the old ones."""
    gate = threading.Event()
    listing = script(Gate(gate), json_response(200, {"data": [{"id": "other-model"}]}))
    with Upstream(script(json_response(200, completion()))) as upstream, Upstream(listing) as other:
        where = {"url": upstream.url, "other": other.url, "folder": tmp_path}
        served = await serve(read(tmp_path, CHECKED.format(**where, unlisted="warn")), {"KEK": new_key()})
        gateway = served.gateway
        store = (await gateway.keeper()).credentials(gateway.settings)
        await store.add("root", "spare", "the-first-key")
        await until_shown(served, upstream, "the-first-key")
        asked = len(other.requests)
        trying = asyncio.create_task(gateway.reload(read(tmp_path, CHECKED.format(**where, unlisted="refuse"))))
        await asyncio.to_thread(other.wait_request, asked + 1)
        await store.rotate("root", "spare", "the-second-key")
        await asyncio.sleep(A_WHILE)
        assert await shown(served, upstream) == "Bearer the-first-key"
        gate.set()
        await trying
        await until_shown(served, upstream, "the-second-key")
        await gateway.stop()


async def shown(served: Served, upstream: Upstream) -> str | None:
    upstream.forget()
    assert await served.chat() == 200
    return upstream.wait_request().header("authorization")


async def until_shown(served: Served, upstream: Upstream, secret: str) -> None:
    async with asyncio.timeout(10.0):
        while await shown(served, upstream) != f"Bearer {secret}":
            await asyncio.sleep(0.02)


REPAIRED = """\
server: {{listen: "127.0.0.1:0", admin_listen: "127.0.0.1:0"}}
providers:
  broken: {{kind: openai, base_url: "{broken}"}}
  spare: {{kind: openai, base_url: "{spare}"}}
models: {{test-model: {{targets: [{{provider: broken, priority: 1}}, {{provider: spare, priority: 2}}], strategy: priority}}}}
policies: {{authenticate: {{open: true}}, retry: false, circuit_breaker: {{failures: 1}}}}
"""


async def test_a_provider_that_was_repaired_is_asked_again_at_once(tmp_path: Path):
    good = script(json_response(200, completion()))
    with Upstream(script(error_response(500))) as broken, Upstream(good) as spare, Upstream(good) as repaired:
        served = await serve(read(tmp_path, REPAIRED.format(broken=broken.url, spare=spare.url)), {})
        for _ in range(3):
            assert await served.chat() == 200
        assert (len(broken.requests), len(spare.requests)) == (1, 3)
        await served.gateway.reload(
            read(tmp_path, REPAIRED.format(broken=broken.url, spare=spare.url).replace("failures: 1", "failures: 2"))
        )
        assert await served.chat() == 200
        assert len(broken.requests) == 1, "it is the same provider, and still out"
        await served.gateway.reload(read(tmp_path, REPAIRED.format(broken=repaired.url, spare=spare.url)))
        assert await served.chat() == 200
        assert len(repaired.requests) == 1
        await served.gateway.stop()


# --------------------------------------------------------------------------------------------------------------------------- certificate
def certificate(address: tuple[str, int], most: ssl.TLSVersion) -> bytes | None:
    """What a client that names no server is shown."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode, context.maximum_version = False, ssl.CERT_NONE, most
    with socket.create_connection(address, 5) as plain, context.wrap_socket(plain) as connection:
        return connection.getpeercert(binary_form=True)


@pytest.mark.parametrize("most", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_the_certificate_is_the_one_that_was_read_when_the_change_was_prepared(tmp_path: Path, most: ssl.TLSVersion):
    first = write_certificate(tmp_path, "first.test")
    tls = f'tls: {{certificate: "file:{tmp_path}/cert.pem", key: "file:{tmp_path}/key.pem"}}, '
    served = await serve(read(tmp_path, SIM.replace("server: {", "server: {" + tls)), {})
    gateway, address = served.gateway, served.address
    second = write_certificate(tmp_path, "second.test")
    dropped = await gateway.prepare(gateway.settings.model_copy())
    await gateway.drop(dropped)
    assert await asyncio.to_thread(certificate, address, most) == first
    prepared = await gateway.prepare(gateway.settings.model_copy())
    # Half of what somebody is about to put there: it fits nothing.
    secret = (tmp_path / "key.pem").read_bytes()
    write_certificate(tmp_path, "third.test")
    (tmp_path / "key.pem").write_bytes(secret)
    gateway.take(prepared)
    assert await asyncio.to_thread(certificate, address, most) == second
    with pytest.raises(OSError, match="do not belong together"):
        await gateway.reload(gateway.settings.model_copy())
    assert await asyncio.to_thread(certificate, address, most) == second
    await gateway.stop()


async def test_the_certificates_of_all_authorities_are_read_once_for_all_providers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    reading = Mock(wraps=ssl.create_default_context)
    monkeypatch.setattr(ssl, "create_default_context", reading)
    named = "".join(f'  p{number}: {{kind: openai, base_url: "https://p{number}.example/v1"}}\n' for number in range(3))
    gateway = Gateway(read(tmp_path, f"{SIM}{named}"), environ={}, emit=lambda _event: None)
    await gateway.stop()
    assert reading.call_count == 1
