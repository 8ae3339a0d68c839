"""Clients that leave, bodies that are no requests, and providers that fail, break off and fall silent."""

from __future__ import annotations

from locust import task

from loadtests.caller import Ask, Caller

GARBAGE = (
    b'{"model": "steady", "messages": [',
    b"\x00\xff\xfe not JSON at all",
    b"[1, 2, 3]",
    b'{"messages": [{"role": "user", "content": "of which model?"}]}',
    b'{"model": "no-such-model", "messages": []}',
    b'{"model": 7, "messages": "nothing"}',
    b"[" * 5000,
)

#: All that can come of a provider that fails, breaks off in the middle, and falls silent.
_ROUGH = ("ok", "failed", "broken", "gave_up")


class Faults(Caller):
    """Does everything that a gateway must survive."""

    @task(3)
    def leave_in_the_middle(self) -> None:
        deltas = self.random.randint(1, 10)
        self.chat(self.random.choice(self.plan.models), stream=True, operation="leave", leave_at=deltas, meant=("cancelled",))

    @task(2)
    def leave_before_the_answer(self) -> None:
        patience = self.random.uniform(0.001, 0.02)
        # Whole, because a stream's head may be there at once.
        self.chat(self.random.choice(self.plan.models), stream=False, operation="leave", leave_after=patience, meant=("cancelled", "ok"))

    @task(2)
    def send_garbage(self) -> None:
        body = self.random.choice(GARBAGE)
        self.ask(Ask("garbage", "/v1/chat/completions", body, meant=("refused",)))

    @task(4)
    def ask_rough_providers(self) -> None:
        stream = self.random.random() < 0.7
        self.chat(self.random.choice(self.plan.rough_models), stream=stream, operation="rough", meant=_ROUGH)
