"""From a body's JSON to what a call needs; rows 39 and 40 of docs/faults.md."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.call import ANONYMOUS, Call, Principal
from proxy.core.errors import ClientError
from proxy.http import parse
from tests.core.doubles import make_call

# -- JSON --


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"{",
        b'{"a":1',
        b'{"a":1}x',
        b"[]",
        b'"text"',
        b"null",
        b"17",
        b"{'a':1}",
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":1,}',
        b'{"a":"\xff"}',
        b'{"a":"\\ud800"}',
        b'{"\\udc00":1}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":"\n"}',
        b'{"a":01}',
        b"\xef\xbb\xbf{}",
        b"\xff\xfe{\x00}\x00",
        b'{"a":' + b"[" * 100_000,
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a":' * 5000 + b"1" + b"}" * 5000,
    ],
    ids=lambda raw: repr(raw[:24]),
)
def test_what_is_no_json_object_is_refused(raw: bytes):
    with pytest.raises(ClientError) as caught:
        parse.parse_object(raw)
    assert (caught.value.status, caught.value.code) == (400, "invalid_json")
    assert caught.value.message


def test_a_missing_body_is_called_missing():
    with pytest.raises(ClientError, match="no body"):
        parse.parse_object(b"")


def test_integers_of_thousands_of_digits_are_read_or_refused_but_never_break():
    try:
        assert isinstance(parse.parse_object(b'{"a":' + b"9" * 5000 + b"}"), dict)
    except ClientError as error:
        assert error.code == "invalid_json"


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
@pytest.mark.parametrize(("depth", "fits"), [(1, True), (63, True), (64, True), (65, False), (66, False), (900, False)])
def test_nesting_is_taken_as_deep_as_64(opening: bytes, depth: int, fits: bool):
    closing = b"]" if opening == b"[" else b"}"
    raw = b'{"x":' + opening * (depth - 1) + b"1" + closing * (depth - 1) + b"}"
    if fits:
        assert parse.parse_object(raw)
    else:
        with pytest.raises(ClientError, match="deeper than 64"):
            parse.parse_object(raw)


def test_many_brackets_beside_each_other_are_not_deep():
    assert parse.parse_object(b'{"x":[' + b",".join([b"[]"] * 500) + b'],"y":"' + b"[{" * 500 + b'"}')


@given(st.binary(max_size=60))
def test_any_bytes_are_an_object_or_a_clients_error(raw: bytes):
    try:
        assert isinstance(parse.parse_object(raw), dict)
    except ClientError as error:
        assert error.code == "invalid_json"


# -- members --

CHAT = {"model": "m", "messages": []}


@pytest.mark.parametrize(
    ("operation", "body", "param", "code"),
    [
        ("chat", {"model": "m"}, "messages", "missing_required_parameter"),
        ("chat", {"model": "m", "messages": "hi"}, "messages", "invalid_type"),
        ("chat", {"model": 7, "messages": []}, "model", "invalid_type"),
        ("chat", {**CHAT, "model": ""}, "model", "invalid_value"),
        ("chat", {**CHAT, "model": "x" * 257}, "model", "invalid_value"),
        ("chat", {**CHAT, "model": "a\r\nb"}, "model", "invalid_value"),
        ("chat", {**CHAT, "model": "a\0b"}, "model", "invalid_value"),
        ("chat", {**CHAT, "stream": "yes"}, "stream", "invalid_type"),
        ("chat", {**CHAT, "stream": 1}, "stream", "invalid_type"),
        ("chat", {**CHAT, "stream_options": []}, "stream_options", "invalid_type"),
        ("embedding", {"model": "m"}, "input", "missing_required_parameter"),
        ("embedding", {"model": "m", "input": 7}, "input", "invalid_type"),
        ("responses", {"model": []}, "model", "invalid_type"),
    ],
)
def test_a_member_that_is_missing_or_wrong_is_named(operation: str, body: dict[str, Any], param: str, code: str):
    with pytest.raises(ClientError) as caught:
        parse.read_members(make_call(operation), body)
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, param, code)
    assert repr(param) in caught.value.message


@pytest.mark.parametrize("name", ["Model", "MODEL", "mo\u0064El", "\u017ftream", "Max_Tokens", "Messages"])
def test_a_member_that_a_provider_could_take_for_another_is_refused(name: str):
    """Go's encoding/json takes names without regard to case, `\u017f` for s and `\u212a` for k, and of several the last."""
    with pytest.raises(ClientError) as caught:
        parse.read_members(make_call(), {**CHAT, name: "dear"})
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, name, "unknown_parameter")
    assert repr(name.casefold()) in caught.value.message


LONG = b'"messages":[' + b",".join(b'{"role":"user","content":"the \\n model"}' for _ in range(50)) + b"]"
LIMITED = Principal("someone", models=("dear",))


def limited(raw: bytes, principal: Principal = LIMITED) -> Call:
    call = make_call(raw=raw, principal=principal)
    parse.read_members(call, parse.parse_object(raw))
    return call


@pytest.mark.parametrize(
    "raw",
    [
        b'{"model":"other","model":"dear",%b}' % LONG,
        b'{"model":"other",%b,"model":"dear"}' % LONG,
        b'{%b,"model":"other","model":"dear"}' % LONG,
        b'{"model":"other","model":"other","model":"dear",%b}' % LONG,
        b'{"mod\\u0065l":"other",%b,"model":"dear"}' % LONG,
        b'{%b,"model":"other","\\u006dodel":"dear"}' % LONG,
        b'{"model":7,"model":"dear",%b}' % LONG,
    ],
)
def test_a_key_of_some_models_names_its_model_once(raw: bytes):
    """The last one is checked, and where its name stays nothing is changed: a provider that takes the first would serve that."""
    with pytest.raises(ClientError) as caught:
        limited(raw)
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, "model", "ambiguous_model")
    assert limited(raw, ANONYMOUS).model == "dear", "who may use all of them reaches nothing by it"


@pytest.mark.parametrize(
    "raw",
    [
        b'{"model":"dear",%b}' % LONG,
        b' {\n "model" : "dear", %b}' % LONG,
        b'{%b,"model":"dear"}' % LONG,
        b'{%b,"model":"dear","tools":[{"function":{"parameters":{"properties":{"model":{"type":"string"}}}}}]}' % LONG,
        b'{%b,"metadata":{"model":"other"},"model":"dear"}' % LONG,
        b'{%b,"user":"model","model":"dear"}' % LONG,
        b'{%b,"model":"dear","metadata":{"a":"\\u00e9"}}' % LONG,
        b'{"\\u006dodel":"dear",%b}' % LONG,
        b'{"model":"dear",%b,"model":"dear"}' % LONG,
    ],
)
def test_a_model_that_is_named_once_at_the_top_is_the_one(raw: bytes):
    assert limited(raw).model == "dear"


@pytest.mark.parametrize("name", ["Model name", "extraBody", "X", "to\u212aen", "\u00dcber", "modal", "safetySettings"])
def test_other_members_are_written_as_their_provider_wants(name: str):
    call = make_call()
    parse.read_members(call, {**CHAT, name: "x"})
    assert call.model == "m"


def test_an_empty_model_says_nothing_where_the_path_has_named_one():
    call = make_call(raw=b'{"model":"",%b}' % LONG, principal=LIMITED)
    call.model = "dear"
    parse.read_members(call, parse.parse_object(call.raw))
    assert call.model == "dear"


@pytest.mark.parametrize("model", ["false", "0", "[]", "{}"])
@pytest.mark.parametrize("first", ["", '"model":"dear",'])
def test_what_is_no_name_is_refused_also_where_the_path_has_named_a_model(first: str, model: str):
    call = make_call(raw=b'{%b"model":%b,%b}' % (first.encode(), model.encode(), LONG), principal=LIMITED)
    call.model = "dear"
    with pytest.raises(ClientError) as caught:
        parse.read_members(call, parse.parse_object(call.raw))
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, "model", "invalid_type")


@pytest.mark.parametrize(
    ("operation", "body", "model", "stream"),
    [
        ("chat", CHAT, "m", False),
        ("chat", {**CHAT, "stream": True}, "m", True),
        ("chat", {**CHAT, "stream": None, "stream_options": None}, "m", False),
        ("chat", {**CHAT, "temperature": "nonsense", "n": {}}, "m", False),
        ("completion", {"model": "m"}, "m", False),
        ("embedding", {"model": "m", "input": "a"}, "m", False),
        ("embedding", {"model": "m", "input": [[1, 2]]}, "m", False),
        ("responses", {}, None, False),
        ("moderations", {"input": "a", "stream": True}, None, True),
        ("chat", {**CHAT, "model": "x" * 256}, "x" * 256, False),
    ],
)
def test_only_what_is_used_is_checked(operation: str, body: dict[str, Any], model: str | None, stream: bool):
    call = make_call(operation)
    parse.read_members(call, body)
    assert (call.model, call.stream) == (model, stream)
    assert call.body is body


@pytest.mark.parametrize(
    "kind", ["", "application/json", "Application/JSON", "application/json ; charset=utf-8", "text/json", "application/vnd.api+json"]
)
@pytest.mark.parametrize("operation", ["responses", "files", "moderations"])
def test_what_calls_itself_json_is_json(operation: str, kind: str):
    assert parse.is_json(operation, kind)


@pytest.mark.parametrize(
    ("operation", "kind", "expected"),
    [
        ("responses", "text/plain", True),
        ("images", "application/octet-stream", True),
        ("images", "multipart/form-data; boundary=a", False),
        ("audio", "Multipart/Form-Data; boundary=a", False),
        ("files", "application/octet-stream", False),
        ("realtime", "application/sdp", False),
        ("uploads", "multipart/form-data; boundary=a", False),
    ],
)
def test_another_kind_counts_only_where_it_means_something(operation: str, kind: str, expected: bool):
    """A server may read JSON whatever it is called: a model in it must be seen here, too."""
    assert parse.is_json(operation, kind) is expected
