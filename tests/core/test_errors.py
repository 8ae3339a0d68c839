"""The tree of errors, and what each says of itself."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Iterator

import pytest

from proxy.core import errors
from proxy.core.errors import (
    UPSTREAM_KINDS,
    CapacityError,
    ClientDisconnected,
    ClientError,
    GatewayError,
    StreamError,
    UpstreamError,
)


def _drawn(text: str) -> list[tuple[int, str]]:
    """The (depth, name) of each line of the docstring's tree."""
    found = []
    for line in text.splitlines():
        match = re.match(r"^    ((?:[│├└─ ]{4})*)([A-Z]\w+)(?=\s|$)", line)
        if match:
            found.append((len(match[1]) // 4, match[2]))
    return found


def _real(kind: type[Exception], depth: int = 0) -> Iterator[tuple[int, str]]:
    yield depth, kind.__name__
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from _real(child, depth + 1)


def test_the_tree_in_the_docstring_is_the_real_one():
    assert errors.__doc__ is not None
    assert _drawn(errors.__doc__) == list(_real(GatewayError))


def test_every_error_of_the_module_is_in_the_tree():
    defined = {value.__name__ for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)}
    assert defined == {name for _, name in _real(GatewayError)}


@pytest.mark.parametrize(
    ("error", "fault", "status", "type_", "code", "retryable"),
    [
        (GatewayError("m"), "gateway", 500, "server_error", "internal_error", False),
        (ClientError("m"), "client", 400, "invalid_request_error", None, False),
        (ClientDisconnected("m"), "client", 499, "invalid_request_error", "client_disconnected", False),
        (CapacityError("m"), "gateway", 503, "server_error", "overloaded", True),
        (UpstreamError("dns", "m"), "upstream", 502, "server_error", "dns", True),
        (StreamError("stream_truncated", "m"), "upstream", 502, "server_error", "stream_truncated", True),
    ],
)
def test_an_error_says_whose_fault_it_is(error: GatewayError, fault: str, status: int, type_: str, code: str | None, retryable: bool):
    assert (error.fault, error.status, error.type, error.code, error.retryable) == (fault, status, type_, code, retryable)
    assert (error.message, error.param, error.retry_after, error.detail) == ("m", None, None, None)
    assert str(error) == "m"


def test_what_is_given_goes_before_what_the_class_says():
    error = ClientError("m", status=404, type="t", code="c", param="p", retry_after=1.5, detail="d")
    assert (error.status, error.type, error.code, error.param, error.retry_after, error.detail) == (404, "t", "c", "p", 1.5, "d")
    assert (ClientError.status, ClientError.code) == (400, None)


@pytest.mark.parametrize("kind", UPSTREAM_KINDS)
def test_a_kind_gives_status_type_and_code(kind: str):
    error = UpstreamError(kind, "m")
    assert (error.status, error.type, error.retryable) == UPSTREAM_KINDS[kind]
    assert error.kind == kind
    # On which connection it was lost is the operator's affair; the client is told what it can act upon.
    assert error.code == ("bad_upstream" if kind == "reset" else kind)


@pytest.mark.parametrize("kind", UPSTREAM_KINDS)
def test_a_kinds_status_is_one_that_a_client_may_see(kind: str):
    status, type_, _ = UPSTREAM_KINDS[kind]
    assert 400 <= status < 600
    assert status != 401, "the client would take it for its own key's"
    assert type_


def test_a_kind_can_be_given_another_status_type_and_code():
    error = UpstreamError("rejected", "m", status=422, type="t", code="c", param="p", reached=False)
    assert (error.status, error.type, error.code, error.param, error.reached) == (422, "t", "c", "p", False)


def test_a_kind_that_is_not_in_the_table_is_refused():
    with pytest.raises(KeyError):
        UpstreamError("oops", "m")


@pytest.mark.parametrize("status", [400, 404, 413, 499])
def test_only_a_body_that_is_too_large_closes_the_connection(status: int):
    assert ClientError("m", status=status).closes_connection is (status == 413)


@pytest.mark.parametrize(
    "error",
    [
        GatewayError("m", retry_after=2.0),
        ClientError("m", status=404, param="model"),
        UpstreamError("reset", "m", detail="d", reached=False),
        StreamError("upstream_timeout", "m", code="c"),
    ],
)
def test_an_error_survives_being_copied(error: GatewayError):
    for other in (copy.copy(error), pickle.loads(pickle.dumps(error))):  # noqa: S301 - our own bytes
        assert type(other) is type(error)
        assert str(other) == str(error)
        assert vars(other) == vars(error)


def test_no_secret_is_shown_however_an_event_spells_it():
    error = UpstreamError(
        "server_error", "with sk-a/b0123456789", type="sk-a/b0123456789", code="sk-a/b0123456789", param="sk-a/b0123456789"
    )
    error.event = b'data: {"a":"sk-a/b0123456789","b":"sk-a\\/b0123456789","c":"sk-a"}\n\n'
    error.redact("sk-a/b0123456789")
    assert (error.message, error.type, error.code, error.param) == ("with ***", "***", "***", "***")
    assert error.event == b'data: {"a":"***","b":"***","c":"sk-a"}\n\n'


@pytest.mark.parametrize("key", ["x", "123", "EMPTY", "requests", "context_length_exceeded"])
def test_a_word_in_the_place_of_a_key_takes_nothing_from_what_an_error_says_of_itself(key: str):
    error = UpstreamError("rejected", "too long: 12345", type="requests", code="context_length_exceeded", param="input")
    error.more = {"n_prompt_tokens": "12345", "metadata": '{"x":["EMPTY"]}'}
    error.headers = {"x-ratelimit-limit-tokens": "12300"}
    before = dict(vars(error))
    error.redact(key)
    assert vars(error) == before


def test_of_an_error_that_says_no_more_without_the_key_the_rest_is_told():
    error = UpstreamError("rejected", "m")
    error.more = {"n_ctx": "4096", "details": '{"n":12345678}'}
    error.event = b'data: {"n":12345678}\n\n'
    error.redact("12345678")
    assert (error.more, error.event) == ({"n_ctx": "4096"}, b"")
