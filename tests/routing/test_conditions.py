"""What must hold of a request."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from proxy.core.call import ANONYMOUS, Principal
from proxy.core.resolved import Resolved
from proxy.routing.conditions import Condition, Range, holds, max_tokens
from tests.core.doubles import make_call

CALL: dict[str, Any] = {
    "body": {"prompt": "x" * 4000, "max_tokens": 50, "metadata": {"team": "search", "level": 3, "deep": {"a": 1}}},
    "principal": Principal(id="u1", tier="premium"),
    "resolved": Resolved(task_type="report"),
    "stream": True,
}


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ((), True),
        ((("task_type", ("report", "other")),), True),
        ((("task_type", ("other",)),), False),
        ((("tier", ("premium",)), ("stream", (True,))), True),
        ((("tier", ("premium",)), ("stream", (False,))), False),
        ((("user", ("u1",)),), True),
        ((("operation", ("chat",)),), True),
        ((("prompt_tokens", Range(above=999)),), True),
        ((("prompt_tokens", Range(above=1000)),), False),
        ((("prompt_tokens", Range(above=999, below=1001)),), True),
        ((("max_tokens", Range(below=50)),), False),
        ((("max_tokens", (50,)),), True),
        ((("metadata.team", ("search",)),), True),
        ((("metadata.level", Range(above=2)),), True),
        ((("metadata.deep", ("a",)),), False),
        ((("metadata.absent", ("x",)),), False),
        ((("metadata.team", Range(above=0)),), False),
    ],
)
def test_a_condition_holds_or_not(condition: Condition, expected: bool):
    assert holds(condition, make_call(**CALL)) is expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"max_tokens": 7}, 7),
        ({"max_completion_tokens": 7}, 7),
        ({"max_output_tokens": 7}, 7),
        ({"max_completion_tokens": None, "max_tokens": 7}, 7),
        ({"max_tokens": 0}, 0),
        ({"max_tokens": None}, None),
    ],
)
def test_the_longest_answer_has_three_names(body: dict[str, Any], expected: int | None):
    assert max_tokens(make_call(body=body)) == expected


def test_a_picture_is_no_text():
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 40_000}}
    body = {"messages": [{"role": "user", "content": [{"type": "text", "text": "what is it"}, picture]}]}
    assert holds((("prompt_tokens", Range(below=100)),), make_call(body=body, raw=orjson.dumps(body)))


def test_what_a_request_does_not_say_is_in_no_range():
    bare = make_call(body={"metadata": "none"}, resolved=None)
    assert not any(holds(((name, Range(below=1e9)),), bare) for name in ("max_tokens", "metadata.x", "task_type"))


@pytest.mark.parametrize(
    ("principal", "user"),
    [
        (Principal(id="u1", key="k"), "u1"),
        (Principal(id="u1", key="k", names_users=True), "boss"),
        (ANONYMOUS, "boss"),
    ],
    ids=["a key that may not name users", "a key that may", "an open gateway"],
)
def test_the_user_that_a_request_names_counts_only_where_it_may_name_one(principal: Principal, user: str):
    call = make_call(principal=principal, end_user="boss")
    assert [name for name in ("u1", "boss") if holds((("user", (name,)),), call)] == [user]
    assert holds((("user", (principal.id,)),), make_call(principal=principal))
