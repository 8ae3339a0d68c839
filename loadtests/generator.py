"""The command lines of locust for a plan."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.servers import free_port
from loadtests.plan import VARIABLE, Plan
from loadtests.processes import Locust

SCENARIOS = ("chat", "streaming", "embeddings", "mixed", "faults")

#: What a run may take beyond its time: starting, the last answers, ending; in seconds.
SLACK = 45.0


def start(url: str, scenarios: Sequence[str], plan: Plan, workers: int = 0) -> Locust:
    """Locust without its web page, on one gateway. `workers`: processes beside a master; 0 for one process that does it all."""
    folder = Path(plan.out)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("records-*.jsonl"):
        old.unlink()
    environment = {VARIABLE: plan.encode()}
    return Locust(commands(url, scenarios, plan, workers), environment, folder)


def commands(url: str, scenarios: Sequence[str], plan: Plan, workers: int) -> list[list[str]]:
    """The arguments of each process, the one that rules first."""
    files = ",".join(f"loadtests/{name}.py" for name in [*scenarios, "shapes"])
    run = ["-f", files, "--headless", "--host", url, "--stop-timeout", f"{plan.patience + 5:g}", "--loglevel", "WARNING"]
    run += ["--only-summary", "--exit-code-on-error", "0", "--json-file", str(Path(plan.out) / "locust")]
    if not workers:
        return [run]
    port = str(free_port())
    # Both ends of their own talk are on loopback too.
    master = [*run, "--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", port]
    master += ["--expect-workers", str(workers), "--expect-workers-max-wait", "30"]
    worker = ["-f", files, "--worker", "--master-host", "127.0.0.1", "--master-port", port, "--loglevel", "WARNING"]
    return [master, *[list(worker) for _ in range(workers)]]
