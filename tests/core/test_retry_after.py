"""How long a server asks to wait, and which of that is believed; rows 11-13 of docs/faults.md."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from proxy.core.retry_after import LONGEST, parse_retry_after

NOW = 1_700_000_000.0


def _date(seconds: float) -> str:
    return formatdate(NOW + seconds, usegmt=True)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": " 7 "}, 7.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "86400"}, 86400.0),
        ({"retry-after": str(int(LONGEST))}, LONGEST),
        ({"retry-after": str(int(LONGEST) + 1)}, None),
        ({"retry-after": "1e400"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "9" * 5000}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "\udcff"}, None),
        ({"retry-after": _date(30)}, 30.0),
        ({"retry-after": _date(86400)}, 86400.0),
        ({"retry-after": _date(-30)}, None),
        ({"retry-after": _date(0)}, None),
        ({"retry-after": _date(LONGEST + 60)}, None),
        ({"retry-after": "Mon, 99 Foo 2023 00:00:00 GMT"}, None),
        ({"retry-after": "Mon, 01 Jan 99999999 00:00:00 GMT"}, None),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after-ms": "nonsense", "retry-after": "2"}, 2.0),
        ({"retry-after-ms": "-1", "retry-after": "2"}, 2.0),
        ({"retry-after-ms": "86400000", "retry-after": "2"}, 86400.0),
        ({"retry-after-ms": "999999999", "retry-after": "2"}, 2.0),
    ],
)
def test_a_hint_is_believed_where_it_makes_sense(headers: dict[str, str], expected: float | None):
    assert parse_retry_after(headers, NOW) == expected


def test_a_date_is_measured_from_the_present_where_no_time_is_given():
    assert parse_retry_after({"retry-after": "Tue, 01 Jan 1980 00:00:00 GMT"}) is None


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Tokyo"])
@pytest.mark.parametrize("date", ["Tue Nov 14 22:14:20 2023", "Tue, 14 Nov 2023 22:14:20 -0000"])
def test_a_date_without_a_zone_is_in_utc(date: str, zone: str, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patched:
        patched.setenv("TZ", zone)
        time.tzset()
        try:
            assert parse_retry_after({"retry-after": date}, NOW) == 60.0
        finally:
            patched.undo()
            time.tzset()
