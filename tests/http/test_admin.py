"""The admin plane's metrics, in both text forms."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client.parser import text_string_to_metric_families

from proxy.core.metrics import Registry
from proxy.http.admin import admin_app
from proxy.http.api import Desk


@pytest.fixture
def state() -> dict[str, Any]:
    return {"status": "ready"}


@pytest.fixture
async def client(state: dict[str, Any]) -> AsyncIterator[TestClient]:
    registry = Registry()
    registry.counter("llm_requests_total", "Requests.", "operation", "status").labels("chat", "200").add(3)
    registry.gauge("llm_active_requests", "In flight.").labels().set(2)
    distribution = registry.histogram("llm_latency_seconds", "Time.", (0.1, 1.0), "operation").labels("chat")
    for seconds in (0.05, 0.5, 0.5, 5.0):
        distribution.observe(seconds)

    async def numbers() -> Registry:
        return registry

    async with TestClient(TestServer(admin_app(numbers, state.copy, desk=lambda: Desk([])))) as found:
        yield found


async def test_metrics_are_exposed_with_their_labels(client: TestClient):
    answer = await client.get("/metrics")
    assert answer.status == 200
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(await answer.text())
        for sample in family.samples
    }
    assert samples["llm_requests_total", (("operation", "chat"), ("status", "200"))] == 3
    assert samples["llm_active_requests", ()] == 2
    buckets = [samples["llm_latency_seconds_bucket", (("le", bound), ("operation", "chat"))] for bound in ("0.1", "1.0", "+Inf")]
    assert buckets == [1, 3, 4]
    assert samples["llm_latency_seconds_count", (("operation", "chat"),)] == 4
    assert samples["llm_latency_seconds_sum", (("operation", "chat"),)] == pytest.approx(6.05)
    assert any(name.startswith("process_") for name, _ in samples)


async def test_open_metrics_are_given_to_those_who_ask(client: TestClient):
    answer = await client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
    assert (await answer.text()).endswith("# EOF\n")


class Noticed(float):
    """A number that says when it is written."""

    notice: Callable[[], None]

    def __float__(self) -> float:
        self.notice()
        return 1.0


async def test_others_are_answered_while_metrics_are_written_for_one_after_the_other():
    registry, loop, done = Registry(), asyncio.get_running_loop(), list[str]()
    number = Noticed()
    registry.gauge("llm_active_requests", "In flight.").labels().value = number

    async def numbers() -> Registry:
        done.append("counted")
        return registry

    async with TestClient(TestServer(admin_app(numbers, lambda: {"status": "ready"}, desk=lambda: Desk([])))) as client:

        def notice() -> None:
            answer = asyncio.run_coroutine_threadsafe(client.get("/healthz"), loop).result(5.0)
            done.append(f"written beside {answer.status}")

        number.notice = notice
        answers = await asyncio.gather(*(client.get("/metrics") for _ in range(3)))
        assert ["llm_active_requests 1.0" in await answer.text() for answer in answers] == [True] * 3
    assert done == ["counted", "written beside 200"] * 3


async def test_health_is_told(client: TestClient):
    assert await (await client.get("/healthz")).json() == {"status": "ok"}


async def test_a_process_that_is_being_stopped_is_not_ready(client: TestClient, state: dict[str, Any]):
    assert (await client.get("/readyz")).status == 200
    state["status"] = "draining"
    answer = await client.get("/readyz")
    assert (answer.status, await answer.json()) == (503, {"status": "draining"})
    assert (await client.get("/healthz")).status == 200


async def test_the_admin_plane_has_nothing_of_the_data_plane(client: TestClient):
    assert (await client.get("/v1/models")).status == 404


async def test_what_is_behind_numbers_and_health_is_made_for_the_first_who_asks_for_it():
    made: list[Desk] = []

    def desk() -> Desk:
        made.append(Desk([]))
        return made[-1]

    async def numbers() -> Registry:
        return Registry()

    async with TestClient(TestServer(admin_app(numbers, lambda: {"status": "ready"}, desk=desk))) as client:
        for path in ("/healthz", "/readyz", "/metrics"):
            assert (await client.get(path)).status == 200
        assert made == []
        behind = ("/openapi.json", "/readyz?verbose", "/admin/docs", "/nowhere")
        assert [(await client.get(path)).status for path in behind] == [200, 200, 200, 404]
        assert len(made) == 1


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
async def test_numbers_and_health_are_only_read(client: TestClient, path: str):
    answer = await client.post(path)
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")
