"""Whose key that is: from memory, from the database, and with the database stopped."""

from __future__ import annotations

import asyncio
import zlib
from datetime import timedelta

import pytest

from proxy.core.call import Principal
from proxy.core.errors import CapacityError
from proxy.core.keys import digest, generate, parse
from proxy.core.protocols import Identities as IdentitiesProtocol
from proxy.core.resolved import Preferences
from proxy.storage.database import Database
from proxy.storage.identities import Identities, KeptPreferences, KnownKey
from proxy.storage.kept import Keeping
from proxy.storage.keys import Keys, NewKey
from proxy.storage.limits import Limits
from proxy.storage.preferences import PreferenceTable
from proxy.storage.users import Users
from tests.core.doubles import HandClock
from tests.storage.servers import PostgreSQL

PEPPER = b"p" * 32


async def _issue(database: Database, user: str = "ana", lifetime: float | None = None, limits: Limits | None = None) -> tuple[str, str]:
    """A new user with a key: its id, and the key."""
    id, token = generate()
    if await Users(database).get(user) is None:
        await Users(database).create("root", user, tier="premium")
    expires = None if lifetime is None else database.now() + timedelta(seconds=lifetime)
    await Keys(database).create("root", NewKey(id, user, digest(token, PEPPER), token[-4:], limits=limits or Limits(), expires_at=expires))
    return id, token


def _identities(database: Database) -> Identities:
    return Identities(Keys(database).find, PEPPER, database.clock)


async def test_a_key_is_found_once_and_then_recalled(database: Database) -> None:
    id, token = await _issue(database, limits=Limits(models=("gpt-4*",), addresses=("10.0.0.0/8",), names_users=True))
    identities = _identities(database)
    assert identities.recall(identities.mark(token)) is None
    principal = Principal(id="ana", key=id, tier="premium", models=("gpt-4*",), addresses=("10.0.0.0/8",), names_users=True)
    assert await identities.find(token) == principal
    assert identities.recall(identities.mark(token)) == principal


async def test_strangers_are_nobody(database: Database) -> None:
    identities = _identities(database)
    id, token = await _issue(database)
    _, other = generate()
    same_id_other_secret = _signed(f"sk-cmp-{id}_" + "A" * 33)
    for stranger in ("", "x", "' OR 1=1 --", "\0" * 10, "x" * 1_000_000, token[:-1], other, same_id_other_secret):
        assert await identities.find(stranger) is None
        assert identities.recall(identities.mark(stranger)) is None
    assert await identities.find(token) is not None


def _signed(body: str) -> str:
    """A key whose check is right."""
    return f"{body}_{zlib.crc32(body.encode()):08x}"


async def test_another_pepper_knows_nobody(database: Database) -> None:
    _, token = await _issue(database)
    assert await Identities(Keys(database).find, b"q" * 32, database.clock).find(token) is None


async def test_a_key_that_is_revoked_elsewhere_is_refused_within_the_staleness(database: Database, clock: HandClock) -> None:
    id, token = await _issue(database)
    identities = _identities(database)
    assert await identities.find(token) is not None
    await Keys(database).revoke("root", id)
    assert await identities.find(token) is not None
    clock.move(10.0)
    assert identities.recall(identities.mark(token)) is None
    assert await identities.find(token) is None


@pytest.mark.parametrize("by", ["key", "user"])
async def test_what_is_told_is_seen_at_once(database: Database, by: str) -> None:
    id, token = await _issue(database)
    _, other = await _issue(database, user="bob")
    identities = _identities(database)
    await identities.find(token)
    await identities.find(other)
    await Keys(database).revoke("root", id)
    identities.forget(**{by: id if by == "key" else "ana"})
    assert identities.recall(identities.mark(token)) is None
    assert await identities.find(token) is None
    assert identities.recall(identities.mark(other)) is not None


async def test_a_user_who_is_not_active_has_no_keys_until_active_again(database: Database) -> None:
    _, token = await _issue(database)
    identities = _identities(database)
    await Users(database).update("root", "ana", {"active": False})
    assert await identities.find(token) is None
    await Users(database).update("root", "ana", {"active": True})
    assert await identities.find(token) is None
    identities.forget(user="ana")
    assert await identities.find(token) is not None


async def test_a_key_expires_while_it_is_in_hand(database: Database, clock: HandClock) -> None:
    _, token = await _issue(database, lifetime=5.0)
    identities = _identities(database)
    assert await identities.find(token) is not None
    clock.move(5.0)
    assert identities.recall(identities.mark(token)) is None
    assert await identities.find(token) is None


async def test_after_a_rotation_both_keys_are_let_in_for_the_overlap(database: Database, clock: HandClock) -> None:
    old, token = await _issue(database)
    id, successor = generate()
    keys = Keys(database)
    await keys.rotate("root", old, NewKey(id, "ana", digest(successor, PEPPER), successor[-4:]), overlap=3600.0)
    identities = _identities(database)
    assert await identities.find(token) is not None
    assert await identities.find(successor) is not None
    clock.move(3600.0)
    assert await identities.find(token) is None
    assert await identities.find(successor) is not None


async def test_with_postgresql_stopped_known_keys_are_served_for_a_while_and_then_503(clock: HandClock) -> None:
    server = PostgreSQL()
    try:
        database = Database(server.start().create(), clock)
        await database.open()
        _, token = await _issue(database)
        _, unseen = await _issue(database, user="bob")
        identities, preferences = _identities(database), KeptPreferences(PreferenceTable(database).find, clock)
        await PreferenceTable(database).put("root", "ana", Preferences(model="m"))
        known = await identities.find(token)
        assert await preferences.find("ana") == Preferences(model="m")
        server.stop()

        clock.move(11.0)
        assert known is not None
        assert await identities.find(token) == known
        with pytest.raises(CapacityError) as refused:
            await identities.find(unseen)
        assert (refused.value.status, refused.value.code) == (503, "keys_unavailable")
        assert await preferences.find("ana") == Preferences(model="m")
        assert await preferences.find("bob") == Preferences()

        clock.move(290.0)
        with pytest.raises(CapacityError) as refused:
            await identities.find(token)
        assert refused.value.status == 503
        with pytest.raises(CapacityError):
            await Users(database).create("root", "eve")

        server.start()
        clock.move(1.0)
        assert await identities.find(token) == known
        assert await identities.find(unseen) is not None
        await database.close()
    finally:
        server.remove()


async def test_many_who_come_at_once_with_one_key_make_one_query(database: Database) -> None:
    _, token = await _issue(database)
    asked: list[str] = []

    async def counted(id: str) -> KnownKey | None:
        asked.append(id)
        return await Keys(database).find(id)

    identities = Identities(counted, PEPPER, database.clock)
    found = await asyncio.gather(*(identities.find(token) for _ in range(200)))
    assert {principal and principal.id for principal in found} == {"ana"}
    assert len(asked) == 1


async def test_whoever_guesses_keys_neither_uses_up_the_database_nor_keeps_out_who_is_known(clock: HandClock) -> None:
    asked: list[str] = []
    _, ours = generate()

    async def find(id: str) -> KnownKey | None:
        asked.append(id)
        return KnownKey(Principal(id="ana", key=id), digest(ours, PEPPER)) if id == parse(ours) else None

    identities = Identities(find, PEPPER, clock, Keeping(guesses=20, per_second=5.0, staleness=10.0))
    assert await identities.find(ours) is not None
    answers = [await _found_or_refused(identities, generate()[1]) for _ in range(500)]
    assert (answers.count("nobody"), answers.count("keys_unavailable")) == (20, 480)
    clock.move(10.0)
    assert await identities.find(ours) is not None
    assert len(asked) == 22
    answers = [await _found_or_refused(identities, generate()[1]) for _ in range(500)]
    assert (answers.count("nobody"), answers.count("keys_unavailable")) == (20, 480)


async def _found_or_refused(identities: Identities, token: str) -> str:
    try:
        return "nobody" if await identities.find(token) is None else "somebody"
    except CapacityError as error:
        return str(error.code)


async def test_preferences_are_recalled_and_forgotten(database: Database) -> None:
    table = PreferenceTable(database)
    await Users(database).create("root", "ana")
    kept = KeptPreferences(table.find, database.clock)
    assert kept.recall("ana") is None
    assert await kept.find("ana") == Preferences()
    assert kept.recall("ana") == Preferences()
    await table.put("root", "ana", Preferences(max_retries=0))
    assert await kept.find("ana") == Preferences()
    kept.forget(user="ana")
    assert await kept.find("ana") == Preferences(max_retries=0)


async def test_everything_can_be_forgotten(database: Database) -> None:
    id, token = await _issue(database)
    identities, preferences = _identities(database), KeptPreferences(PreferenceTable(database).find, database.clock)
    await identities.find(token)
    await preferences.find("ana")
    await Keys(database).revoke("root", id)
    identities.forget_everything()
    preferences.forget_everything()
    assert preferences.recall("ana") is None
    assert await identities.find(token) is None


def test_they_are_what_the_policies_are_promised(clock: HandClock) -> None:
    identities: IdentitiesProtocol = _identities(Database("sqlite:////nowhere", clock))
    assert identities.recall(identities.mark("x")) is None
