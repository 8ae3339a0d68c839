"""The list of models, as clients ask for it: each of them sees what it may ask for, and who may serve that to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from proxy.core.call import ANONYMOUS, Call, Principal
from proxy.core.errors import ClientError
from proxy.core.reply import Reply
from proxy.http.models import Models
from tests.core.doubles import make_call

#: Public name -> owner in the list, and who serves.
SERVED = {"fast": ("east", ("east", "west")), "org/model": ("east", ("east",)), "gpt-4o": ("openai-inc", ("west",))}
EVERY = list(SERVED)


class Listed:
    async def __call__(self) -> dict[str, dict[str, Any]]:
        return {name: {"id": name, "object": "model", "owned_by": owner} for name, (owner, _) in SERVED.items()}

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def find(self, model: str) -> dict[str, Any] | None:
        self.asked.append(model)
        return None if model.endswith("none") else {"id": model, "object": "model", "created": 1, "owned_by": "east"}

    def providers(self, model: str) -> tuple[str, ...]:
        return SERVED[model][1] if model in SERVED else ("east",) if model.startswith("east/") else ()


async def gateway(call: Call) -> Reply:
    return Reply(202)


async def ask(
    path: str, principal: Principal = ANONYMOUS, *, method: str = "GET", allows: Callable[[str], bool] = SERVED.__contains__
) -> Reply:
    return await Models(Listed(), gateway, allows)(make_call("models", method=method, path=path, principal=principal))


async def names(principal: Principal = ANONYMOUS, allows: Callable[[str], bool] = SERVED.__contains__) -> list[str]:
    reply = await ask("/models", principal, allows=allows)
    return [model["id"] for model in orjson.loads(reply.body)["data"]]


async def shown(name: str, principal: Principal = ANONYMOUS) -> Any:
    return orjson.loads((await ask(f"/models/{name}", principal)).body)


async def test_all_models_are_listed_with_all_who_serve_them():
    reply = await ask("/models")
    assert reply.headers["content-type"] == "application/json"
    assert orjson.loads(reply.body) == {
        "object": "list",
        "data": [
            {"id": name, "object": "model", "owned_by": owner, "comporta": {"providers": list(providers)}}
            for name, (owner, providers) in SERVED.items()
        ],
    }


@pytest.mark.parametrize(
    ("path", "name"), [("/models/fast", "fast"), ("/models/org/model", "org/model"), ("/models/org%2Fmodel", "org/model")]
)
async def test_one_model_is_shown_by_its_name(path: str, name: str):
    assert orjson.loads((await ask(path)).body) == await shown(name)


@pytest.mark.parametrize("path", ["/models/fasst", "/models/org", "/models/%00"])
async def test_a_model_that_is_not_listed_does_not_exist(path: str):
    with pytest.raises(ClientError) as caught:
        await ask(path)
    assert (caught.value.status, caught.value.code, caught.value.param) == (404, "model_not_found", "model")


@pytest.mark.parametrize(
    ("principal", "expected"),
    [
        (Principal("ann"), EVERY),
        (Principal("ann", models=("fast", "gpt-*")), ["fast", "gpt-4o"]),
        (Principal("ann", models=()), []),
        (Principal("ann", providers=frozenset({"east"})), ["fast", "org/model"]),
        (Principal("ann", providers=frozenset({"north"})), []),
        (Principal("ann", models=("org/*", "gpt-4o"), providers=frozenset({"east"})), ["org/model"]),
    ],
)
async def test_a_key_sees_what_it_may_ask_for(principal: Principal, expected: list[str]):
    assert await names(principal) == expected
    for name in EVERY:
        if name in expected:
            assert (await shown(name, principal))["id"] == name
            continue
        with pytest.raises(ClientError) as caught:
            await ask(f"/models/{name}", principal)
        assert (caught.value.status, caught.value.code) == (404, "model_not_found")


async def test_a_hint_names_nothing_that_a_key_may_not_ask_for():
    with pytest.raises(ClientError) as caught:
        await ask("/models/fasst", Principal("ann", models=("gpt-4o",)))
    assert "'fast'" not in caught.value.message and "fast." not in caught.value.message
    assert "gpt-4o" in caught.value.message


async def test_only_the_providers_that_a_key_may_use_are_named():
    west = Principal("ann", providers=frozenset({"west"}))
    found = await shown("fast", west)
    assert (found["owned_by"], found["comporta"]) == ("west", {"providers": ["west"]})
    assert (await shown("gpt-4o", west))["owned_by"] == "openai-inc", "that is the provider's own word"


async def test_what_the_configuration_allows_to_nobody_is_not_listed():
    assert await names(allows=lambda name: name != "fast") == ["org/model", "gpt-4o"]
    with pytest.raises(ClientError):
        await ask("/models/fast", allows=lambda name: name != "fast")


async def test_deleting_a_model_is_its_providers_affair():
    assert (await ask("/models/fast", method="DELETE")).status == 202


def anything(_name: str) -> bool:
    return True


@pytest.mark.parametrize("path", ["/models/east/gpt", "/models/east%2Fgpt"])
async def test_a_name_that_is_not_listed_is_shown_where_it_would_be_served(path: str):
    assert orjson.loads((await ask(path, allows=anything)).body) == {
        "id": "east/gpt", "object": "model", "created": 1, "owned_by": "east", "comporta": {"providers": ["east"]},
    }  # fmt: skip
    assert "east/gpt" not in await names(allows=anything)


@pytest.mark.parametrize(
    ("name", "principal", "allowed", "asked"),
    [
        ("east/gpt", Principal("ann", providers=frozenset({"west"})), True, []),
        ("east/gpt", Principal("ann", models=("gpt",)), True, []),
        ("east/gpt", ANONYMOUS, False, []),
        ("north/gpt", ANONYMOUS, True, []),
        ("east/" + "x" * 300, ANONYMOUS, True, []),
        ("east/none", ANONYMOUS, True, ["east/none"]),
    ],
)
async def test_for_a_name_that_a_key_may_not_call_nobody_is_asked(name: str, principal: Principal, allowed: bool, asked: list[str]):
    listing = Listed()
    with pytest.raises(ClientError) as caught:
        await Models(listing, gateway, lambda _name: allowed)(
            make_call("models", method="GET", path=f"/models/{name}", principal=principal)
        )
    assert (caught.value.status, caught.value.code) == (404, "model_not_found")
    assert listing.asked == asked
