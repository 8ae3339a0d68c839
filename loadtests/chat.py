"""Chats whose answers come whole."""

from __future__ import annotations

from locust import task

from loadtests.caller import Caller


class Chat(Caller):
    """Asks one chat after the other."""

    @task
    def whole(self) -> None:
        self.chat(self.random.choice(self.plan.models), stream=False)
