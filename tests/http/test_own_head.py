from __future__ import annotations

from typing import Any

import pytest

from proxy.core.call import Attempt, Call, Target
from proxy.http import own_head
from proxy.http.own_head import OwnHead
from tests.core.doubles import HandClock, make_call


def made(**changes: Any) -> Call:
    return make_call(**{"model": "m", **changes})


def made_head(after: float = 0.0) -> OwnHead:
    return OwnHead(HandClock(made().started + after))


def told(call: Call, headers: dict[str, str] | None = None, *, after: float = 0.0, head: OwnHead | None = None) -> dict[str, str]:
    lines = (head or made_head(after)).lines(call, {} if headers is None else headers)
    assert lines.endswith("\r\n")
    fields = [(name, value) for name, _, value in (line.partition(": ") for line in lines[:-2].split("\r\n"))]
    assert len({name for name, _ in fields}) == len(fields), "a header is told twice"
    return dict(fields)


def test_an_answer_without_a_target_tells_which_request_it_was_and_how_long_it_took():
    call = made()
    assert told(call, after=0.0129) == {"x-request-id": call.id, "openai-processing-ms": "12", "openai-version": own_head.API_VERSION}


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.0, "0.000"), (0.0000004, "0.000"), (0.0000006, "0.001"), (0.0123456, "12.346"), (2.5, "2500.000")]
)
def test_overhead_is_told_in_milliseconds_with_three_decimals(seconds: float, shown: str):
    for waited, arriving in ((0.0, 0.0), (2.0, 0.0), (2.0, 3.0)):
        call = made(target=Target("here", "m-1", "m"), upstream_seconds=waited, arriving=arriving)
        assert told(call, after=seconds + waited + arriving)["x-comporta-overhead-ms"] == shown
        assert call.overhead == pytest.approx(seconds, abs=1e-9)


def test_who_served_is_told_also_after_another_call_of_the_same_kind():
    head, target = made_head(), Target("here", "m-1", "m")
    for attempts in (1, 2, 1):
        call = made(target=target, attempts=[Attempt(target, 0.0)] * attempts)
        found = told(call, head=head)
        assert (found["x-comporta-provider"], found["x-comporta-model"], found["x-comporta-attempts"]) == ("here", "m", str(attempts))


def test_the_model_that_served_is_told_also_after_others_with_all_else_alike():
    head = made_head()
    cases = [
        ("m", Target("here", "m-1", "m"), "m"),
        ("m", Target("here", "m-1"), "m-1"),
        ("m", Target("here", "m-2"), "m-2"),
        ("here/m-2", Target("here", "m-2"), "here/m-2"),
        ("m", Target("here", "m-2", "other"), "other"),
        ("m", Target("here", None), "m"),
    ]
    for model, target, served in cases * 2:
        assert told(made(model=model, target=target), head=head)["x-comporta-model"] == served


def test_a_call_without_a_model_names_none():
    found = told(made(model=None, target=Target("here", None)))
    assert "x-comporta-model" not in found and found["x-comporta-provider"] == "here"


def test_the_providers_word_on_time_and_version_stands():
    headers = {"openai-processing-ms": "7", "openai-version": "2024-01-01"}
    assert not {"openai-processing-ms", "openai-version"} & told(made(), headers).keys()
    assert headers == {"openai-processing-ms": "7", "openai-version": "2024-01-01"}


def test_what_only_the_gateway_may_say_is_not_said_by_others():
    headers = {"x-request-id": "forged", "x-comporta-provider": "forged", "x-comporta-explain": "forged", "content-type": "a/b"}
    call = made()
    assert told(call, headers)["x-request-id"] == call.id
    assert headers == {"content-type": "a/b"}


def test_what_is_kept_of_ever_new_names_is_bounded():
    head = made_head()
    for number in range(3000):
        told(made(target=Target("here", f"m-{number}", f"m-{number}")), head=head)
    assert len(head._kept) <= own_head._MOST_KEPT
