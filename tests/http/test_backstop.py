"""Whatever goes wrong behind the admin plane is an answer in the shape of errors, and tells nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from pydantic import BaseModel

from proxy.core.metrics import Registry
from proxy.http.admin import admin_app
from proxy.http.api import Asked, Desk, Endpoint
from tests.support.log import logged

CANARY = "canary-5e1d"


class Wish(BaseModel):
    text: Any


async def fail(asked: Asked) -> Wish:
    if asked.body.text == "a huge number":
        # What the answer's entity tag is made with takes no such number.
        return Wish(text=2**70)
    raise KeyError(asked.body.text)


@pytest.fixture
async def client() -> AsyncIterator[TestClient]:
    async def numbers() -> Registry:
        raise OSError(CANARY)

    app = admin_app(numbers, lambda: {"status": "ready"}, desk=lambda: Desk([Endpoint("POST", "/wishes", "Fail.", fail, Wish, Wish)]))
    async with TestClient(TestServer(app)) as found:
        yield found


@pytest.fixture
def lines() -> Iterator[Sequence[Mapping[str, Any]]]:
    with logged() as found:
        yield found


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        (("POST", "/wishes", {"text": CANARY}), "KeyError"),
        (("POST", "/wishes", {"text": "a huge number"}), "TypeError"),
        (("GET", "/metrics", None), "OSError"),
    ],
)
async def test_what_nobody_foresaw_is_an_opaque_500_and_a_line_of_the_log(
    client: TestClient, lines: Sequence[Mapping[str, Any]], caplog: pytest.LogCaptureFixture, asked: tuple[str, str, Any], error: str
):
    caplog.set_level(logging.DEBUG)
    method, path, body = asked
    answer = await client.request(method, path, json=body)
    assert (answer.status, answer.content_type) == (500, "application/json")
    told = (await answer.json())["error"]
    assert set(told) == {"message", "type", "param", "code"}
    (line,) = lines
    assert (line["event"], line["error"], line["id"]) == ("unforeseen", error, answer.headers["x-request-id"])
    assert line["place"].rpartition(":")[2].isdigit()
    assert CANARY not in str(line) + str(told) + caplog.text


async def test_what_is_not_there_is_told_in_the_same_shape(client: TestClient, lines: Sequence[Mapping[str, Any]]):
    unknown, wrong = await client.get("/wish"), await client.delete("/wishes")
    assert (unknown.status, (await unknown.json())["error"]["code"]) == (404, "unknown_url")
    assert (wrong.status, wrong.headers["Allow"], (await wrong.json())["error"]["code"]) == (405, "POST", "method_not_allowed")
    assert list(lines) == []


async def test_a_body_that_cannot_be_read_is_the_clients_fault(client: TestClient, lines: Sequence[Mapping[str, Any]]):
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    answer = await client.post("/wishes", data=b"no gzip at all", headers=headers)
    assert answer.status == 400
    assert list(lines) == []


async def test_a_client_that_leaves_is_no_error(client: TestClient, lines: Sequence[Mapping[str, Any]], caplog: pytest.LogCaptureFixture):
    _, writer = await asyncio.open_connection(client.host, client.port)
    head = b"POST /wishes HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    writer.write(head)
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert (await client.get("/healthz")).status == 200
    assert list(lines) == []
    assert caplog.text == ""
