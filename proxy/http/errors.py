"""How an error looks on the wire. One function makes it, from the allow-list that `proxy.core.errors` describes."""

from __future__ import annotations

from typing import Any

import orjson

from proxy.core.errors import ClientError, GatewayError, UpstreamError

_UNFORESEEN = GatewayError("The gateway failed on this request. Its id is in the x-request-id header.")


def shown(error: BaseException) -> GatewayError:
    """The error that the client may see: itself if it is one of ours, else an opaque 500."""
    return error if isinstance(error, GatewayError) else _UNFORESEEN


class MethodNotAllowed(ClientError):
    status = 405
    code = "method_not_allowed"

    def __init__(self, allowed: tuple[str, ...]) -> None:
        super().__init__(f"This path takes {', '.join(allowed)}.")
        self.allowed = allowed


def body(error: GatewayError) -> bytes:
    """OpenAI's error object. Shape: `{"error": {"message", "type", "param", "code"}}`, with real nulls."""
    fields: dict[str, Any] = {**_fields(error)}
    if isinstance(error, UpstreamError):
        for name, value in error.more.items():
            fields[name] = orjson.Fragment(value)
    return orjson.dumps({"error": fields})


def _fields(error: GatewayError) -> dict[str, str | None]:
    """The whole allow-list. What is no text (a lone surrogate, out of bytes that were no UTF-8) is replaced: it cannot be written."""
    named = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    return {name: value if value is None else value.encode("utf-8", "replace").decode() for name, value in named.items()}


def event(error: GatewayError, *, typed: bool = False) -> bytes:
    """The same as the last event of a stream that broke; no `[DONE]` follows it. `typed` streams (the Responses API) name their events.

    A provider's own event goes in its place, where there is one.
    """
    if error.event:
        return error.event
    if not typed:
        return b"data: %b\n\n" % body(error)
    fields = _fields(error)
    told = {**fields, "type": "error", "sequence_number": error.sequence_number, "error": fields}
    return b"event: error\ndata: %b\n\n" % orjson.dumps(told)


def headers(error: GatewayError) -> dict[str, str]:
    found = {"content-type": "application/json"}
    if error.retry_after is not None:
        found["retry-after"] = str(max(0, -int(-error.retry_after // 1)))
        found["retry-after-ms"] = str(int(error.retry_after * 1000))
    if error.should_retry is not None:
        found["x-should-retry"] = "true" if error.should_retry else "false"
    if isinstance(error, UpstreamError):
        found.update(error.headers)
    if error.status == 401:
        found["www-authenticate"] = 'Bearer realm="comporta"'  # RFC 9110, 11.6.1
    if isinstance(error, MethodNotAllowed):
        found["allow"] = ", ".join(error.allowed)
    return found


def no_http(status: int) -> ClientError:
    """For bytes that are no HTTP request."""
    code = {413: "request_too_large", 414: "uri_too_long", 431: "headers_too_large"}.get(status, "bad_request")
    return ClientError("The request is not valid HTTP, or its head is too large.", status=status, code=code)


def unknown_route(path: str, allowed: tuple[str, ...]) -> ClientError:
    """404 for a path that is not in the table, 405 for a method that its path does not take."""
    if allowed:
        return MethodNotAllowed(allowed)
    return ClientError(f"There is no {path[:200]!r} here.", status=404, code="unknown_url")
