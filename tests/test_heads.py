"""What of a provider's head the client may see."""

from __future__ import annotations

import pytest

from proxy.heads import is_event_stream, is_rate_limit, shown_as
from tests.core.doubles import ScriptedResponse


@pytest.mark.parametrize(
    "name",
    [
        "x-ratelimit-limit-requests",
        "x-ratelimit-reset-tokens",
        "x-ratelimit-remaining",
        "x-ratelimit-remaining-req-minute",
        "x-ratelimit-limit-requests-day",
        "x-ratelimit-limit-tokens-cache-adjusted-prompt",
        "x-tokenlimit-remaining",
    ],
)
def test_rate_limits_are_shown_in_each_providers_spelling(name: str):
    assert is_rate_limit(name)
    assert shown_as(name) == name


@pytest.mark.parametrize("name", ["x-ratelimit-other", "x-ratelimit-limits", "x-ratelimit", "set-cookie", "server", "location"])
def test_what_is_in_no_list_is_not_shown(name: str):
    assert shown_as(name) is None


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("text/event-stream", True),
        ("Text/Event-Stream;charset=UTF-8", True),
        ("text/event-stream ; charset=utf-8", True),
        ("text/event-stream, text/event-stream", True),
        ("text/event-stream charset=utf-8", True),
        ("text/event-streamx", False),
        ("text/event-stream-2; charset=utf-8", False),
        ("text/event-stream x", False),
        ("text/event-streamcharset=utf-8", False),
        ("application/json; text/event-stream", False),
        ("", False),
    ],
)
def test_a_stream_of_events_says_so_by_its_type_whole(content_type: str, expected: bool):
    assert is_event_stream(ScriptedResponse(headers={"content-type": content_type})) is expected
