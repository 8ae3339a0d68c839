"""Opening, changing, and what happens when the database cannot."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import insert, select, text

from proxy.core.errors import CapacityError, ClientError
from proxy.settings.storage import default_path
from proxy.storage.audit import Audit
from proxy.storage.database import Database
from proxy.storage.faults import is_lasting
from proxy.storage.tables import audit_log, users
from proxy.storage.users import Users
from proxy.storage.versions import Versions
from tests.core.doubles import HandClock
from tests.storage.servers import PostgreSQL


async def test_a_change_and_its_audit_row_are_there_together(database: Database) -> None:
    changed = await database.change("root", "user.create", "user ana", None, {"id": "ana"}, insert(users).values(id="ana"))
    assert (changed.before, changed.after, changed.rows) == (None, {"id": "ana"}, 1)
    assert len(await database.fetch(select(users))) == len(await database.fetch(select(audit_log))) == 1


async def test_a_change_whose_audit_fails_does_not_happen(database: Database) -> None:
    with pytest.raises(TypeError):
        await database.change("root", "user.create", "user ana", None, {"id": b"secret"}, insert(users).values(id="ana"))
    assert await database.fetch(select(users)) == await database.fetch(select(audit_log)) == []


async def test_a_change_that_fails_leaves_no_audit_row(database: Database) -> None:
    await Users(database).create("root", "ana")
    with pytest.raises(ClientError) as refused:
        await Users(database).create("root", "ana")
    assert (refused.value.status, refused.value.code) == (409, "already_exists")
    assert len(await database.fetch(select(audit_log))) == 1


async def test_a_change_of_nothing_is_not_found_and_leaves_no_audit_row(database: Database) -> None:
    with pytest.raises(ClientError) as refused:
        await Users(database).delete("root", "ana")
    assert refused.value.status == 404
    assert await database.fetch(select(audit_log)) == []


async def test_what_is_not_open_cannot_be_asked(url: str, clock: HandClock) -> None:
    with pytest.raises(CapacityError) as refused:
        await Database(url, clock).fetch(select(users))
    assert (refused.value.status, refused.value.code) == (503, "storage_unavailable")


@pytest.mark.parametrize(
    "url", ["mysql://root:hunter2@host/x", "postgresql+psycopg2://root:hunter2@host/x", "hunter2", "sqlite+pysqlite:///x"]
)
def test_other_urls_are_refused_without_repeating_them(url: str, clock: HandClock) -> None:
    with pytest.raises(ValueError, match="storage") as refused:
        Database(url, clock)
    assert "hunter2" not in str(refused.value)


def test_its_password_is_not_shown(clock: HandClock) -> None:
    assert "hunter2" not in repr(Database("postgresql://root:hunter2@host/x", clock))


@pytest.mark.parametrize("url", ["sqlite:", "sqlite://", "sqlite:///", "sqlite://a.db", "sqlite:///:memory:", "sqlite:////var/lib/"])
def test_what_names_no_file_is_refused(url: str, clock: HandClock) -> None:
    with pytest.raises(ValueError, match=r"sqlite:////\w+"):
        Database(url, clock)


async def test_what_was_written_is_found_by_the_next_who_opens(url: str, clock: HandClock) -> None:
    for expected in (None, "ana"):
        database = Database(url, clock)
        await database.open()
        found = await Users(database).get("ana")
        assert (found and found.id) == expected
        if found is None:
            await Users(database).create("root", "ana")
        await database.close()


# --------------------------------------------------------------------------------------------------------------------------------- SQLite
async def test_its_files_are_its_owners_alone(tmp_path: Path, clock: HandClock) -> None:
    path = tmp_path / "new" / "comporta.db"
    database = Database(f"sqlite:///{path}", clock)
    await database.open()
    await Users(database).create("root", "ana")
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert set(modes.values()) == {0o600}
    assert "comporta.db-wal" in modes
    await database.close()


def test_its_place_follows_the_base_directories() -> None:
    assert default_path({"XDG_DATA_HOME": "/data", "HOME": "/home/x"}) == Path("/data/comporta/comporta.db")
    assert default_path({"XDG_DATA_HOME": "relative", "HOME": "/home/x"}) == Path("/home/x/.local/share/comporta/comporta.db")
    assert default_path({"HOME": "/home/x"}) == Path("/home/x/.local/share/comporta/comporta.db")


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
async def test_a_locked_file_is_503_for_writers_and_nothing_for_readers(database: Database, tmp_path: Path) -> None:
    await Users(database).create("root", "ana")
    other = sqlite3.connect(tmp_path / "comporta.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(CapacityError) as refused:
        await Users(database).create("root", "bob")
    assert (refused.value.status, refused.value.code) == (503, "storage_unavailable")
    assert await Users(database).get("ana") is not None
    other.execute("ROLLBACK")
    other.close()
    await Users(database).create("root", "bob")


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
async def test_a_full_disk_is_507_and_what_was_there_is_still_read(database: Database) -> None:
    versions = Versions(database)
    await versions.add("root", "a: 1")
    async with database.writing() as connection:
        pages = (await connection.execute(text("PRAGMA page_count"))).scalar_one()
        await connection.execute(text(f"PRAGMA max_page_count = {pages + 1}"))
    with pytest.raises(CapacityError) as refused:
        await versions.add("root", "x" * 100_000)
    assert (refused.value.status, refused.value.code) == (507, "insufficient_storage")
    assert [version.id for version in await versions.list()] == [1]
    assert await Audit(database).verify() is None


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
async def test_a_file_that_has_become_read_only_is_507_and_still_read(database: Database) -> None:
    await Users(database).create("root", "ana")
    async with database.writing() as connection:
        await connection.execute(text("PRAGMA query_only = ON"))
    with pytest.raises(CapacityError) as refused:
        await Users(database).create("root", "bob")
    assert (refused.value.status, refused.value.code) == (507, "storage_read_only")
    assert await Users(database).get("ana") is not None
    assert await Audit(database).verify() is None


async def test_an_opening_that_failed_may_be_tried_again(tmp_path: Path, clock: HandClock) -> None:
    (tmp_path / "data").write_text("in the way")
    database = Database(f"sqlite:///{tmp_path}/data/comporta.db", clock)
    with pytest.raises(CapacityError) as refused:
        await database.open()
    assert is_lasting(refused.value)
    with pytest.raises(CapacityError):
        await Users(database).get("ana")
    (tmp_path / "data").unlink()
    await database.open()
    assert await Users(database).get("ana") is None
    await database.close()


async def test_nobody_gets_to_a_database_that_is_not_brought_up_to_date(url: str, clock: HandClock) -> None:
    database = Database(url, clock)
    opening = asyncio.create_task(database.open())
    while not opening.done():
        try:
            await Users(database).get("ana")
        except CapacityError as error:
            assert error.detail == "it is not open"
        await asyncio.sleep(0)
    assert await Users(database).get("ana") is None
    await database.close()


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
async def test_writers_wait_in_a_bounded_queue(url: str, clock: HandClock) -> None:
    database = Database(url, clock, queue=2)
    await database.open()
    async with database.writing():
        waiting = [asyncio.create_task(Users(database).create("root", name)) for name in ("ana", "bob")]
        await asyncio.sleep(0)
        with pytest.raises(CapacityError) as refused:
            await Users(database).create("root", "eve")
        assert refused.value.status == 503
    assert [user.id for user in await asyncio.gather(*waiting)] == ["ana", "bob"]
    await database.close()


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
async def test_a_writer_waits_only_so_long(url: str, clock: HandClock) -> None:
    database = Database(url, clock, patience=0.05)
    await database.open()
    async with database.writing():
        with pytest.raises(CapacityError) as refused:
            await Users(database).create("root", "ana")
    assert refused.value.code == "storage_unavailable"
    await Users(database).create("root", "ana")
    await database.close()


async def test_a_cancelled_writer_leaves_nothing_and_frees_its_turn(database: Database) -> None:
    began = asyncio.Event()

    async def write() -> None:
        async with database.writing() as connection:
            await connection.execute(insert(users).values(id="ana"))
            began.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(write())
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await Users(database).get("ana") is None
    await Users(database).create("root", "ana")


async def test_a_folder_that_cannot_be_made_is_503(tmp_path: Path, clock: HandClock) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CapacityError):
        await Database(f"sqlite:///{tmp_path}/file/comporta.db", clock).open()


async def test_a_file_that_is_no_database_is_503_and_left_alone(tmp_path: Path, clock: HandClock) -> None:
    (tmp_path / "notes.txt").write_text("not a database at all\n" * 100)
    with pytest.raises(CapacityError):
        await Database(f"sqlite:///{tmp_path}/notes.txt", clock).open()
    assert (tmp_path / "notes.txt").read_text().startswith("not a database")


# ----------------------------------------------------------------------------------------------------------------------------- PostgreSQL
async def test_nobody_listening_is_503(clock: HandClock) -> None:
    with pytest.raises(CapacityError) as refused:
        await Database("postgresql://comporta:hunter2@127.0.0.1:1/x", clock).open()
    assert (refused.value.status, refused.value.code) == (503, "storage_unavailable")
    assert "hunter2" not in f"{refused.value} {refused.value.detail}"


async def test_a_connection_lost_in_a_transaction_is_503_and_the_next_one_is_new(postgresql: PostgreSQL, clock: HandClock) -> None:
    database = Database(postgresql.create(), clock)
    await database.open()
    with pytest.raises(CapacityError):
        async with database.writing() as connection:
            await connection.execute(insert(users).values(id="ana"))
            await connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
            await connection.execute(select(users))
    assert await Users(database).get("ana") is None
    await database.close()


# ------------------------------------------------------------------------------------------------------------------------------- imports
def test_what_is_kept_in_memory_needs_no_database_library() -> None:
    heavy = ("sqlalchemy", "alembic", "asyncpg", "aiosqlite")
    code = f"import sys, proxy.storage.identities; sys.exit(any(name in sys.modules for name in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


async def test_a_start_at_a_sqlite_file_that_is_up_to_date_imports_nothing_that_it_has_no_use_for(tmp_path: Path, clock: HandClock) -> None:
    url = f"sqlite:///{tmp_path}/comporta.db"
    database = Database(url, clock)
    await database.open()
    await database.close()
    heavy = ("alembic", "asyncpg", "redis", "sqlalchemy.dialects.postgresql", "cryptography")
    code = (
        "import asyncio, sys, proxy.keeping\n"
        "from proxy.core.clock import SystemClock\n"
        "from proxy.storage.database import Database\n"
        f"database = Database({url!r}, SystemClock())\n"
        "async def main():\n"
        "    await database.open()\n"
        "    await database.close()\n"
        "asyncio.run(main())\n"
        f"print([name for name in {heavy} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=60, capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
