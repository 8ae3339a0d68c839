"""The words in which an OpenAI server refuses a request, and the checks that say them.

Messages and codes as https://api.openai.com/v1 gives them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import orjson

from proxy.core.errors import ClientError

Check: TypeAlias = Callable[[str, Any], None]

_NAMES: dict[type, str] = {
    dict: "an object",
    list: "an array",
    str: "a string",
    int: "an integer",
    float: "a decimal",
    bool: "a boolean",
    type(None): "null",
}


def missing(param: str) -> ClientError:
    return ClientError(f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")


def wrong_type(param: str, expected: str, value: object) -> ClientError:
    got = _NAMES.get(type(value), "an unknown value")
    return ClientError(f"Invalid type for '{param}': expected {expected}, but got {got} instead.", param=param, code="invalid_type")


def wrong_value(param: str, value: object, supported: tuple[str, ...]) -> ClientError:
    names = ", ".join(f"'{name}'" for name in supported[:-1]) + f" and '{supported[-1]}'"
    return ClientError(f"Invalid value: '{_short(value)}'. Supported values are: {names}.", param=param, code="invalid_value")


def out_of_range(param: str, kind: str, bound: str, limit: float, value: object) -> ClientError:
    side, sign = ("minimum", ">=") if bound == "below" else ("maximum", "<=")
    message = f"Invalid '{param}': {kind} {bound} {side} value. Expected a value {sign} {limit}, but got {_short(value)} instead."
    return ClientError(message, param=param, code=f"{kind}_{bound}_{side[:3]}_value")


def empty_array(param: str) -> ClientError:
    message = f"Invalid '{param}': empty array. Expected an array with minimum length 1, but got an empty array instead."
    return ClientError(message, param=param, code="empty_array")


def too_long(param: str, limit: int, length: int) -> ClientError:
    expected = f"Expected an array with maximum length {limit}, but got an array with length {length} instead."
    return ClientError(f"Invalid '{param}': array too long. {expected}", param=param, code="array_above_max_length")


def bad_schema(param: str, reason: str) -> ClientError:
    return ClientError(f"Invalid schema for '{param}': {reason}.", param=param, code="invalid_schema")


def error_body(error: ClientError) -> bytes:
    return orjson.dumps({"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}})


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 64 else text[:61] + "..."


def integer(low: int | None = None, high: int | None = None) -> Check:
    def check(param: str, value: Any) -> None:
        if type(value) is not int:
            raise wrong_type(param, "an integer", value)
        if low is not None and value < low:
            raise out_of_range(param, "integer", "below", low, value)
        if high is not None and value > high:
            raise out_of_range(param, "integer", "above", high, value)

    return check


def number(low: float, high: float) -> Check:
    def check(param: str, value: Any) -> None:
        if type(value) is not float and type(value) is not int:
            raise wrong_type(param, "a decimal", value)
        if value < low:
            raise out_of_range(param, "decimal", "below", low, value)
        if value > high:
            raise out_of_range(param, "decimal", "above", high, value)

    return check


def instance(kind: type) -> Check:
    def check(param: str, value: Any) -> None:
        if type(value) is not kind:
            raise wrong_type(param, _NAMES[kind], value)

    return check


def one_of(*supported: str) -> Check:
    def check(param: str, value: Any) -> None:
        if type(value) is not str:
            raise wrong_type(param, "a string", value)
        if value not in supported:
            raise wrong_value(param, value, supported)

    return check


def check_fields(body: Mapping[str, Any], checks: Mapping[str, Check]) -> None:
    """Raise ClientError for the first field of `body` that its check refuses. Unknown fields and nulls pass."""
    for name, value in body.items():
        if value is not None and (check := checks.get(name)) is not None:
            check(name, value)
