"""Which level's value holds, and that each value knows its level."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.hierarchy import FIELDS, NOTHING_ASKED, Asked, Hierarchy, described, for_embeddings, resolve, with_model, with_params
from proxy.core.resolved import LEVELS, Preferences

NOBODY = Preferences()

SYSTEM = Hierarchy(
    Preferences("llama3.2:3b", "llama3.2:1b", 60.0, 3),
    {
        "TASK_TYPE_INSIGHT_GENERATION": Preferences("llama3.2:3b", None, 45.0, 2),
        "TASK_TYPE_WEEKLY_REPORT": Preferences("llama3.2:7b", None, 120.0, 3),
        "TASK_TYPE_DATA_ANALYSIS": Preferences("llama3.2:3b", None, 90.0, 3),
    },
    {"llama3.2:3b": {"temperature": 0.7, "max_tokens": 2048}, "llama3.2:7b": {"temperature": 0.6, "max_tokens": 4096}},
    {"llama3.2:3b": 8192, "llama3.2:7b": 16384},
    premium_model="llama3.2:7b",
    standard_model="llama3.2:3b",
)


# ------------------------------------------------------------------------------------------------------------------------ the four cases
@pytest.mark.parametrize("tier", [None, "standard"])
def test_a_user_without_preferences_gets_the_task_types_values(tier: str | None):
    found = resolve(SYSTEM, "TASK_TYPE_INSIGHT_GENERATION", NOBODY, tier, NOTHING_ASKED)
    assert (found.model, found.timeout, found.source) == ("llama3.2:3b", 45.0, "task_type")


def test_a_users_model_goes_before_the_task_types_whose_timeout_stays():
    preferred = Preferences(model="llama3.2:7b")
    found = resolve(SYSTEM, "TASK_TYPE_WEEKLY_REPORT", preferred, "premium", NOTHING_ASKED)
    assert (found.model, found.timeout, found.source) == ("llama3.2:7b", 120.0, "user")
    assert (found.sources["model"], found.sources["timeout"]) == ("user", "task_type")


def test_the_fallback_of_the_system_level_stands_beside_the_task_types_model():
    found = resolve(SYSTEM, "TASK_TYPE_INSIGHT_GENERATION", NOBODY, None, NOTHING_ASKED)
    assert (found.model, found.fallback_model, found.sources["fallback_model"]) == ("llama3.2:3b", "llama3.2:1b", "system")


def test_an_unknown_task_type_gets_the_system_level_and_is_marked():
    found = resolve(SYSTEM, "TASK_TYPE_OF_TOMORROW", NOBODY, None, NOTHING_ASKED)
    assert (found.model, found.timeout, found.source) == ("llama3.2:3b", 60.0, "system")
    assert (found.task_type, found.is_known_task_type) == ("TASK_TYPE_OF_TOMORROW", False)


# ---------------------------------------------------------------------------------------------------------------------------- levels
def test_no_task_type_is_not_an_unknown_one():
    assert resolve(SYSTEM, None, NOBODY, None, NOTHING_ASKED).is_known_task_type


def test_a_task_type_that_only_the_user_has_set_something_for_is_known():
    own = Preferences(task_types={"MINE": Preferences(timeout=5.0)})
    found = resolve(SYSTEM, "MINE", own, None, NOTHING_ASKED)
    assert found.is_known_task_type
    assert (found.timeout, found.sources["timeout"]) == (5.0, "user")


def test_a_users_entry_for_the_task_type_goes_before_the_user_and_the_request_before_both():
    own = Preferences("a", None, 1.0, 1, {"T": Preferences(model="b", timeout=2.0)})
    assert (resolve(SYSTEM, "T", own, None, NOTHING_ASKED).model, resolve(SYSTEM, None, own, None, NOTHING_ASKED).model) == ("b", "a")
    found = resolve(SYSTEM, "T", own, None, Asked(model="c"))
    assert (found.model, found.timeout, found.max_retries) == ("c", 2.0, 1)
    assert [found.sources[name] for name in ("model", "timeout", "max_retries", "fallback_model")] == ["request", "user", "user", "system"]


def test_each_of_the_timeouts_has_a_level_of_its_own():
    system = Hierarchy(
        Preferences(model="m", timeouts={"connect": 1.0, "first_token": 1.0, "idle": 1.0, "total": 1.0}),
        {"T": Preferences(timeouts={"first_token": 2.0, "idle": 2.0, "min_tokens_per_second": 2.0})},
    )
    users = Preferences(timeouts={"idle": 3.0}, task_types={"T": Preferences(timeouts={"total": 4.0})})
    found = resolve(system, "T", users, None, Asked(timeouts={"window": 5.0}))
    assert found.timeouts == {
        "connect": 1.0,
        "first_token": 2.0,
        "idle": 3.0,
        "total": 4.0,
        "min_tokens_per_second": 2.0,
        "window": 5.0,
    }
    told = {"connect": "system", "first_token": "task_type", "idle": "user", "total": "user", "min_tokens_per_second": "task_type"}
    assert {name: found.sources[f"timeouts.{name}"] for name in told} == told
    assert (found.source, described(found)["timeouts.window"]) == ("request", {"value": 5.0, "source": "request"})
    again = with_model(system, found, "other", "system")
    assert (again.timeouts, again.sources["timeouts.idle"]) == (found.timeouts, "user")
    assert resolve(for_embeddings(system), "T", NOBODY, None, NOTHING_ASKED).timeouts["first_token"] == 2.0


def test_zero_is_a_value_and_none_is_not():
    found = resolve(SYSTEM, None, Preferences(max_retries=0), None, NOTHING_ASKED)
    assert (found.max_retries, found.sources["max_retries"]) == (0, "user")
    assert resolve(SYSTEM, None, Preferences(max_retries=None), None, NOTHING_ASKED).max_retries == 3


@pytest.mark.parametrize(
    ("tier", "task_type", "model", "source"),
    [
        ("premium", None, "llama3.2:7b", "user"),
        ("gold", "TASK_TYPE_WEEKLY_REPORT", "llama3.2:3b", "user"),
        ("standard", None, "llama3.2:3b", "system"),
        (None, "TASK_TYPE_WEEKLY_REPORT", "llama3.2:7b", "task_type"),
    ],
)
def test_a_tiers_model_stands_at_the_users_level_where_it_changes_something(
    tier: str | None, task_type: str | None, model: str, source: str
):
    found = resolve(SYSTEM, task_type, NOBODY, tier, NOTHING_ASKED)
    assert (found.model, found.sources["model"]) == (model, source)


def test_a_tiers_model_is_below_what_the_user_set():
    assert resolve(SYSTEM, None, Preferences(model="mine"), "premium", NOTHING_ASKED).model == "mine"


def test_the_parameters_are_those_of_the_model_that_it_came_to_below_what_was_asked():
    found = resolve(SYSTEM, "TASK_TYPE_WEEKLY_REPORT", NOBODY, None, Asked(params={"temperature": 0.0}))
    assert found.params == {"temperature": 0.0, "max_tokens": 4096}
    assert (found.sources["temperature"], found.sources["max_tokens"], found.context_window) == ("request", "system", 16384)


def test_another_model_brings_its_own_parameters_and_keeps_what_was_asked():
    before = with_params(resolve(SYSTEM, None, NOBODY, None, NOTHING_ASKED), {"temperature": 0.1})
    after = with_model(SYSTEM, before, "llama3.2:7b", "system")
    assert (after.model, after.context_window, after.params) == ("llama3.2:7b", 16384, {"temperature": 0.1, "max_tokens": 4096})
    assert after.source == "request"


def test_nothing_anywhere_is_nothing_from_the_system():
    found = resolve(Hierarchy(), None, NOBODY, None, NOTHING_ASKED)
    assert (found.model, found.timeout, found.source, dict(found.sources)) == (None, None, "system", {})


# ------------------------------------------------------------------------------------------------------------------------ properties
names = st.none() | st.sampled_from(["small", "large", "other"])
levels = st.builds(Preferences, names, names, st.none() | st.floats(0.1, 300), st.none() | st.integers(0, 10))
users = st.builds(replace, levels, task_types=st.dictionaries(st.sampled_from(["A", "B"]), levels))
hierarchies = st.builds(
    Hierarchy,
    levels,
    st.dictionaries(st.sampled_from(["A", "C"]), levels),
    st.dictionaries(st.sampled_from(["small", "large"]), st.fixed_dictionaries({}, optional={"temperature": st.floats(0, 2)})),
    premium_model=names,
    standard_model=names,
)
asks = st.builds(Asked, names, names, st.none() | st.floats(0.1, 300), st.none() | st.integers(0, 10))
inputs = st.tuples(
    hierarchies, st.none() | st.sampled_from(["A", "B", "C", "D"]), users, st.none() | st.sampled_from(["premium", "x"]), asks
)

Inputs = tuple[Hierarchy, str | None, Preferences, str | None, Asked]


def setters(given_: Inputs, name: str) -> list[tuple[str, object]]:
    """Level and value of everything that sets a field, the least specific first; written another way than the code."""
    system, task_type, user, tier, asked = given_
    found = [("system", getattr(system.system, name)), ("task_type", getattr(system.task_types.get(task_type or "", NOBODY), name))]
    if name == "model" and tier is not None:
        found.append(("tier", system.premium_model if tier == "premium" else system.standard_model))
    found += [("user", getattr(user, name)), ("user", getattr(user.task_types.get(task_type or "", NOBODY), name))]
    found.append(("request", getattr(asked, name)))
    return [(level, value) for level, value in found if value is not None]


@given(inputs)
def test_the_most_specific_value_wins_and_its_source_is_true(given_: Inputs):
    found = resolve(*given_)
    for name in FIELDS:
        expected = setters(given_, name)
        assert getattr(found, name) == (expected[-1][1] if expected else None)
        assert (name in found.sources) == bool(expected)
        if not expected:
            continue
        level = expected[-1][0]
        if level == "tier":  # it counts where it changed something
            below = [value for _, value in expected[:-1]]
            level = expected[-2][0] if below and below[-1] == expected[-1][1] else "user"
        assert found.sources[name] == level


@given(inputs)
def test_the_whole_is_named_after_the_most_specific_level_that_set_anything(given_: Inputs):
    found = resolve(*given_)
    assert found.source == max(found.sources.values(), key=LEVELS.index, default="system")


@given(inputs)
def test_resolving_again_changes_nothing(given_: Inputs):
    system, task_type, user, tier, _ = given_
    once = resolve(*given_)
    assert resolve(*given_) == once
    again = resolve(system, task_type, user, tier, Asked(once.model, once.fallback_model, once.timeout, once.max_retries))
    assert [getattr(again, name) for name in FIELDS] == [getattr(once, name) for name in FIELDS]


@given(inputs)
def test_what_is_described_is_what_is_set(given_: Inputs):
    found = resolve(*given_)
    assert described(found).keys() == found.sources.keys()
