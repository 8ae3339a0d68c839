"""What is wrong with a body, as one refusal."""

from __future__ import annotations

from pydantic import BaseModel, ValidationError

from proxy.core.errors import ClientError
from proxy.core.names import nearest
from proxy.fields import model_at

_LONGEST = 100


def misfit(error: ValidationError, shape: type[BaseModel]) -> ClientError:
    """The first thing that does not fit `shape`: where, and for a name that is not known there, the nearest one."""
    first = error.errors(include_url=False, include_input=False)[0]
    path = tuple(part if isinstance(part, int) else part[:_LONGEST] for part in first["loc"])
    place = ".".join(map(str, path))
    said = first["msg"]
    inner = model_at(shape, path[:-1]) if first["type"] == "extra_forbidden" else None
    if inner is not None:
        said = f"unknown member; {nearest(str(path[-1]), inner.model_fields)}"
    return ClientError(f"{place or 'The body'}: {said}", param=place or None, code="invalid_value")
