"""Models with their targets, a line each: who serves, whether its provider is there, and whether it is in use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

_CIRCUIT = ("state", "until", "failures", "ejections", "in_flight", "first_token_seconds")


def annotate(models: Sequence[dict[str, Any]], told: Mapping[str, Any]) -> None:
    """Give each target the `health` and the `circuit` that `GET /admin/providers` tells of it, None where it tells nothing."""
    providers = {provider["name"]: provider for provider in told["data"]}
    circuits = {
        (name, target["model"]): {member: target[member] for member in _CIRCUIT}
        for name, provider in providers.items()
        for target in provider["targets"]
    }
    for model in models:
        for target in model["targets"]:
            provider = providers.get(target["provider"])
            target["health"] = None if provider is None else provider["health"]
            target["circuit"] = circuits.get((target["provider"], target["model"]))


def lines(models: Sequence[Mapping[str, Any]], now: float) -> Iterator[str]:
    """One for each target; the model's name stands before the first. `now` is in seconds since the epoch."""
    rows = [
        (model["id"] if place == 0 else "", f"{target['provider']}{_note(model, target)}", _state(target, now))
        for model in models
        for place, target in enumerate(model["targets"])
    ]
    first = max((len(name) for name, _, _ in rows), default=0)
    second = max((len(served) for _, served, _ in rows), default=0)
    for name, served, state in rows:
        yield f"{name:{first}}  {served:{second}}  {state}" if state else f"{name:{first}}  {served}"


def _note(model: Mapping[str, Any], target: Mapping[str, Any]) -> str:
    if target["simulated"]:
        return "  (simulated)"
    return f"  as {target['model']}" if target["model"] != model["id"] else ""


def _state(target: Mapping[str, Any], now: float) -> str:
    health, circuit = target.get("health"), target.get("circuit")
    if health is None:
        return "not known to the gateway" if "health" in target else ""
    word: str = health["state"]
    if word == "down":
        word += f" ({health['failure']}) for {_lasting(now - _seconds(health['since']))}"
    elif target["model"] in health["unlisted_models"]:
        word += ", model not listed"
    if circuit is None:
        return word
    left = f" for {_lasting(_seconds(circuit['until']) - now)}" if circuit["until"] else ""
    return f"{word}; {circuit['state']}{left}"


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def _lasting(seconds: float) -> str:
    """As a person says it."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, int(seconds))} s"
