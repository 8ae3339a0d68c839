"""The table of routes beside OpenAI's own Python library: what that can ask for, the gateway passes on."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from proxy.http.routes import Route, find

RESOURCES = Path(openai.__file__).parent / "resources"

#: The methods of a resource that send a request; a list is a GET unless it says otherwise.
SENDERS = {"_get": "GET", "_post": "POST", "_put": "PUT", "_patch": "PATCH", "_delete": "DELETE", "_get_api_list": "GET"}

#: HTTP routes of the library that are not served, and why. Its WebSockets are no requests of the `SENDERS` and do not come up.
LEFT_OUT: dict[tuple[str, str], str] = {}


def requests_of(source: str) -> Iterator[tuple[str, str]]:
    """Method and path of every request that a module's resources send. Raises ValueError for one that cannot be read."""
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in SENDERS):
            continue
        path = node.args[0] if node.args else None
        if isinstance(path, ast.Call) and path.args:
            path = path.args[0]  # path_template("/files/{file_id}", file_id=file_id)
        if not (isinstance(path, ast.Constant) and isinstance(path.value, str)):
            raise ValueError(f"line {node.lineno}: a request whose path is not written out")
        said = [word.value.value for word in node.keywords if word.arg == "method" and isinstance(word.value, ast.Constant)]
        yield str(said[0]).upper() if said else SENDERS[node.func.attr], path.value.partition("?")[0]


def every_request() -> list[tuple[str, str]]:
    return sorted({request for file in RESOURCES.rglob("*.py") for request in requests_of(file.read_text("utf-8"))})


def test_the_requests_of_a_module_are_read():
    source = (
        'self._get("/a")\nself._post(path_template("/a/{b}/c?beta=true", b=b), body=body)\n'
        'self._get_api_list("/d", page=Page)\nself._get_api_list("/e", method="post")\n'
    )
    assert list(requests_of(source)) == [("GET", "/a"), ("POST", "/a/{b}/c"), ("GET", "/d"), ("POST", "/e")]
    with pytest.raises(ValueError, match="line 1"):
        list(requests_of("self._get(path)"))


def test_the_library_is_found_whole():
    found = every_request()
    assert len(found) > 350
    assert {("POST", "/chat/completions"), ("POST", "/vector_stores/{vector_store_id}/search"), ("GET", "/models/{model}")} <= set(found)


@pytest.mark.parametrize(("method", "path"), every_request(), ids=" ".join)
def test_every_request_of_the_library_has_a_route(method: str, path: str):
    asked = re.sub(r"\{\w+\}", "id-Ab_12", path)
    found = find(method, "/v1" + asked)
    if (method, path) in LEFT_OUT:
        assert not isinstance(found, Route), "it is served: take it off the list"
    else:
        assert isinstance(found, Route), f"not in proxy/http/routes.py: {method} {path}"
        assert found.path == asked


def test_nothing_is_left_out_that_the_library_does_not_have():
    assert set(LEFT_OUT) <= set(every_request())
