"""How large a body may be that is passed on as it comes."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.settings import ServerSettings

MiB = 2**20


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({}, 512 * MiB),
        ({"max_body": "1MiB"}, MiB),
        ({"max_body": "64MiB"}, 64 * MiB),
        ({"max_upload": "2GiB"}, 2048 * MiB),
        ({"max_body": "1MiB", "max_upload": "5MiB"}, 5 * MiB),
    ],
)
def test_who_bounds_bodies_bounds_uploads_unless_they_have_a_bound_of_their_own(written: dict[str, Any], expected: int):
    assert ServerSettings(**written).largest_upload == expected
