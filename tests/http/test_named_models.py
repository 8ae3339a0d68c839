"""A model in a path, as a request for it goes on: by the name's provider, and with the name that the model has there."""

from __future__ import annotations

import pytest

from proxy.core.call import Call, Target
from proxy.core.reply import Reply
from proxy.http.named_models import Naming, by_path, rename, split
from proxy.routing.table import Table
from tests.core.doubles import make_call

TABLE = Table(
    {"fast": Target("east", "gpt-4o", "fast"), "org/own": Target("west", "org/own", "org/own")}, frozenset({"east", "west"}), "east"
)


async def sent(path: str, table: Table = TABLE, **members: object) -> tuple[str | None, str]:
    """The model that is routed by, and the path that goes on."""
    call = make_call("models", method="DELETE", path=path, **members)
    named: list[str | None] = []

    async def last(call: Call) -> Reply:
        return Reply(200)

    async def routed(call: Call) -> Reply:
        named.append(call.model)
        call.target = table.find(call.model)
        return await rename(call, last)

    await Naming(table)(call, routed)
    return named[0], call.path


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/models/west/x", ("west/x", "/models/x")),
        ("/models/west%2Fx", ("west/x", "/models/x")),
        ("/models/west%2Fft%3Agpt:org::1", ("west/ft:gpt:org::1", "/models/ft:gpt:org::1")),
        ("/models/west/org/a b?#%25", ("west/org/a b?#%", "/models/org%2Fa%20b%3F%23%25")),
        ("/models/fast", ("fast", "/models/gpt-4o")),
        ("/models/org%2Fown", ("org/own", "/models/org%2Fown")),
        ("/fine_tuning/checkpoints/west%2Fft:1/permissions", ("west/ft:1", "/fine_tuning/checkpoints/ft:1/permissions")),
        ("/fine_tuning/checkpoints/west%2Fft:1/permissions/cp_2", ("west/ft:1", "/fine_tuning/checkpoints/ft:1/permissions/cp_2")),
    ],
)
async def test_a_model_has_the_name_that_its_provider_knows(path: str, expected: tuple[str, str]):
    assert await sent(path) == expected


@pytest.mark.parametrize("path", ["/models/ft:gpt%3Aorg::1", "/models/north/x", "/fine_tuning/checkpoints/ft:1/permissions"])
async def test_a_name_that_the_table_has_not_goes_to_the_default_provider_as_it_is(path: str):
    assert await sent(path) == (None, path)


@pytest.mark.parametrize("name", ["org%2Fmodel", "org/model", "%66t:1"])
async def test_a_name_that_stays_the_same_is_not_written_again(name: str):
    everything = Table({}, frozenset({"east"}), "east", open=True)
    assert (await sent(f"/models/{name}", everything))[1] == f"/models/{name}"


@pytest.mark.parametrize(("path", "expected"), [("/models/fast", "/models/gpt-4o"), ("/models/ft:1", "/models/ft:1")])
async def test_a_body_does_not_say_which_model_is_meant(path: str, expected: str):
    assert (await sent(path, model="west/other", body={"model": "west/other"}))[1] == expected


@pytest.mark.parametrize(("path", "expected"), [("/fine_tuning/jobs/job_1", None), ("/files/models/x", None), ("/models", None)])
async def test_only_what_names_a_model_goes_this_way(path: str, expected: object):
    assert split(path) is expected

    async def named(call: Call) -> Reply:
        raise AssertionError(call.path)

    async def others(call: Call) -> Reply:
        return Reply(202)

    assert (await by_path(named, others)(make_call("fine_tuning", path=path))).status == 202
