"""What a request goes on with, what an answer has made, who is asked first and who after that."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.core.call import Target
from proxy.core.errors import CapacityError, GatewayError, UpstreamError
from proxy.core.reply import Reply
from proxy.routing.binding import further, in_order, is_unknown, made, named
from tests.core.doubles import make_call


@pytest.mark.parametrize(
    ("operation", "path", "body", "found"),
    [
        ("responses", "/responses", {"input": "x"}, None),
        ("responses", "/responses", {"previous_response_id": "resp_1"}, "resp_1"),
        ("responses", "/responses", {"previous_response_id": None, "conversation": "conv_1"}, "conv_1"),
        ("responses", "/responses", {"conversation": {"id": "conv_1"}}, "conv_1"),
        ("responses", "/responses", {"conversation": {"id": 1}, "previous_response_id": ""}, None),
        ("responses", "/responses", {"input": ["x", {"type": "message"}, {"type": "item_reference", "id": "msg_1"}]}, "msg_1"),
        ("responses", "/responses", {"input": [{"type": "item_reference", "id": 1}]}, None),
        ("responses", "/responses", {"input": [{}] * 64 + [{"type": "item_reference", "id": "msg_1"}]}, None),
        ("responses", "/responses/input_tokens", {"previous_response_id": "resp_1"}, "resp_1"),
        ("stored_response", "/responses/resp_1", {}, "resp_1"),
        ("stored_response", "/responses/resp_1/cancel", {}, "resp_1"),
        ("conversations", "/conversations", {"conversation": "conv_2"}, None),
        ("conversations", "/conversations/conv_1/items/msg_1", {}, "conv_1"),
    ],
)
def test_what_a_request_is_about(operation: str, path: str, body: dict[str, Any], found: str | None):
    assert named(make_call(operation, path=path, body=body)) == found


class _Stream:
    made = "resp_2"

    def __aiter__(self) -> _Stream:
        return self

    async def __anext__(self) -> bytes:
        raise StopAsyncIteration


@pytest.mark.parametrize(
    ("body", "reply", "found"),
    [
        ({}, Reply(200, body=b' {"id" : "resp_1","id":"resp_9"'), "resp_1"),
        ({"store": None}, Reply(200, body=b'{"object":"response","output":[{"id":"msg_1"}],"id":"resp_1"}'), "resp_1"),
        ({}, Reply(200, body=b'{"id":"resp_\\u0031"}'), "resp_1"),
        ({}, Reply(200, body=b'{"id":1}'), None),
        ({}, Reply(200, body=b'{"output":[{"id":"msg_1"}]}'), None),
        ({}, Reply(200, body=b"no"), None),
        ({"store": False}, Reply(200, body=b'{"id":"resp_1"}'), None),
        ({}, Reply(200, stream=_Stream()), "resp_2"),
        ({"store": False}, Reply(200, stream=_Stream()), None),
    ],
)
def test_what_an_answer_has_made(body: dict[str, Any], reply: Reply, found: str | None):
    assert made(make_call("responses", path="/responses", body=body), reply) == found


def test_what_counts_tokens_makes_nothing():
    assert made(make_call("responses", path="/responses/compact"), Reply(200, body=b'{"id":"resp_1"}')) is None


def targets(names: str) -> tuple[Target, ...]:
    return tuple(Target(name.lower(), name) for name in names)


@pytest.mark.parametrize(
    ("given", "preferred", "found"),
    [
        ("abc", (None, None), "abc"),
        ("abc", ("b", None), "bac"),
        ("abc", ("z", "c"), "cab"),
        ("abc", ("b", "c"), "bac"),
        ("aBbc", ("b",), "Bbac"),
    ],
)
def test_who_has_it_goes_first_and_the_others_keep_their_order(given: str, preferred: tuple[str | None, ...], found: str):
    assert in_order(targets(given), preferred) == targets(found)


@pytest.mark.parametrize(("given", "most", "found"), [("abc", 4, "bc"), ("aAbBc", 4, "bc"), ("abc", 2, "b"), ("abc", 1, ""), ("a", 4, "")])
def test_each_other_provider_is_asked_once_and_no_more_than_may_be(given: str, most: int, found: str):
    assert tuple(further(targets(given), most)) == targets(found)


@pytest.mark.parametrize(
    ("error", "unknown"),
    [
        (UpstreamError("rejected", "m", status=404), True),
        (UpstreamError("rejected", "m", status=400, code="previous_response_not_found"), True),
        (UpstreamError("rejected", "m", status=400, code="invalid_value", param="previous_response_id"), True),
        (UpstreamError("rejected", "m", status=400, code="string_above_max_length", param="response_id"), True),
        (UpstreamError("rejected", "m", status=400, code="invalid_value", param="input[0].id"), False),
        (UpstreamError("rejected", "m", status=400, code="unknown_parameter", param="previous_response_id"), False),
        (UpstreamError("rejected", "m", status=404, code="model_not_found"), False),
        (UpstreamError("rejected", "m", status=400), False),
        (UpstreamError("server_error", "m"), False),
        (CapacityError("m"), False),
    ],
)
def test_who_says_that_it_has_no_such_thing(error: GatewayError, unknown: bool):
    assert is_unknown(error) is unknown
