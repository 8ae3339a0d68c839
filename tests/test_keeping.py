"""What lasts, as a gateway gets it: where the database is, and the pepper that its keys are hashed with."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from policies.authenticate import AuthenticateSettings
from providers.settings import NetworkSettings
from proxy.core import keys
from proxy.core.errors import CapacityError
from proxy.core.metrics import Registry
from proxy.core.protocols import Services
from proxy.keeping import CredentialWatch, Keeper, StorageAwayError, database_url, kept_pepper, pepper
from proxy.settings import Settings
from proxy.settings.credentials import CredentialSettings
from proxy.settings.storage import StateSettings, StorageSettings
from proxy.vault import new_key
from tests.core.doubles import HandClock
from tests.state.test_news import RedisServer
from tests.support.log import logged

LONG = "0123456789abcdef" * 2


def at(path: Path) -> StorageSettings:
    return StorageSettings(url=f"sqlite:///{path}/data/comporta.db")


def test_a_pepper_is_made_once_and_its_owners_alone(tmp_path: Path):
    file = tmp_path / "data" / "comporta.pepper"
    made = kept_pepper(file)
    assert len(made) == 64
    assert kept_pepper(file) == made
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert list(file.parent.iterdir()) == [file]


def test_processes_that_start_together_agree_on_the_pepper(tmp_path: Path):
    found: list[bytes] = []
    barrier = threading.Barrier(8)

    def start() -> None:
        barrier.wait()
        found.append(kept_pepper(tmp_path / "comporta.pepper"))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_pepper_that_others_can_read_is_refused(tmp_path: Path, mode: int):
    file = tmp_path / "comporta.pepper"
    file.write_text(LONG)
    file.chmod(mode)
    with pytest.raises(RuntimeError, match="chmod 600"):
        kept_pepper(file)


@pytest.mark.parametrize("content", ["", "short", "\n" * 100])
def test_a_pepper_that_was_cut_is_refused_and_not_replaced(tmp_path: Path, content: str):
    file = tmp_path / "comporta.pepper"
    file.write_text(content)
    file.chmod(0o600)
    with pytest.raises(RuntimeError, match="fewer than 32"):
        kept_pepper(file)
    assert file.read_text() == content


def test_a_pepper_by_reference_is_followed(tmp_path: Path):
    section = StorageSettings(pepper="env:PEPPER")
    assert pepper(section, "postgresql://host/a", {"PEPPER": LONG}) == LONG.encode()
    with pytest.raises(RuntimeError, match="fewer than 32"):
        pepper(section, "postgresql://host/a", {"PEPPER": "short"})
    with pytest.raises(RuntimeError, match=r"storage\.pepper"):
        pepper(section, "postgresql://host/a", {})


def test_several_gateways_at_one_database_are_not_given_a_pepper_each():
    with pytest.raises(RuntimeError, match="is not set"):
        pepper(StorageSettings(url="env:URL"), "postgresql://host/a", {})


def test_where_the_database_is(tmp_path: Path):
    assert database_url(StorageSettings(), {"XDG_DATA_HOME": str(tmp_path)}) == f"sqlite:///{tmp_path}/comporta/comporta.db"
    assert database_url(StorageSettings(url="env:URL"), {"URL": "postgresql://me:pw@host/a"}) == "postgresql://me:pw@host/a"
    with pytest.raises(RuntimeError, match=r"storage\.url"):
        database_url(StorageSettings(url="env:URL"), {})


def test_a_secret_url_that_is_none_is_refused_without_being_repeated(tmp_path: Path):
    settings = Settings(storage=StorageSettings(url="env:URL", pepper="env:PEPPER"))
    with pytest.raises(RuntimeError) as caught:
        Keeper(settings, {"URL": "mysql://me:hunter2@host/a", "PEPPER": LONG}, HandClock(), Registry())
    assert "hunter2" not in str(caught.value)


async def test_what_is_kept_is_lent_and_answers_once_it_is_open(tmp_path: Path):
    keeper = Keeper(Settings(storage=at(tmp_path)), {}, HandClock(), Registry())
    lent = keeper.lend(Services(HandClock(), Registry(), lambda _fields: None))
    assert lent.identities is keeper.identities
    assert lent.preferences is keeper.preferences
    await keeper.open()
    await keeper.open()
    try:
        assert await keeper.identities.find(keys.generate()[1]) is None
    finally:
        await keeper.close()


async def test_a_place_that_cannot_be_written_is_told_in_words(tmp_path: Path):
    (tmp_path / "data").write_text("a file, and no folder")
    with pytest.raises(RuntimeError, match=str(tmp_path)):
        Keeper(Settings(storage=at(tmp_path)), {}, HandClock(), Registry())
    elsewhere = Settings(storage=StorageSettings(url=f"sqlite:///{tmp_path}/data/comporta.db", pepper="env:PEPPER"))
    with pytest.raises(RuntimeError, match="storage"):
        await Keeper(elsewhere, {"PEPPER": LONG}, HandClock(), Registry()).open()


async def test_credentials_are_looked_at_when_somebody_tells_and_an_error_ends_nothing():
    looks: asyncio.Queue[int] = asyncio.Queue()

    async def look() -> None:
        looks.put_nowait(1)
        raise RuntimeError("a provider that cannot be built")

    watch = CredentialWatch(every=3600.0)
    watch.start(look)
    for _ in range(3):
        watch.look()
        await asyncio.wait_for(looks.get(), 5.0)
    assert looks.empty()
    await watch.stop()


async def test_credentials_are_looked_at_now_and_then_though_nobody_tells():
    looked = asyncio.Event()

    async def look() -> None:
        looked.set()

    watch = CredentialWatch(every=0.01)
    watch.start(look)
    await asyncio.wait_for(looked.wait(), 5.0)
    await watch.stop()


async def test_a_key_that_one_instance_replaces_the_other_has_long_before_it_would_look(tmp_path: Path):
    redis = RedisServer(tmp_path)
    settings = Settings(
        storage=at(tmp_path),
        state=StateSettings(url=redis.url),
        credentials=CredentialSettings(key="env:KEK"),
        providers={"up": NetworkSettings(base_url="https://a.example/v1", api_key="store:spare")},
        policies={"authenticate": AuthenticateSettings.model_validate({"staleness": "1h"})},
    )
    environ = {"KEK": new_key()}
    one, other = (Keeper(settings, environ, HandClock(), Registry()) for _ in range(2))
    renewed = asyncio.Event()

    async def renew() -> None:
        if one.secrets("spare") == "the-second-key":
            renewed.set()

    redis.start()
    try:
        for keeper in (one, other):
            await keeper.open()
        await other.credentials(settings).add("root", "spare", "the-first-key")
        await one.read_credentials(settings)
        assert one.secrets("spare") == "the-first-key"
        one.watch_credentials(lambda: settings, renew)
        await other.credentials(settings).rotate("root", "spare", "the-second-key")
        await asyncio.wait_for(renewed.wait(), 10.0)
    finally:
        for keeper in (one, other):
            await keeper.close()
        redis.stop()


# --------------------------------------------------------------------------------------------------------------- a database that is away
AWAY = "postgresql://nobody@127.0.0.1:1/none"


def keeper_at(url: str, *, required: bool = False) -> Keeper:
    return Keeper(
        Settings(storage=StorageSettings(url=url, pepper="env:PEPPER", required=required)), {"PEPPER": LONG}, HandClock(), Registry()
    )


async def test_a_start_goes_on_without_a_database_that_is_away_unless_it_is_required():
    keeper = keeper_at(AWAY)
    with logged() as lines:
        await keeper.start()
    assert not keeper.is_open
    assert [(line["event"], line["level"]) for line in lines] == [("storage_unreachable", "error")]
    with pytest.raises(CapacityError) as refused:
        await keeper.identities.find(keys.generate()[1])
    assert refused.value.code == "keys_unavailable"
    await keeper.close()

    with pytest.raises(StorageAwayError):
        await keeper_at(AWAY, required=True).start()


async def test_a_start_is_refused_for_what_waiting_does_not_mend(tmp_path: Path):
    (tmp_path / "folder.db").mkdir()
    keeper = keeper_at(f"sqlite:///{tmp_path}/folder.db")
    with pytest.raises(RuntimeError) as refused:
        await keeper.start()
    assert not isinstance(refused.value, StorageAwayError)
    await keeper.close()


@pytest.mark.parametrize("url", ["sqlite:///", "sqlite://a.db", "sqlite:///:memory:"])
def test_a_reference_to_what_names_no_file_is_refused(url: str):
    settings = Settings(storage=StorageSettings(url="env:DATABASE_URL"))
    with pytest.raises(RuntimeError, match=r"storage: write sqlite:////"):
        Keeper(settings, {"DATABASE_URL": url}, HandClock(), Registry())
