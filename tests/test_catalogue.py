"""Which models there are."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from providers.openai import OpenAI, OpenAISettings
from providers.sim.settings import SimSettings
from proxy.catalogue import Catalogue, listed_by, table_of
from proxy.core.call import Credential, Target
from proxy.core.errors import UpstreamError
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
