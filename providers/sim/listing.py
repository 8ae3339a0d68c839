"""The small endpoints: models and moderations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from providers.sim.refusal import Check, check_fields, empty_array, instance, missing, wrong_type
from providers.sim.wire import Answer, Stamp, document, model_name

_CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)
_CHECKS: dict[str, Check] = {"model": instance(str)}


def model_list() -> Answer:
    """https://platform.openai.com/docs/api-reference/models"""
    return document({"object": "list", "data": [_model("sim")]})


def model_answer(name: str) -> Answer:
    """Any name is a model here, as any name is answered."""
    return document(_model(model_name(name)))


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "sim"}


def moderation_answer(body: Mapping[str, Any], stamp: Stamp) -> Answer:
    """Nothing is looked at, so nothing is flagged. Raises ClientError. https://platform.openai.com/docs/api-reference/moderations"""
    check_fields(body, _CHECKS)
    given = body.get("input")
    if given is None:
        raise missing("input")
    if not isinstance(given, (str, list)):
        raise wrong_type("input", "a string or an array", given)
    if not given and isinstance(given, list):
        raise empty_array("input")
    # Parts of one message have one result together; texts have one each.
    count = sum(isinstance(item, str) for item in given) or 1 if isinstance(given, list) else 1
    result = {
        "flagged": False,
        "categories": dict.fromkeys(_CATEGORIES, False),
        "category_scores": dict.fromkeys(_CATEGORIES, 0.0),
        "category_applied_input_types": {name: [] for name in _CATEGORIES},
    }
    return document({"id": f"modr-sim-{stamp.serial}", "model": model_name(body.get("model") or "sim"), "results": [result] * count})
