"""Texts made into vectors."""

from __future__ import annotations

from locust import task

from loadtests.caller import Caller


class Embeddings(Caller):
    """Asks for the embedding of one text after the other."""

    @task
    def embedded(self) -> None:
        self.embed(self.random.choice(self.plan.models))
