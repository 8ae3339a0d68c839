"""The administration's page: everything from this server, nothing kept, no other page around it."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from proxy.core.metrics import Registry
from proxy.http import reference
from proxy.http.admin import admin_app
from proxy.http.api import Desk, openapi
from proxy.http.requests import Requests
from tests.http.test_api import endpoints
from tests.http.test_requests import Memory

SWAGGER = ["/admin/docs", "/admin/docs/swagger-ui.css", "/admin/docs/swagger-ui-bundle.js", "/admin/docs/start.js"]


class Page(HTMLParser):
    """What a page would load, and what it runs or styles within itself."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.inline: list[str] = []
        self.ids: set[str] = set()
        self.links: list[str] = []
        self._inside = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        assert not [name for name in found if name.startswith("on") or name == "style"], found
        self.loads += [value for name in ("src", "href") if tag != "a" and (value := found.get(name))]
        self.links += [value for value in [found.get("href")] if tag == "a" and value]
        self.ids |= {value for value in [found.get("id")] if value}
        self._inside = tag in ("script", "style") and "src" not in found

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.inline.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._inside = False


def app(folder: Path | None, document: dict[str, Any]) -> web.Application:
    found = web.Application()
    reference.add(found.router, lambda: document, folder)
    return found


@pytest.fixture
async def swagger() -> AsyncIterator[TestClient]:
    """The admin plane with a key, which the page does without."""

    async def numbers() -> Registry:
        return Registry()

    assert reference.swagger_files() is not None, "the tests need flask-swagger-ui"
    async with TestClient(TestServer(admin_app(numbers, dict, key="k", desk=lambda: Desk(Requests(Memory()).endpoints())))) as found:
        yield found


@pytest.fixture
async def own() -> AsyncIterator[TestClient]:
    async with TestClient(TestServer(app(None, openapi([*endpoints(), *Requests(Memory()).endpoints()])))) as found:
        yield found


async def test_swagger_ui_is_served_from_here_and_loads_nothing_from_elsewhere(swagger: TestClient):
    answer = await swagger.get("/admin/docs")
    page = Page(await answer.text())
    assert answer.content_type == "text/html"
    assert page.inline == []
    assert sorted(page.loads) == ["docs/favicon-32x32.png", "docs/start.js", "docs/swagger-ui-bundle.js", "docs/swagger-ui.css"]
    for name in page.loads:
        answer = await swagger.get(f"/admin/{name}")
        assert answer.status == 200
        assert answer.content_type == {"png": "image/png", "js": "text/javascript", "css": "text/css"}[name.rpartition(".")[2]]
        assert len(await answer.read()) > 100


async def test_swagger_ui_reads_the_description_and_keeps_no_key(swagger: TestClient):
    start = await (await swagger.get("/admin/docs/start.js")).text()
    assert re.search(r'url: "\.\./openapi\.json"', start)
    assert "persistAuthorization: false" in start
    assert 'validatorUrl: "none"' in start
    described = await (await swagger.get("/openapi.json")).json()
    assert described["components"]["securitySchemes"] == {"key": {"type": "http", "scheme": "bearer"}}
    assert described["paths"]["/admin/requests"]["get"]["tags"] == ["requests"]


@pytest.mark.parametrize("path", SWAGGER)
async def test_a_browser_is_told_to_keep_nothing_and_to_load_nothing_from_elsewhere(swagger: TestClient, path: str):
    headers = (await swagger.get(path)).headers
    rules = dict(rule.strip().split(" ", 1) for rule in headers["Content-Security-Policy"].split(";"))
    assert rules["default-src"] == rules["frame-ancestors"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert {rules.get(name, "'self'") for name in ("script-src", "style-src", "connect-src")} == {"'self'"}
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert (headers["Cache-Control"], headers["X-Content-Type-Options"], headers["Referrer-Policy"]) == (
        "no-store",
        "nosniff",
        "no-referrer",
    )


@pytest.mark.parametrize("name", ["swagger-ui.js", "index.html", "..%2f..%2f__init__.py", "../__init__.py", "VERSION", ""])
async def test_no_other_file_of_the_package_is_served(swagger: TestClient, name: str):
    assert (await swagger.get(f"/admin/docs/{name}")).status == 404


async def test_without_swagger_ui_a_page_of_our_own_has_every_operation_and_schema(own: TestClient):
    answer = await own.get("/admin/docs")
    text = await answer.text()
    page = Page(text)
    assert page.loads == []
    operations = {"get_lamps_name", "put_lamps_name", "delete_lamps_name", "get_admin_requests", "get_admin_requests_id_explain"}
    assert operations | {"Lamp", "Explanation", "RequestList"} <= page.ids
    assert {link.removeprefix("#") for link in page.links if link.startswith("#")} <= page.ids
    for words in ("/lamps/{name}", "Set a lamp.", "what watts are shown in", "how many at most, 1 to 1000"):
        assert words in text
    [style] = page.inline
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = answer.headers["Content-Security-Policy"]
    assert f"style-src 'sha256-{digest}'" in policy
    assert "script-src" not in policy
    assert answer.headers["Cache-Control"] == "no-store"


async def test_what_a_description_says_is_text_and_no_markup():
    nasty = "<script>alert(1)</script>"
    document = {
        "info": {"title": nasty},
        "paths": {
            f"/{nasty}": {
                "get": {
                    "operationId": f'"{nasty}',
                    "summary": nasty,
                    "tags": [nasty],
                    "parameters": [{"name": nasty, "in": "query", "description": nasty}],
                    "responses": {"200": {"description": nasty}},
                }
            }
        },
        "components": {"schemas": {nasty: {"description": nasty}}},
    }
    async with TestClient(TestServer(app(None, document))) as client:
        assert nasty not in await (await client.get("/admin/docs")).text()


def test_an_installation_without_the_files_has_none():
    assert reference.swagger_files("a-package-that-nobody-has") is None
