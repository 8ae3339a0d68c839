"""Changes of the configuration while the gateway runs: all of it, or nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from proxy.configuration import ConfigurationFile, Who, digest, previewed
from proxy.core.errors import CapacityError, ClientError
from proxy.core.resolved import Preferences
from proxy.reload import held
from proxy.settings import KEPT, Loaded, load
from proxy.storage.audit import Audit
from proxy.storage.database import Database
from proxy.storage.versions import Version, Versions
from tests.core.doubles import HandClock
from tests.lifecycle.test_certificate import write_certificate

FIRST = "server: {grace: '5s'}\n"
SECOND = "server: {grace: '6s'}\n"
THIRD = "server: {grace: '7s'}\n"


def read(path: Path | None) -> Loaded:
    return load(path, {}, {}, probe=lambda _host, _port: False)


class Noticed(Loaded):
    """What was read, and says in the place of its values whether they are listed in the event loop's thread."""

    def values(self) -> list[tuple[str, Any, str]]:
        return [("in_the_loop", threading.current_thread() is threading.main_thread(), "")]


class Gateway:
    """Whether what the file says can be put into force; it takes until `finish` is set."""

    def __init__(self, file: Path) -> None:
        self.accepts = True
        self.reloads = 0
        self.file = file
        self.in_force = read(file)
        self.began, self.finish = asyncio.Event(), asyncio.Event()
        self.finish.set()

    async def reload(self) -> bool:
        accepts = self.accepts
        self.reloads += 1
        self.began.set()
        await self.finish.wait()
        if accepts:
            self.in_force, _ = held(self.in_force, read(self.file))
        return accepts

    @property
    def grace(self) -> float:
        return self.in_force.settings.server.grace


@pytest.fixture
def file(tmp_path: Path) -> Path:
    found = tmp_path / "gateway.yaml"
    found.write_text(FIRST)
    found.chmod(0o640)
    return found


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    found = Database(f"sqlite:///{tmp_path}/comporta.db", HandClock())
    await found.open()
    yield found
    await found.close()


@pytest.fixture
def gateway(file: Path) -> Gateway:
    return Gateway(file)


def configuring(path: Path | None, gateway: Gateway, database: Database, clock: HandClock | None = None) -> ConfigurationFile:
    async def history() -> Versions:
        return Versions(database)

    in_force = (lambda: gateway.in_force) if path is not None else (lambda: read(None))
    return ConfigurationFile(path, load=read, reload=gateway.reload, in_force=in_force, history=history, clock=clock or HandClock())


async def test_what_is_applied_is_in_the_file_in_force_and_kept_with_what_was_there_before(
    file: Path, gateway: Gateway, database: Database
):
    version = await configuring(file, gateway, database).apply("ada", SECOND, "longer")
    assert (file.read_text(), gateway.reloads, version.comment) == (SECOND, 1, "longer")
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    kept = [await Versions(database).get(one.id) for one in await Versions(database).list()]
    assert [one.text for one in kept if one is not None] == [SECOND, FIRST]
    assert [row.action for row in await Audit(database).list()] == ["configuration.add", "configuration.add"]
    assert list(file.parent.glob(".gateway.yaml.*")) == []


async def test_a_pipe_is_neither_waited_for_nor_written(file: Path, gateway: Gateway, database: Database):
    file.unlink()
    os.mkfifo(file)
    found = configuring(file, gateway, database)
    async with asyncio.timeout(10):
        told = (await found.current()).problems[0].message
        with pytest.raises(ClientError, match="it is a pipe") as refused:
            await found.apply("ada", SECOND, None)
    assert "it is a pipe, which is read once" in told
    assert (refused.value.status, file.is_fifo()) == (409, True)


async def test_values_are_listed_in_a_thread(file: Path, database: Database):
    def noticed(path: Path | None) -> Loaded:
        return Noticed(**vars(read(path)))

    async def history() -> Versions:
        return Versions(database)

    gateway = Gateway(file)
    asked = ConfigurationFile(file, load=noticed, reload=gateway.reload, in_force=lambda: noticed(file), history=history, clock=HandClock())
    for values in ((await asked.current()).values, (await asked.check(SECOND)).values):
        assert [(value.path, value.value) for value in values] == [("in_the_loop", False)]


async def test_a_wrong_text_changes_nothing_and_is_told_by_its_path(file: Path, gateway: Gateway, database: Database):
    with pytest.raises(ClientError) as refused:
        await configuring(file, gateway, database).apply("ada", "server: {grase: '6s'}\n", None)
    assert (refused.value.status, refused.value.param, refused.value.code) == (400, "server.grase", "invalid_configuration")
    with pytest.raises(ClientError) as refused:
        await configuring(file, gateway, database).apply("ada", "server: {grase: '6s'}\nservre: {}\n", None)
    assert [line.partition(": ")[0] for line in refused.value.message.splitlines()] == ["server.grase", "servre"]
    assert (file.read_text(), gateway.reloads, await Versions(database).list()) == (FIRST, 0, ())


async def test_an_answer_names_what_needs_a_restart(file: Path, gateway: Gateway, database: Database):
    changing = configuring(file, gateway, database)
    assert (await changing.apply("ada", "server: {grace: '6s', workers: 2}\n", None)).needs_restart == ["server.workers"]
    assert (await changing.apply("ada", SECOND, None)).needs_restart == []


async def test_what_the_gateway_refuses_is_taken_back(file: Path, gateway: Gateway, database: Database):
    gateway.accepts = False
    file.write_bytes(b"# ours\r\n" + FIRST.encode())
    with pytest.raises(ClientError, match="as it was"):
        await configuring(file, gateway, database).apply("ada", SECOND, None)
    assert file.read_bytes() == b"# ours\r\n" + FIRST.encode()


async def test_a_version_comes_back(file: Path, gateway: Gateway, database: Database):
    changing = configuring(file, gateway, database)
    await changing.apply("ada", SECOND, None)
    oldest = (await Versions(database).list())[-1]
    back = await changing.roll_back("bob", oldest.id)
    assert (file.read_text(), back.comment, back.actor) == (FIRST, f"rolled back to version {oldest.id}", "bob")
    with pytest.raises(ClientError, match="no version 99"):
        await changing.roll_back("bob", 99)


async def test_a_change_of_what_somebody_else_has_changed_is_refused(file: Path, gateway: Gateway, database: Database):
    changing = configuring(file, gateway, database)
    with pytest.raises(ClientError) as refused:
        await changing.apply("ada", SECOND, None, digest_before=digest("something older"))
    assert (refused.value.status, file.read_text()) == (412, FIRST)
    await changing.apply("ada", SECOND, None, digest_before=digest(FIRST))
    assert file.read_text() == SECOND


async def test_a_change_whose_audit_cannot_be_written_does_not_happen(file: Path, gateway: Gateway, database: Database):
    await database.close()
    with pytest.raises(CapacityError):
        await configuring(file, gateway, database).apply("ada", SECOND, None)
    assert (file.read_text(), gateway.reloads) == (FIRST, 0)


async def test_changes_are_ten_a_minute(file: Path, gateway: Gateway, database: Database):
    clock = HandClock()
    changing = configuring(file, gateway, database, clock)
    for turn in range(10):
        await changing.apply("ada", SECOND if turn % 2 else FIRST, None)
    with pytest.raises(CapacityError) as refused:
        await changing.apply("ada", SECOND, None)
    assert (refused.value.status, refused.value.retry_after) == (429, 60.0)
    clock.move(61)
    await changing.apply("ada", SECOND, None)


async def test_without_a_file_there_is_nothing_to_change(gateway: Gateway, database: Database):
    changing = configuring(None, gateway, database)
    with pytest.raises(ClientError) as refused:
        await changing.apply("ada", SECOND, None)
    assert refused.value.status == 409
    assert (await changing.current()).text is None


async def test_what_is_configured_is_shown_with_its_sources(file: Path, gateway: Gateway, database: Database):
    found = await configuring(file, gateway, database).current()
    assert (found.digest, found.text) == (digest(FIRST), FIRST)
    values = {value.path: (value.value, value.source) for value in found.values}
    assert values["server.grace"][0] == "5s"
    assert "gateway.yaml" in values["server.grace"][1] or "1" in values["server.grace"][1]
    assert values["server.workers"] == (1, "default")
    assert found.problems == []


async def test_a_wrong_file_is_shown_with_its_problems_beside_what_is_in_force(file: Path, gateway: Gateway, database: Database):
    file.write_text("server: {grase: '6s'}\n")
    found = await configuring(file, gateway, database).current()
    assert (found.text, found.digest) == (file.read_text(), digest(file.read_text()))
    assert [problem.path for problem in found.problems] == ["server.grase"]
    assert {value.path: value.value for value in found.values}["server.grace"] == "5s"


@pytest.mark.parametrize("content", [None, b"server: {grace: '\xff'}"])
async def test_a_file_that_cannot_be_read_is_a_problem_and_is_not_replaced(
    file: Path, gateway: Gateway, database: Database, content: bytes | None
):
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    changing = configuring(file, gateway, database)
    found = await changing.current()
    assert (found.text, found.digest, len(found.problems)) == (None, None, 1)
    assert {value.path: value.value for value in found.values}["server.grace"] == "5s"
    with pytest.raises(ClientError) as refused:
        await changing.apply("ada", SECOND, None)
    assert (refused.value.status, refused.value.code) == (409, "configuration_file_unreadable")
    assert gateway.reloads == 0


@pytest.mark.parametrize("accepts", [True, False])
async def test_a_change_that_its_client_gives_up_is_in_the_file_and_in_force_or_in_neither(
    file: Path, gateway: Gateway, database: Database, accepts: bool
):
    gateway.accepts = accepts
    gateway.finish.clear()
    changing = configuring(file, gateway, database)
    given_up = asyncio.create_task(changing.apply("ada", SECOND, None))
    await gateway.began.wait()
    given_up.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await given_up
    gateway.finish.set()
    # The next one waits its turn, and finds nothing half-done.
    with pytest.raises(ClientError, match="unknown section"):
        await changing.apply("bob", "servre: {}", None)
    assert (file.read_text(), gateway.grace) == ((SECOND, 6.0) if accepts else (FIRST, 5.0))


async def test_a_change_that_is_given_up_while_it_waits_its_turn_does_not_happen(file: Path, gateway: Gateway, database: Database):
    gateway.finish.clear()
    changing = configuring(file, gateway, database)
    first = asyncio.create_task(changing.apply("ada", SECOND, None))
    await gateway.began.wait()
    waiting = asyncio.create_task(changing.apply("bob", THIRD, None))
    await asyncio.sleep(0)
    waiting.cancel()
    gateway.finish.set()
    await first
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (file.read_text(), gateway.reloads) == (SECOND, 1)


async def test_a_file_that_cannot_be_replaced_is_named_before_anything_is_kept(tmp_path: Path, database: Database):
    """It is one of so long a name that there is none for the file beside it; a folder that nobody may write is refused alike."""
    file = tmp_path / ("a" * 250 + ".yaml")
    file.write_text(FIRST)
    gateway = Gateway(file)
    with pytest.raises(ClientError, match="folder must be writable") as refused:
        await configuring(file, gateway, database).apply("ada", SECOND, None)
    assert (refused.value.status, refused.value.code) == (409, "configuration_file_unwritable")
    assert str(file) in refused.value.message
    assert (file.read_text(), gateway.reloads, await Versions(database).list()) == (FIRST, 0, ())


@pytest.mark.parametrize(("accepts", "newest"), [(True, "could not be replaced"), (False, None)])
async def test_a_file_that_cannot_be_replaced_any_more_is_told_as_it_is(
    file: Path, gateway: Gateway, database: Database, accepts: bool, newest: str | None
):
    """In the way is a folder: put there before the new text is, or before the old one is put back."""
    gateway.accepts = accepts

    class Obstructing(Versions):
        async def add(self, actor: str, text: str, comment: str | None = None) -> Version:
            if text == SECOND and accepts:
                obstruct(file)
            return await super().add(actor, text, comment)

    async def reload() -> bool:
        obstruct(file)
        return accepts

    async def history() -> Versions:
        return Obstructing(database)

    changing = ConfigurationFile(file, load=read, reload=reload, in_force=lambda: gateway.in_force, history=history, clock=HandClock())
    with pytest.raises(ClientError) as refused:
        await changing.apply("ada", SECOND, None)
    assert (refused.value.status, refused.value.code) == (409, "configuration_file_unwritable")
    latest = await Versions(database).latest()
    assert latest is not None
    if newest is not None:
        assert (latest.text, newest in (latest.comment or "")) == (FIRST, True)
    else:
        assert "The gateway refused it" in refused.value.message
        assert latest.text == SECOND, "what was not put back is not said to have been"


async def test_a_change_that_is_refused_leaves_the_very_file(file: Path, gateway: Gateway):
    async def away() -> Versions:
        raise CapacityError("away", code="storage_unavailable")

    file.write_bytes(FIRST.replace("\n", "\r\n").encode())
    inode = file.stat().st_ino
    changing = ConfigurationFile(file, load=read, reload=gateway.reload, in_force=lambda: gateway.in_force, history=away, clock=HandClock())
    with pytest.raises(CapacityError):
        await changing.apply("ada", SECOND, None)
    assert (file.read_bytes(), file.stat().st_ino) == (FIRST.replace("\n", "\r\n").encode(), inode)
    assert list(file.parent.glob(".gateway.yaml.*")) == []


@pytest.mark.parametrize(
    ("moment", "kept"),
    [("checked", []), ("kept", [THIRD, SECOND, FIRST]), ("put into force", [SECOND, FIRST])],
    ids=["while it is checked", "while it is kept", "while it is put into force"],
)
async def test_what_somebody_writes_while_it_is_changed_stays(
    file: Path, gateway: Gateway, database: Database, moment: str, kept: list[str]
):
    class Edited(Versions):
        async def add(self, actor: str, text: str, comment: str | None = None) -> Version:
            edit("kept" if text == SECOND else "")
            return await super().add(actor, text, comment)

    async def history() -> Versions:
        return Edited(database)

    def edit(now: str) -> None:
        if now == moment:
            file.write_text(THIRD)

    def checked(path: Path | None) -> Loaded:
        edit("checked")
        return read(path)

    async def reload() -> bool:
        edit("put into force")
        return False

    changing = ConfigurationFile(file, load=checked, reload=reload, in_force=lambda: gateway.in_force, history=history, clock=HandClock())
    with pytest.raises(ClientError, match="has changed") as refused:
        await changing.apply("ada", SECOND, None)
    assert (refused.value.status, refused.value.code, file.read_text()) == (412, "precondition_failed", THIRD)
    found = [await Versions(database).get(one.id) for one in await Versions(database).list()]
    assert [one.text for one in found if one is not None] == kept


def obstruct(file: Path) -> None:
    file.unlink()
    file.mkdir()


# ---------------------------------------------------------------------------------------------------------------------- what is in force
def test_what_only_a_restart_can_change_is_shown_as_it_is(tmp_path: Path):
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    old.write_text("server: {listen: '127.0.0.1:1', workers: 2, admin_key: 'env:OLD'}\n")
    write_certificate(tmp_path, "here.test")
    tls = f"{{certificate: 'file:{tmp_path}/cert.pem', key: 'file:{tmp_path}/key.pem'}}"
    new.write_text(f"server: {{listen: '127.0.0.1:2', workers: 2, watch: true, admin_key: 'env:NEW', tls: {tls}}}\n")
    loaded, kept = held(read(old), read(new))
    values = {path: (value, source) for path, value, source in loaded.values()}
    assert (kept, values["server.listen"]) == (["server.listen", "server.watch", "server.tls"], ("127.0.0.1:1", KEPT))
    assert (values["server.watch"], values["server.admin_key"]) == ((False, KEPT), ("env:NEW", "file:1"))
    assert (values["server.tls"], values["server.workers"]) == ((None, KEPT), (2, "file:1"))


# ------------------------------------------------------------------------------------------------------------------------------- preview
LEVELS = """\
providers: {up: {kind: openai, base_url: "http://127.0.0.1:1/v1", allow_private: true}}
llm:
  default_model: small
  timeout: "60s"
  task_types: {REPORT: {model: large}}
  user_preferences: {premium_model: best, standard_model: plain}
  alias: auto
  allowed_models: [small, large, best, plain]
policies: {retry: false}
"""


@pytest.mark.parametrize(
    ("who", "task_type", "model", "expected"),
    [
        (Who(), None, None, ("small", "system")),
        (Who(), "REPORT", None, ("large", "task_type")),
        (Who(), "REPORT", "small", ("small", "request")),
        (Who(), "REPORT", "auto", ("large", "task_type")),
        (Who("ana", "premium"), None, None, ("best", "user")),
        (Who("ana", "gold"), None, None, ("plain", "user")),
        (Who("ana"), None, None, ("plain", "user")),
        (Who("ana", None, Preferences(task_types={"REPORT": Preferences(model="small")})), "REPORT", None, ("small", "user")),
    ],
)
def test_a_preview_says_each_value_with_its_level(tmp_path: Path, who: Who, task_type: str | None, model: str | None, expected):
    file = tmp_path / "levels.yaml"
    file.write_text(LEVELS)
    found = previewed(read(file).settings, who, task_type, model)
    assert (found.values["model"].value, found.values["model"].source) == expected
    assert (found.values["timeout"].value, found.user, found.known_task_type) == (60.0, who.id, True)
    assert "fallback" in found.policies
    assert "retry" not in found.policies


def test_a_preview_refuses_what_a_request_would_be_refused(tmp_path: Path):
    file = tmp_path / "levels.yaml"
    file.write_text(LEVELS)
    with pytest.raises(ClientError, match="not allowed"):
        previewed(read(file).settings, Who(), None, "huge")
    with pytest.raises(ClientError, match=r"'simm' does not exist\. Near to it: sim"):
        previewed(read(None).settings, Who(), None, "simm")


def test_without_the_section_a_preview_has_what_is_asked_for():
    found = previewed(read(None).settings, Who(), None, "sim")
    assert {name: (one.value, one.source) for name, one in found.values.items()} == {"model": ("sim", "request")}


async def test_a_key_that_somebody_wrote_into_the_file_is_neither_shown_nor_kept(file: Path, gateway: Gateway, database: Database):
    provider = "providers: {up: {kind: openai, base_url: 'https://a', api_key: hunter2-hunter2}}"
    file.write_text(provider + "\nstorage: {url: 'postgresql://a:hunter2@b/c'}\n")
    changing = configuring(file, gateway, database)
    shown = await changing.current()
    assert shown.text is not None
    assert ("hunter2" in shown.text, "[a key]}" in shown.text, "[a password]@b/c" in shown.text) == (False, True, True)
    assert shown.digest == digest(file.read_text())
    await changing.apply("ada", SECOND, None)
    kept = [await Versions(database).get(one.id) for one in await Versions(database).list()]
    assert [one.text for one in kept if one is not None] == [SECOND, shown.text]
