from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.errors import ClientError
from proxy.storage.limits import Limits, decode

_NAME = st.text(st.characters(codec="ascii", exclude_categories=["C"]), min_size=1, max_size=20)
_SET = st.none() | st.frozensets(_NAME, max_size=3)


@given(
    st.builds(
        Limits,
        models=st.none() | st.lists(_NAME, max_size=3).map(tuple),
        providers=_SET,
        operations=_SET,
        task_types=_SET,
        addresses=st.none() | st.lists(st.ip_addresses().map(lambda ip: f"{ip}/{ip.max_prefixlen}"), max_size=3).map(tuple),
        grants=st.frozensets(_NAME, max_size=3),
        may_set=_SET,
        names_users=st.booleans(),
    )
)
def test_limits_come_back_as_they_were_stored(limits: Limits) -> None:
    assert decode(json.loads(json.dumps(limits.encode()))) == limits


def test_none_and_nothing_are_different() -> None:
    assert decode(Limits(models=()).encode()).models == ()
    assert decode(Limits().encode()).models is None


@pytest.mark.parametrize(
    ("limits", "param"),
    [
        (Limits(models=("a\nb",)), "models"),
        (Limits(models=("",)), "models"),
        (Limits(providers=frozenset({"x" * 201})), "providers"),
        (Limits(addresses=("10.0.0.0/40",)), "addresses"),
        (Limits(addresses=("example.org",)), "addresses"),
        (Limits(grants=frozenset(map(str, range(1001)))), "grants"),
    ],
)
def test_what_is_no_name_or_no_address_is_refused(limits: Limits, param: str) -> None:
    with pytest.raises(ClientError) as refused:
        limits.encode()
    assert (refused.value.status, refused.value.param) == (400, param)


def test_a_limit_that_this_version_cannot_enforce_is_not_read_as_none() -> None:
    with pytest.raises(ValueError, match="max_price"):
        decode({"max_price": 3})
