"""Whether a body means the same to everybody who reads it."""

from __future__ import annotations

import json
import re
from typing import Any

from proxy.core.errors import ClientError
from proxy.core.splice import lone_name

#: A body that begins with its model, as many clients write it.
_MODEL_FIRST = re.compile(rb'\s*\{\s*"model"\s*:\s*"([^"\\]*)"')


def require_one_model(raw: bytes, model: str) -> None:
    """Raises ClientError where a body names its model more than once: `model` is the last, and a provider may take the first.

    Asked where not everybody may use all models. A body that begins with its model has no other first one.
    """
    begins = _MODEL_FIRST.match(raw)
    if begins is not None and begins[1] == model.encode():
        return
    if begins is not None or (lone_name(raw, "model") < 0 and _names(raw).count("model") > 1):
        raise ClientError("The request's body has more than one member 'model'.", param="model", code="ambiguous_model")


def _names(raw: bytes) -> list[str]:
    """The names of an object's members, each as often as it is there."""
    members: list[tuple[str, Any]] = json.loads(raw, object_pairs_hook=list)
    return [name for name, _ in members]
