"""What users set for themselves, as far as their keys let them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from proxy.core.call import Principal
from proxy.core.errors import ClientError
from proxy.core.resolved import Preferences
from proxy.http.user_config import UserConfig
from tests.core.doubles import HandClock, make_call
from tests.policies.test_resolve import Store

FREE = Principal("ann", key="k")
HELD = replace(FREE, may_set=frozenset({"timeout"}))
STORED = Preferences(model="m", timeout=20.0, task_types={"A": Preferences(model="m", timeout=5.0)})


async def change(store: Store, body: dict[str, Any] | None, principal: Principal = HELD) -> int:
    call = make_call("llm_config", method="DELETE" if body is None else "PUT", body=body or {}, principal=principal)
    return (await UserConfig(store, HandClock())(call)).status


@pytest.mark.parametrize(
    ("stored", "body", "named"),
    [
        (Preferences(), {"preferred_model": "m"}, "preferred_model"),
        (Preferences(), {"fallback_model": "m"}, "fallback_model"),
        (Preferences(), {"max_retries": 0}, "max_retries"),
        (Preferences(), {"task_type_configs": {"A": {"timeout_seconds": 5, "model": "m"}}}, "task_type_configs.A.model"),
        (STORED, {"preferred_model": "other"}, "preferred_model"),
        (STORED, {"timeout_seconds": 5}, "preferred_model"),
        (STORED, {"preferred_model": "m"}, "task_type_configs.A.model"),
        (STORED, {"preferred_model": "m", "task_type_configs": {"B": {"model": "m"}}}, "task_type_configs.A.model"),
        (STORED, None, "preferred_model"),
    ],
)
async def test_what_a_key_may_not_set_it_changes_nowhere(stored: Preferences, body: dict[str, Any] | None, named: str):
    store = Store(ann=stored)
    with pytest.raises(ClientError) as refused:
        await change(store, body)
    assert (refused.value.status, refused.value.code, refused.value.param) == (403, "permission_denied", named)
    assert store.known == {"ann": stored}
    assert await change(store, body, FREE) in (200, 204)


@pytest.mark.parametrize(
    ("stored", "body", "left"),
    [
        (Preferences(), {"timeout_seconds": 5}, Preferences(timeout=5.0)),
        (
            STORED,
            {"preferred_model": "m", "task_type_configs": {"A": {"model": "m"}}},
            replace(STORED, timeout=None, task_types={"A": Preferences("m")}),
        ),
        (Preferences(timeout=5.0), None, None),
    ],
)
async def test_what_a_key_may_set_it_changes_beside_what_stays(stored: Preferences, body: dict[str, Any] | None, left: Preferences | None):
    store = Store(ann=stored)
    assert await change(store, body) in (200, 204)
    assert store.known.get("ann") == left


async def test_what_is_set_is_shown_whatever_the_key_may_set():
    reply = await UserConfig(Store(ann=STORED), HandClock())(
        make_call("llm_config", method="GET", principal=replace(HELD, may_set=frozenset()))
    )
    assert orjson.loads(reply.body)["preferred_model"] == "m"
