"""What every provider that is reached over the network can be told."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from providers.settings import NetworkSettings, TimeoutSettings


@pytest.mark.parametrize(
    "url",
    [
        "https://api.example.net/v1",
        "http://127.0.0.1:8000/v1",
        "http://[::1]:8000",
        "http://model_1.example.",
        f"http://{'a' * 63}.example",
    ],
)
def test_an_address_is_taken_whole(url: str) -> None:
    assert NetworkSettings(base_url=url).base_url == url


def test_a_slash_at_the_end_makes_no_difference() -> None:
    assert NetworkSettings(base_url="https://api.example.net/v1/").base_url == "https://api.example.net/v1"


@pytest.mark.parametrize(
    "url",
    [
        "api.example.net/v1",
        "ftp://api.example.net",
        "https://",
        "https://user:hunter2@host/v1",
        "https://host/v1?key=1",
        "https://host/#part",
    ],
)
def test_what_is_no_plain_address_is_refused(url: str) -> None:
    with pytest.raises(ValidationError) as caught:
        NetworkSettings(base_url=url)
    assert "hunter2" not in caught.value.errors()[0]["msg"]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://a..example", "host name"),
        ("http://.example/v1", "host name"),
        (f"http://{'a' * 64}.example", "host name"),
        ("http://\u200b.example", "host name"),
        ("http://a host/v1", "blank"),
        ("http://host/v1 ", "blank"),
        (" http://host/v1", "blank"),
    ],
)
def test_what_can_never_be_connected_to_is_refused_and_says_why(url: str, said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        NetworkSettings(base_url=url)
    assert said in caught.value.errors()[0]["msg"]


def test_keys_are_used_in_the_order_in_which_they_are_written() -> None:
    settings = NetworkSettings(base_url="https://host/v1", api_key="env:ONE", api_keys=("env:TWO", "file:/three"))
    assert settings.references == ("env:ONE", "env:TWO", "file:/three")


@pytest.mark.parametrize(
    ("written", "stream", "first_token"),
    [({}, True, 600.0), ({}, False, None), ({"first_token": "2s"}, True, 2.0), ({"first_token": "2s"}, False, 2.0)],
)
def test_the_first_token_bounds_whole_answers_only_where_it_is_written(
    written: dict[str, str], stream: bool, first_token: float | None
) -> None:
    assert TimeoutSettings.model_validate(written).decided(stream=stream).first_token == first_token


@pytest.mark.parametrize(
    ("written", "first_token", "idle", "total", "defaults"),
    [
        ({}, 600.0, 600.0, 600.0, frozenset(("first_token", "idle", "total"))),
        ({"first_token": "10m"}, 600.0, 600.0, 600.0, frozenset(("idle", "total"))),
        ({"first_token": "20m"}, 1200.0, 600.0, 1200.0, frozenset(("idle", "total"))),
        ({"first_token": "20m", "total": "15m"}, 1200.0, 600.0, 900.0, frozenset(("idle",))),
        ({"idle": "30s"}, 600.0, 30.0, 600.0, frozenset(("first_token", "total"))),
        ({"total": "10m"}, 600.0, 600.0, 600.0, frozenset(("first_token", "idle"))),
        ({"first_token": "2s", "idle": "1s", "total": "3s"}, 2.0, 1.0, 3.0, frozenset()),
    ],
)
def test_what_nobody_has_written_is_a_default_even_where_it_is_the_same(
    written: dict[str, str], first_token: float, idle: float, total: float, defaults: frozenset[str]
) -> None:
    settings = TimeoutSettings.model_validate(written)
    decided = settings.decided(stream=True)
    assert (decided.first_token, decided.idle, decided.total, decided.defaults) == (first_token, idle, total, defaults)
    assert settings.decided(stream=False).defaults == defaults
    assert (settings == TimeoutSettings()) is (not written), "a reload would not see that it is written now"


def test_a_stream_may_be_as_slow_as_it_likes_unless_a_floor_is_written() -> None:
    assert TimeoutSettings().decided(stream=True).min_tokens_per_second is None
    written = TimeoutSettings.model_validate({"min_tokens_per_second": 2, "window": "5s"}).decided(stream=True)
    assert (written.min_tokens_per_second, written.window) == (2.0, 5.0)


def test_an_event_may_hold_several_images() -> None:
    limits = NetworkSettings(base_url="https://host/v1").limits
    assert (limits.event, limits.body) == (32 * 2**20, 64 * 2**20)
