"""Which models there are."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from providers.openai import OpenAI, OpenAISettings
from providers.sim.settings import SimSettings
from proxy.catalogue import Catalogue, listed_by, table_of
from proxy.core.call import Credential, Target
from proxy.core.errors import ClientError, UpstreamError
from proxy.dispatch import Upstream
from proxy.routing.table import Table
from proxy.settings import ModelEntry, Settings
from tests.core.doubles import HandClock, ScriptedResponse, ScriptedTransport

SIM = SimSettings()
OPENAI = OpenAISettings(api_key="env:KEY")


def settings(**sections: Any) -> Settings:
    return Settings.model_validate(sections)


@pytest.mark.parametrize(
    ("sections", "default", "is_open"),
    [
        ({"providers": {"sim": SIM, "a": OPENAI, "b": OPENAI}}, "a", True),
        ({"providers": {"a": OPENAI, "b": OPENAI}, "default_provider": "b"}, "b", True),
        ({"providers": {"sim": SIM}}, "sim", False),
        ({"providers": {"a": OPENAI}, "models": {"m": ModelEntry(provider="a")}}, "a", False),
    ],
)
def test_a_table_without_models_is_open_to_the_first_real_provider(sections: dict[str, Any], default: str, is_open: bool):
    table = table_of(settings(**sections))
    assert (table.default, table.open) == (default, is_open)
    assert table.providers == frozenset(sections["providers"])


def test_a_table_holds_what_the_configuration_names():
    table = table_of(
        settings(providers={"sim": SIM, "a": OPENAI}, models={"m": ModelEntry(provider="a"), "fast": ModelEntry(provider="a", model="gpt")})
    )
    assert table.targets == {
        "m": Target("a", "m", "m"),
        "fast": Target("a", "gpt", "fast"),
        "sim": Target("sim", "sim", "sim"),
    }


def test_a_table_tells_of_no_model_that_the_configuration_allows_to_nobody():
    table = table_of(
        settings(
            providers={"a": OPENAI},
            models={"fast": ModelEntry(provider="a"), "secret": ModelEntry(provider="a")},
            llm={"allowed_models": ["fast", "secret-*"]},
        )
    )
    with pytest.raises(ClientError, match=r"does not exist\. Near to it: fast\.$"):
        table.find("secret-x")


def upstream(*answers: ScriptedResponse | UpstreamError) -> tuple[Upstream, ScriptedTransport]:
    transport = ScriptedTransport(*answers)
    provider = OpenAI(OpenAISettings(base_url="https://api.example/v1"))
    return Upstream("a", provider, transport, credentials=(Credential("env:KEY", "sk-upstream"),)), transport


def listing(*names: Any, status: int = 200) -> ScriptedResponse:
    return ScriptedResponse([orjson.dumps({"object": "list", "data": [{"id": name, "object": "model"} for name in names]})], status=status)


async def test_a_providers_own_list_is_asked_for_with_its_key():
    one, transport = upstream(listing("x", "y"))
    assert list(await listed_by(one, HandClock())) == ["x", "y"]
    [request] = transport.sent
    assert (request.method, request.url) == ("GET", "https://api.example/v1/models")
    assert request.headers["authorization"] == "Bearer sk-upstream"


async def test_a_byte_order_mark_before_a_list_says_nothing():
    one, _ = upstream(ScriptedResponse([b'\xef\xbb\xbf{"data":[{"id":"x"}]}']))
    assert list(await listed_by(one, HandClock())) == ["x"]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (lambda: ScriptedResponse([b"<html>"]), "invalid_response"),
        (lambda: ScriptedResponse([b"[]"]), "invalid_response"),
        (lambda: ScriptedResponse([b'{"data":7}']), "invalid_response"),
        (lambda: ScriptedResponse([b"{}"]), "invalid_response"),
        (lambda: ScriptedResponse([b"no"], status=401), "provider_auth"),
        (lambda: ScriptedResponse([b"x" * (8 * 2**20 + 1)]), "response_too_large"),
        (lambda: ScriptedResponse([UpstreamError("reset", "m")]), "reset"),
    ],
)
async def test_a_list_that_is_none_is_an_upstream_error_and_leaves_nothing_open(answer, kind: str):
    response = answer()
    one, _ = upstream(response)
    with pytest.raises(UpstreamError) as caught:
        await listed_by(one, HandClock())
    assert caught.value.kind == kind
    assert response.closed


async def test_entries_that_are_no_models_are_left_out():
    one, _ = upstream(ScriptedResponse([b'{"data":[{"id":"x"},7,null,{"id":5},{}]}']))
    assert await listed_by(one, HandClock()) == {"x": {"id": "x"}}


async def test_a_list_may_come_without_an_object_around_it():
    one, _ = upstream(ScriptedResponse([b'[{"id":"x"}]']))
    assert await listed_by(one, HandClock()) == {"x": {"id": "x"}}


CLOSED = Table({"m": Target("a", "gpt", "m")}, frozenset({"a"}), "a")
OPEN = Table({"sim": Target("sim", "sim", "sim")}, frozenset({"a", "sim"}), "a", open=True)


SEVERAL = table_of(
    settings(
        providers={"a": OPENAI, "b": OPENAI, "sim": SIM},
        models={
            "m": ModelEntry(provider="a", fallback=["n"]),
            "n": {"targets": [{"provider": "b", "model": "x"}, {"provider": "a"}, {"provider": "b", "model": "y"}]},
        },
    )
)


@pytest.mark.parametrize(
    ("table", "model", "providers"),
    [
        (SEVERAL, "n", ("b", "a")),
        (SEVERAL, "m", ("a",)),  # whom it falls back to is another model's provider
        (SEVERAL, "b/anything", ("b",)),
        (SEVERAL, "sim", ("sim",)),
        (SEVERAL, "unknown", ()),
        (OPEN, "unknown", ("a",)),
    ],
)
def test_who_serves_a_name_is_told_in_order(table: Table, model: str, providers: tuple[str, ...]):
    assert Catalogue(table, {}, HandClock()).providers(model) == providers


async def test_a_closed_table_asks_nobody():
    one, transport = upstream()
    catalogue = Catalogue(CLOSED, {"a": one}, HandClock())
    assert await catalogue() == {"m": {"id": "m", "object": "model", "created": 1_700_001_000, "owned_by": "a"}}
    assert not transport.sent


async def test_an_open_table_shows_what_its_provider_has_and_asks_once_a_minute():
    clock = HandClock()
    one, transport = upstream(listing("x"), listing("x", "y"))
    catalogue = Catalogue(OPEN, {"a": one}, clock)
    assert list(await catalogue()) == ["x", "sim"]
    clock.move(59)
    assert list(await catalogue()) == ["x", "sim"]
    assert len(transport.sent) == 1
    clock.move(2)
    assert list(await catalogue()) == ["x", "y", "sim"]
    assert len(transport.sent) == 2


async def test_a_provider_that_does_not_answer_keeps_the_list_that_it_gave_last():
    clock = HandClock()
    one, _ = upstream(listing("x"), UpstreamError("connect_failed", "m"), listing("z"))
    catalogue = Catalogue(OPEN, {"a": one}, clock)
    await catalogue()
    clock.move(61)
    assert list(await catalogue()) == ["x", "sim"]
    clock.move(9)
    assert list(await catalogue()) == ["x", "sim"]
    clock.move(2)
    assert list(await catalogue()) == ["z", "sim"]


async def test_a_provider_that_never_answered_leaves_what_the_table_has():
    one, transport = upstream(UpstreamError("connect_failed", "m"))
    catalogue = Catalogue(OPEN, {"a": one}, HandClock())
    assert [list(await catalogue()) for _ in range(3)] == [["sim"]] * 3
    assert len(transport.sent) == 1, "it is asked again although it has just failed"


async def test_a_name_of_the_table_goes_before_the_providers():
    one, _ = upstream(listing("sim"))
    assert (await Catalogue(OPEN, {"a": one}, HandClock())())["sim"]["owned_by"] == "sim"


@pytest.mark.parametrize(
    ("said", "created", "owner"),
    [
        ({}, 1_700_001_000, "a"),
        ({"object": "thing", "created": None, "owned_by": None}, 1_700_001_000, "a"),
        ({"created": 7, "owned_by": "acme"}, 7, "acme"),
        ({"created": 7.5, "owned_by": 5}, 7, "a"),
        ({"created": True}, 1_700_001_000, "a"),
        ({"created": "yesterday"}, 1_700_001_000, "a"),
    ],
)
async def test_every_model_has_what_openais_have(said: dict[str, Any], created: int, owner: str):
    one, _ = upstream(ScriptedResponse([orjson.dumps({"data": [{"id": "x", "context_length": 8192, **said}]})]))
    listed = await Catalogue(OPEN, {"a": one}, HandClock())()
    assert listed["x"] == {"id": "x", "object": "model", "created": created, "owned_by": owner, "context_length": 8192}
    assert type(listed["x"]["created"]) is int
    assert listed["sim"] == {"id": "sim", "object": "model", "created": 1_700_001_000, "owned_by": "sim"}


def described(name: str) -> ScriptedResponse:
    return ScriptedResponse([orjson.dumps({"id": name, "object": "model", "created": 5, "owned_by": "acme"})])


def refusing(status: int) -> ScriptedResponse:
    return ScriptedResponse([b'{"detail":"Not Found"}'], status=status)


AWAY = UpstreamError("connect_failed", "m")
MINE, ITS = (1_700_001_000, "a"), (5, "acme")


@pytest.mark.parametrize(
    ("model", "answers", "paths", "found"),
    [
        ("a/x", [listing("x")], ["/models"], MINE),
        ("x", [listing("x")], ["/models"], MINE),
        ("a/org/x", [listing("org/x")], ["/models"], MINE),
        ("a/new", [listing("x"), described("new")], ["/models", "/models/new"], ITS),
        ("new", [listing("x"), described("new-2")], ["/models", "/models/new"], ITS),
        ("a/org/new", [listing(), described("new")], ["/models", "/models/org%2Fnew"], ITS),
        ("a/%2e?b#c", [listing(), refusing(404)], ["/models", "/models/%252e%3Fb%23c"], None),
        ("a/none", [listing("x"), refusing(404)], ["/models", "/models/none"], None),
        ("a/none", [listing("x"), refusing(405)], ["/models", "/models/none"], None),
        ("none", [listing("x"), ScriptedResponse([b'{"object":"list"}'])], ["/models", "/models/none"], None),
        # Whoever has no list may have anything, and who cannot be asked, too.
        ("a/any", [refusing(404)], ["/models"], MINE),
        ("a/any", [AWAY], ["/models"], MINE),
        ("a/any", [listing("x"), AWAY], ["/models", "/models/any"], MINE),
        ("a/any", [listing("x"), refusing(401)], ["/models", "/models/any"], MINE),
        ("a/any", [listing("x"), refusing(503)], ["/models", "/models/any"], MINE),
        ("a/any", [listing("x"), ScriptedResponse([b"<html>"])], ["/models", "/models/any"], MINE),
        ("sim", [], [], (1_700_001_000, "sim")),
    ],
)
async def test_a_name_is_what_its_provider_says_that_it_is(
    model: str, answers: list[ScriptedResponse | UpstreamError], paths: list[str], found: tuple[int, str] | None
):
    one, transport = upstream(*answers)
    model_object = await Catalogue(OPEN, {"a": one}, HandClock()).find(model)
    expected = found and {"id": model, "object": "model", "created": found[0], "owned_by": found[1]}
    assert model_object == expected
    assert [request.url.removeprefix("https://api.example/v1") for request in transport.sent] == paths
    assert all(answer.closed for answer in answers if isinstance(answer, ScriptedResponse))


async def test_a_name_that_nobody_would_be_asked_with_is_no_model():
    one, transport = upstream()
    assert await Catalogue(CLOSED, {"a": one}, HandClock()).find("gpt") is None
    assert not transport.sent


async def test_each_providers_list_is_asked_for_once_a_minute():
    clock = HandClock()
    one, transport = upstream(listing("x"), listing("y"))
    catalogue = Catalogue(CLOSED, {"a": one}, clock)
    assert [(await catalogue.find("a/x") or {})["id"] for _ in range(3)] == ["a/x"] * 3
    assert len(transport.sent) == 1
    clock.move(61)
    assert await catalogue.find("a/y")
    assert len(transport.sent) == 2
