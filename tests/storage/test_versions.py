from __future__ import annotations

import hashlib

from proxy.storage.audit import Audit
from proxy.storage.database import Database
from proxy.storage.versions import Versions


async def test_versions_are_kept_in_their_order(database: Database) -> None:
    versions = Versions(database)
    assert await versions.latest() is None
    first = await versions.add("root", "a: 1\n", "the first")
    second = await versions.add("ana", "a: 2\n")
    assert (first.text, first.actor, first.comment, first.digest) == ("a: 1\n", "root", "the first", hashlib.sha256(b"a: 1\n").hexdigest())
    assert second.id > first.id
    assert await versions.latest() == second
    assert await versions.get(first.id) == first
    assert [(version.id, version.text) for version in await versions.list()] == [(second.id, None), (first.id, None)]
    assert [version.id for version in await versions.list(before=second.id)] == [first.id]


async def test_the_audit_log_names_a_version_without_its_text(database: Database) -> None:
    made = await Versions(database).add("root", "key: text-of-the-file")
    (row,) = await Audit(database).list()
    assert row.after == {"id": made.id, "digest": made.digest, "comment": None}
