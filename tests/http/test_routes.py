"""The table of routes: every row is found, nothing beyond it is."""

from __future__ import annotations

import re

import pytest

from proxy.http import routes
from proxy.http.routes import Route, find

METHODS = ("GET", "POST", "DELETE")


def filled(path: str) -> str:
    """A path with its placeholders given values that look like OpenAI's ids."""
    return re.sub(r"\{(\w+)\}", lambda match: f"{match[1][:4]}-Ab_1.2:x%20y", path)


@pytest.mark.parametrize("prefix", ["", "/v1"])
@pytest.mark.parametrize(("operation", "methods", "path"), routes.ROWS, ids=[f"{operation} {path}" for operation, _, path in routes.ROWS])
def test_every_row_is_found_with_and_without_its_version(operation: str, methods: tuple[str, ...], path: str, prefix: str):
    asked = filled(path)
    for method in methods:
        assert find(method, prefix + asked) == Route(operation, asked)


def _taken(path: str) -> set[str]:
    return {method for _, methods, row in routes.ROWS if row == path for method in methods}


@pytest.mark.parametrize("path", sorted({path for _, _, path in routes.ROWS if "{" not in path}))
def test_other_methods_are_told_which_the_path_takes(path: str):
    taken = _taken(path)
    for method in {*METHODS, "PUT", "PATCH", "HEAD", "OPTIONS", "TRACE", "get"} - taken:
        assert find(method, path) == find(method, "/v1" + path) == tuple(sorted(taken))


def test_the_methods_of_a_template_are_told():
    assert find("PUT", "/v1/files/file-1") == ("DELETE", "GET")
    assert find("POST", "/models/m") == ("DELETE", "GET")


@pytest.mark.parametrize(
    "path",
    [
        "", "/", "/v1", "/v1/", "//", "/v1//", "/v2/models", "/v1/v1/models", "/v1//v1/models", "/v1models", "/v1x/files/a", "/chat",
        "/Chat/Completions", "/admin", "/metrics", "/realtime", "/v1/realtime", "/files/a/b", "/files/a/contents", "/live",
        "/threads/a/runs/b/steps/c/d", "models", "models/", "*", "http://h/v1/models", "/vector_stores/a/b/c/d/e", "/v2/rerank",
    ],
)  # fmt: skip
def test_what_is_not_in_the_table_is_refused(path: str):
    for method in METHODS:
        assert find(method, path) == ()


@pytest.mark.parametrize(
    "segment",
    ["..", ".", "%2e%2e", "%2E.", ".%2e", "%2e", "..%2f", "%2e%2e%2f..", "a%2f..%2fb", "a%2F%2e%2e", "..\\", "a\\..\\b", "a%5c..%5cb"],
)
def test_no_spelling_of_a_step_upwards_is_let_through(segment: str):
    for path in (f"/files/{segment}/content", f"/models/{segment}", f"/models/a/{segment}/b", f"/v1/models/{segment}/{segment}/x"):
        for method in METHODS:
            assert find(method, path) == (), path


@pytest.mark.parametrize("escape", ["%00", "%0d%0aX-A:%20b", "%0A", "%7f", "%1b[31m", "\x00"])
def test_an_id_holds_no_control_characters(escape: str):
    for path in (f"/files/a{escape}", f"/v1/responses/{escape}b/cancel", f"/models/a{escape}b", f"/models/{escape}"):
        for method in METHODS:
            assert find(method, path) == (), path


@pytest.mark.parametrize(
    ("method", "path", "route"),
    [
        ("POST", "/v1/chat/completions/", Route("chat", "/chat/completions")),
        ("POST", "/chat/completions//", Route("chat", "/chat/completions")),
        ("POST", "/v1//chat/completions", Route("chat", "/chat/completions")),
        ("POST", "//v1/chat/completions", Route("chat", "/chat/completions")),
        ("POST", "//v1///chat/completions/", Route("chat", "/chat/completions")),
        ("POST", "//chat/completions", Route("chat", "/chat/completions")),
        ("GET", "/v1/models/", Route("models", "/models")),
        ("GET", "/v1//models/a%2Fb/", Route("models", "/models/a%2Fb")),
        ("GET", "/v1/files/f-1/content/", Route("files", "/files/f-1/content")),
        ("GET", "//v1//files/a%2F%2Fb%2F", Route("files", "/files/a%2F%2Fb%2F")),
        ("DELETE", "/v1/files/", ("GET", "POST")),
        ("PUT", "//v1//files/f-1/", ("DELETE", "GET")),
    ],
)
def test_slashes_that_a_base_url_leaves_are_taken_away(method: str, path: str, route: Route | tuple[str, ...]):
    assert find(method, path) == route


@pytest.mark.parametrize(
    "path",
    ["/files//content", "/v1/threads//runs", "/responses//cancel", "/models//x", "//v1/files//content/", "/v1/chat//completions"],
)
def test_an_id_that_was_left_out_does_not_make_another_request(path: str):
    for method in METHODS:
        assert find(method, path) == (), "POST /threads//runs is not POST /threads/runs"


@pytest.mark.parametrize("path", ["//v1//files/%2e%2e/content/", "//..//files/a", "/v1//files/a%00/", "/v1//../files/a/", "//files/./"])
def test_what_is_canonical_is_checked_as_any_other_path(path: str):
    for method in METHODS:
        assert find(method, path) == ()


@pytest.mark.parametrize("name", ["gpt-4.1", "provider/model", "org/team/model:7b", "..model", "a..b", "...", "m%2Fn", "%C3%A9", "a.b."])
def test_a_models_name_may_hold_slashes_and_dots(name: str):
    assert find("GET", f"/v1/models/{name}") == Route("models", f"/models/{name}")


def test_a_fixed_path_goes_before_a_template():
    assert find("POST", "/threads/runs") == Route("assistants", "/threads/runs")
    assert find("GET", "/threads/runs") != Route("assistants", "/threads/runs")
    assert find("POST", "/videos/edits") == Route("videos", "/videos/edits")
    assert find("GET", "/agents/environments/templates/t") == Route("agents", "/agents/environments/templates/t")
    assert find("PUT", "/agents/automations/a") == ("DELETE", "GET", "POST")


def test_operations_are_named_once_and_are_fit_for_a_label():
    assert len(set(routes.OPERATIONS)) == len(routes.OPERATIONS)
    assert all(re.fullmatch(r"[a-z_]+", operation) for operation in routes.OPERATIONS)
    assert len(routes.OPERATIONS) < 40


def test_no_two_rows_claim_the_same_request():
    claims = [(method, re.sub(r"\{\w+\}", "{}", path)) for _, methods, path in routes.ROWS for method in methods]
    assert len(claims) == len(set(claims))
