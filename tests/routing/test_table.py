"""What a model's name leads to: a look-up, never a destination that a client made up."""

from __future__ import annotations

import pytest

from proxy.core.call import Target
from proxy.core.errors import ClientError
from proxy.routing.table import Table

TARGETS = {"fast": Target("east", "gpt-4o-mini", "fast"), "gpt-4o": Target("west", "gpt-4o", "gpt-4o")}
CLOSED = Table(TARGETS, frozenset({"east", "west"}), "east")
OPEN = Table(TARGETS, frozenset({"east", "west"}), "east", open=True)
EMPTY = Table({}, frozenset(), None)


@pytest.mark.parametrize(
    ("table", "model", "expected"),
    [
        (CLOSED, "fast", TARGETS["fast"]),
        (CLOSED, "west/anything", Target("west", "anything")),
        (CLOSED, "west/org/model:7b", Target("west", "org/model:7b")),
        (CLOSED, None, Target("east", None)),
        (OPEN, "fast", TARGETS["fast"]),
        (OPEN, "unheard-of", Target("east", "unheard-of")),
        (OPEN, "north/model", Target("east", "north/model")),
        (OPEN, "west/model", Target("west", "model")),
        (OPEN, "west/", Target("east", "west/")),
    ],
)
def test_a_model_is_found(table: Table, model: str | None, expected: Target):
    assert table.find(model) == expected


def test_a_name_of_the_table_goes_before_a_providers():
    table = Table({"east/x": Target("west", "y", "east/x")}, frozenset({"east", "west"}), None)
    assert table.find("east/x") == Target("west", "y", "east/x")


@pytest.mark.parametrize("model", ["fasst", "north/model", "east/", "/model", "EAST/model", ""])
def test_what_is_not_in_the_table_does_not_exist(model: str):
    with pytest.raises(ClientError) as caught:
        CLOSED.find(model)
    assert (caught.value.status, caught.value.code, caught.value.param) == (404, "model_not_found", "model")


@pytest.mark.parametrize(("model", "near"), [("fasst", "fast"), ("gpt-4", "gpt-4o"), ("zzz", "fast, gpt-4o")])
def test_the_nearest_names_are_shown(model: str, near: str):
    with pytest.raises(ClientError, match=f"Near to it: {near}"):
        CLOSED.find(model)


def test_with_no_models_at_all_none_is_near():
    with pytest.raises(ClientError) as caught:
        EMPTY.find("m")
    assert "Near" not in caught.value.message


def test_a_long_name_is_not_repeated_whole():
    with pytest.raises(ClientError) as caught:
        CLOSED.find("x" * 10_000)
    assert len(caught.value.message) < 400


def test_a_request_without_a_model_needs_a_default():
    with pytest.raises(ClientError) as caught:
        EMPTY.find(None)
    assert (caught.value.status, caught.value.code) == (404, "model_not_found")
