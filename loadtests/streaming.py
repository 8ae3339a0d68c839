"""Chats whose answers come as they are made."""

from __future__ import annotations

from locust import task

from loadtests.caller import Caller


class Streaming(Caller):
    """Reads one stream after the other to its `[DONE]`."""

    @task
    def streamed(self) -> None:
        self.chat(self.random.choice(self.plan.models), stream=True)
