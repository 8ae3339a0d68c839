"""Which answers are a file's content, and where else it may be."""

from __future__ import annotations

import pytest

from proxy.download import is_download, location_of
from proxy.http.routes import ROWS
from tests.core.doubles import make_call

#: It is an object that holds the file's text.
NO_FILE = "/vector_stores/{vector_store_id}/files/{file_id}/content"


def test_every_route_that_gives_a_files_content_is_known_and_no_other():
    rows = [(method, path) for _, methods, path in ROWS for method in methods]
    found = {path for method, path in rows if is_download(make_call("files", method=method, path=path))}
    assert found == {path for method, path in rows if method == "GET" and path.endswith("/content")} - {NO_FILE}
    assert "/files/{file_id}/content" in found


@pytest.mark.parametrize("path", ["/files/content", "/files/file-1", "/videos/content"])
def test_an_object_that_is_named_content_is_no_content(path: str):
    assert not is_download(make_call("files", method="GET", path=path))


@pytest.mark.parametrize(
    "location", ["https://cdn.example/f?sig=a%20b", "http://127.0.0.1:9000/f", "HTTPS://cdn.example", "https://[::1]/f"]
)
def test_a_whole_address_is_passed_on(location: str):
    assert location_of({"location": location}, "sk-aaaa0123456789") == location


@pytest.mark.parametrize(
    "location",
    [
        None,
        "",
        "/v1/files/other/content",
        "//cdn.example/f",
        "ftp://cdn.example/f",
        "javascript:alert(1)",
        "data:text/html,x",
        "file:///etc/passwd",
        "https:///f",
        "https://[::1/f",
        "https://user:word@cdn.example/f",
        "https://cdn.example/f g",
        "https://cdn.example/\u00e9",
        "https://a.example/f, https://b.example/f",
        "https://cdn.example/f?key=sk-aaaa0123456789",
        "https://cdn.example/f?key=sk%2Daaaa0123456789",
        "https://cdn.example/f?key=%73k-aaa%610123456789",
        "https://cdn.example/f?key=sk%252Daaaa0123456789",
    ],
)
def test_anything_else_is_not(location: str | None):
    assert location_of({} if location is None else {"location": location}, "sk-aaaa0123456789") is None
