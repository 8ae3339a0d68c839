"""What a gateway of many applications sees: mostly streams, some whole answers, some embeddings, prompts of uneven popularity."""

from __future__ import annotations

from locust import task

from loadtests.caller import Caller


class Mixed(Caller):
    """Six streams to three whole answers to one embedding."""

    @task(6)
    def streamed(self) -> None:
        self.chat(self.random.choice(self.plan.models), stream=True)

    @task(3)
    def whole(self) -> None:
        self.chat(self.random.choice(self.plan.models), stream=False)

    @task
    def embedded(self) -> None:
        self.embed(self.random.choice(self.plan.models))
