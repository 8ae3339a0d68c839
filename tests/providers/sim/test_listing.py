from __future__ import annotations

import pytest


def test_models(say):
    listed = say("/models", method="GET").json
    assert listed == {"object": "list", "data": [{"id": "sim", "object": "model", "created": 0, "owned_by": "sim"}]}
    assert say("/models/sim", method="GET").json == listed["data"][0]
    assert say("/models/a%2Fb", method="GET").json["id"] == "sim/a/b"


def test_moderations(say):
    told = say("/moderations", {"input": ["a", "b"]}).json
    assert [result["flagged"] for result in told["results"]] == [False, False]
    assert told["model"] == "sim"
    assert len(say("/moderations", {"input": [{"type": "text", "text": "a"}]}).json["results"]) == 1
    assert len(say("/moderations", {"input": "a"}).json["results"]) == 1


@pytest.mark.parametrize("body", [{}, {"input": []}, {"input": 3}, {"input": "x", "model": 3}])
def test_moderation_of_nothing_is_refused(say, body):
    assert say("/moderations", body).status == 400


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/audio/speech"), ("GET", "/files"), ("POST", "/"), ("POST", ""), ("DELETE", "/models/sim")]
)
def test_other_endpoints_are_not_found(say, method, path):
    told = say(path, {}, method=method)
    assert told.status == 404
    assert told.json["error"]["type"] == "invalid_request_error"
    assert path in told.json["error"]["message"]


def test_other_methods_are_not_allowed(say):
    assert say("/chat/completions", method="GET").status == 405
