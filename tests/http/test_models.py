"""The list of models, as clients ask for it."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from proxy.core.call import Call
from proxy.core.errors import ClientError
from proxy.core.reply import Reply
from proxy.http.models import Models
from tests.core.doubles import make_call

LISTED = {name: {"id": name, "object": "model"} for name in ("fast", "org/model")}


async def listing() -> dict[str, dict[str, Any]]:
    return LISTED


async def gateway(call: Call) -> Reply:
    return Reply(202)


async def ask(path: str, method: str = "GET") -> Reply:
    return await Models(listing, gateway)(make_call("models", method=method, path=path))


async def test_all_models_are_listed():
    reply = await ask("/models")
    assert reply.headers["content-type"] == "application/json"
    assert orjson.loads(reply.body) == {"object": "list", "data": list(LISTED.values())}


@pytest.mark.parametrize(
    ("path", "name"), [("/models/fast", "fast"), ("/models/org/model", "org/model"), ("/models/org%2Fmodel", "org/model")]
)
async def test_one_model_is_shown_by_its_name(path: str, name: str):
    assert orjson.loads((await ask(path)).body) == LISTED[name]


@pytest.mark.parametrize("path", ["/models/fasst", "/models/org", "/models/%00"])
async def test_a_model_that_is_not_listed_does_not_exist(path: str):
    with pytest.raises(ClientError) as caught:
        await ask(path)
    assert (caught.value.status, caught.value.code, caught.value.param) == (404, "model_not_found", "model")


async def test_deleting_a_model_is_its_providers_affair():
    assert (await ask("/models/fast", "DELETE")).status == 202
