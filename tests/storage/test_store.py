from __future__ import annotations

from proxy.core.keys import digest, generate
from proxy.core.resolved import Preferences
from proxy.storage.keys import NewKey
from proxy.storage.store import Store
from tests.core.doubles import HandClock

PEPPER = b"p" * 32


async def test_what_is_written_in_one_life_is_found_in_the_next(url: str, clock: HandClock) -> None:
    id, token = generate()
    store = Store(url, clock)
    await store.open()
    await store.users.create("root", "ana")
    await store.keys.create("root", NewKey(id, "ana", digest(token, PEPPER), token[-4:]))
    await store.preferences.put("ana", "ana", Preferences(max_retries=0))
    await store.versions.add("root", "a: 1")
    await store.close()

    store = Store(url, clock)
    await store.open()
    principal = await store.identities(PEPPER).find(token)
    assert principal is not None
    assert (principal.id, principal.key) == ("ana", id)
    assert await store.kept_preferences().find("ana") == Preferences(max_retries=0)
    assert await store.credentials.list() == ()
    assert await store.audit.verify(await store.audit.head()) is None
    assert [row.action for row in await store.audit.list()] == ["configuration.add", "preferences.put", "key.create", "user.create"]
    await store.close()
