"""What a provider's error means, whether it comes as a status, inside a 200, or as an event."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import islice
from typing import Any

import orjson

from providers.openai.value import beginning_of, lenient_value_of
from proxy.core.errors import UPSTREAM_KINDS, UpstreamError
from proxy.core.retry_after import parse_retry_after
from proxy.core.sse import EventDecoder

_LONGEST_MESSAGE = 4000

#: So many events of a refusal are read: what comes behind more of them is no refusal.
_MOST_EVENTS = 32

#: What else of a refusal's error object says what the client must change: what the model wrote (Groq), which filter it was (Azure), what
#: a policy found, or what of a picture was blocked at which stage (OpenAI), how long the prompt is and how long it may be (llama.cpp),
#: whose refusal it is and in what words (OpenRouter), which field or quota it is (Google).
_MORE = (
    "failed_generation",
    "innererror",
    "content_filters",
    "misalignment",
    "moderation_details",
    "n_prompt_tokens",
    "n_ctx",
    "metadata",
    "details",
)

#: Of these, the longest that is passed on, in bytes of JSON.
_LONGEST_MORE = 16 * 1024

#: Kinds that have them.
_REFUSALS = frozenset({"rejected", "rate_limit_exceeded", "insufficient_quota"})

#: A code goes into the record: it must be a word, not a provider's prose.
_CODE = re.compile(r"[A-Za-z0-9_.:-]{1,64}")

#: What a failed response says of the images in its request. Source: `ResponseErrorCode` of OpenAI's published API.
_OF_IMAGES = (
    "invalid_image",
    "invalid_image_format",
    "invalid_base64_image",
    "invalid_image_url",
    "image_too_large",
    "image_too_small",
    "image_parse_error",
    "invalid_image_mode",
    "image_file_too_large",
    "unsupported_image_media_type",
    "empty_image_file",
    "failed_to_download_image",
    "image_file_not_found",
)

#: Types and codes, of which one says that no money is left. The second is MiniMax's.
#: Source: https://developers.openai.com/api/docs/guides/error-codes
_NO_QUOTA = frozenset(
    {
        "insufficient_quota",
        "insufficient_balance_error",
        "billing_hard_limit_reached",
        "billing_not_active",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
        "project_spend_limit_exceeded",
    }
)

#: An error object's `code` or `type` -> the kind of failure it is and its status.
_BY_CODE: dict[str, tuple[str, int]] = {
    "rate_limit_exceeded": ("rate_limit_exceeded", 429),
    "rate_limit_error": ("rate_limit_exceeded", 429),
    "slow_down": ("rate_limit_exceeded", 429),
    "requests": ("rate_limit_exceeded", 429),
    "tokens": ("rate_limit_exceeded", 429),
    **dict.fromkeys(_NO_QUOTA, ("insufficient_quota", 429)),
    "overloaded": ("overloaded", 503),
    "capacity_exceeded": ("overloaded", 503),
    "overloaded_error": ("overloaded", 503),
    "server_is_overloaded": ("overloaded", 503),
    "service_unavailable": ("server_error", 503),
    "invalid_api_key": ("provider_auth", 502),
    "authentication_error": ("provider_auth", 502),
    "permission_error": ("provider_auth", 502),
    "context_length_exceeded": ("rejected", 400),
    "content_policy_violation": ("rejected", 400),
    "content_filter": ("rejected", 400),
    "invalid_request_error": ("rejected", 400),
    "model_not_found": ("rejected", 404),
    "not_found_error": ("rejected", 404),
    "invalid_prompt": ("rejected", 400),
    "bio_policy": ("rejected", 400),
    "cyber_policy": ("rejected", 400),
    "misalignment_policy_violation": ("rejected", 400),
    "data_residency_mismatch": ("rejected", 400),
    "image_content_policy_violation": ("rejected", 400),
    "moderation_blocked": ("rejected", 400),
    "image_generation_user_error": ("rejected", 400),
    **dict.fromkeys(_OF_IMAGES, ("rejected", 400)),
    "timeout": ("upstream_timeout", 504),
    "vector_store_timeout": ("server_error", 500),
    "server_error": ("server_error", 500),
    "internal_server_error": ("server_error", 500),
    "api_error": ("server_error", 500),
}

#: What MiniMax's numbers for errors are as a status. Source: https://platform.minimax.io/docs/api-reference/errorcode
_OF_MINIMAX = {1001: 504, 1002: 429, 1004: 401, 1008: 429, 1026: 400, 1027: 400}

#: Where the words of an error stand that has no object of its own.
_WORDS = ("message", "detail", "Message", "msg")

#: "Payment Required": as DeepSeek and OpenRouter say it.
#: Sources: https://api-docs.deepseek.com/quick_start/error_codes, https://openrouter.ai/docs/api-reference/errors
_UNPAID = 402

#: Says that the client has left. Ours has not: it is the provider's failure. Source: `CANCELLED` in `google/rpc/code.proto`.
_LEFT = 499

#: Groq's for no capacity, which it says to try again. Source: https://console.groq.com/docs/errors
_NO_CAPACITY = 498

_TYPES = {404: "invalid_request_error", 429: "requests"}


def error_of_status(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """The error of an answer outside 2xx; rows 11-18 of docs/faults.md."""
    fields = _fields(body) or _in_events(body) or _plain(status, headers, body)
    hint = parse_retry_after(headers)
    return _of_status(status, fields, _delay(fields) if hint is None else hint)


def _of_status(status: int, fields: Mapping[str, Any], retry_after: float | None) -> UpstreamError:
    """The same of an error object, `fields`, wherever the status came from."""
    if status in (401, 403):
        # The gateway's credential was refused, not the client's: the provider's words (which may hold part of a key) stay here.
        return UpstreamError("provider_auth", "The provider refused the gateway's credential.", detail=f"status {status}")
    if status == _UNPAID or (400 <= status < 500 and _says(fields, _NO_QUOTA)):
        return _made("insufficient_quota", status, fields, retry_after, "The gateway's account at the provider has no quota left.")
    if status == 429:
        return _made("rate_limit_exceeded", 429, fields, retry_after, "The provider's rate limit was reached.")
    if status in (_NO_CAPACITY, 503, 529):
        said = f"{fields.get('type')} {fields.get('code')}"
        kind = "overloaded" if status != 503 or "overloaded" in said else "server_error"
        return _made(kind, 503, fields if status == 503 else {}, retry_after, "The provider is overloaded.")
    if 400 <= status < 500 and status not in (408, _LEFT):
        return _made("rejected", status, fields, retry_after, "The provider refused the request.")
    if status == 408:
        return _made("upstream_timeout", 504, {}, retry_after, "The provider timed out.")
    if status == 504:
        return _made("upstream_timeout", 504, fields, retry_after, "The provider timed out.")
    if status in (500, 502):
        return _made("server_error", status, fields, retry_after, "The provider failed.")
    if status > 500 or status == _LEFT:
        return _made("server_error", 502, fields, retry_after, "The provider failed.")
    error = UpstreamError("bad_upstream", "The provider answered with a status that means nothing here.", detail=f"status {status}")
    error.should_retry = False  # a redirect leads to the same place tomorrow
    return error


def _says(fields: Mapping[str, Any], words: frozenset[str]) -> bool:
    """Whether the code or the type is one of them."""
    return any(isinstance(fields.get(name), str) and fields[name] in words for name in ("code", "type"))


def error_in_body(error: Any, *, of_response: bool = False) -> UpstreamError:
    """The error of an `error` member inside a 200, or of an event; rows 24-26 of docs/faults.md.

    A response that failed (`of_response`) with a code that is not known here is taken for refused as the codes that OpenAI has added were:
    of a failure of its own a server says `server_error`.
    """
    fields = error if isinstance(error, dict) else {"message": error if isinstance(error, str) else None}
    for name in ("code", "type"):
        value = fields.get(name)
        if isinstance(value, str) and value in _BY_CODE:
            kind, status = _BY_CODE[value]
            return _made(kind, status, fields if kind != "provider_auth" else {}, None, "The provider failed.")
    for name in ("code", "status", "http_status_code"):  # the last is of Text Generation Inference
        value = fields.get(name)
        if isinstance(value, str) and len(value) == 3 and value.isascii() and value.isdigit():
            value = int(value)
        if isinstance(value, int) and 400 <= value < 600:
            return _of_status(value, fields, _delay(fields))
    is_worded = of_response and _worded(fields.get("code")) is not None
    return _made("response_failed" if is_worded else "server_error", 502, fields, None, "The provider failed.")


def error_beside_success(value: Mapping[str, Any]) -> UpstreamError | None:
    """The error of a 200 without an answer that says so as MiniMax's own API does, in `base_resp`; None where that says nothing."""
    said = value.get("base_resp")
    number = said.get("status_code") if isinstance(said, dict) else None
    if not isinstance(number, int) or not number:
        return None
    fields = _of_base_resp(said)
    return _of_status(_OF_MINIMAX.get(number, 500), fields, None)


def _of_base_resp(said: Any) -> dict[str, Any]:
    if not isinstance(said, dict) or not said.get("status_msg"):
        return {}
    return {"message": said["status_msg"], "type": "insufficient_balance_error" if said.get("status_code") == 1008 else None}


def _made(kind: str, status: int, fields: Mapping[str, Any], retry_after: float | None, default: str) -> UpstreamError:
    message = _text(fields.get("message"))
    type_ = fields.get("type")
    code = fields.get("code")
    param = fields.get("param")
    error = UpstreamError(
        kind,
        message[:_LONGEST_MESSAGE] or default,
        status=status,
        type=type_ if isinstance(type_, str) and type_ else _TYPES.get(status) or UPSTREAM_KINDS[kind][1],
        code=_worded(code) or _code(kind, status),
        param=param if isinstance(param, str) else None,
        retry_after=retry_after,
    )
    if kind == "rejected" and code is None and "code" in fields:
        # The provider's word on the client's request, and it said that there is none.
        error.code = None
    if kind in _REFUSALS:
        error.more = _more(fields)
    return error


def _more(fields: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    for name in _MORE:
        if fields.get(name):
            try:
                text = orjson.dumps(fields[name])
            except orjson.JSONEncodeError:  # it is too deep
                continue
            if len(text) <= _LONGEST_MORE:
                found[name] = text.decode()
    return found


def _delay(fields: Mapping[str, Any]) -> float | None:
    """The hint in the details of an error of Google's, such as `"34.07s"`. Source: RetryInfo in `google/rpc/error_details.proto`."""
    details = fields.get("details")
    for each in details if isinstance(details, list) else ():
        delay = each.get("retryDelay") if isinstance(each, dict) else None
        if isinstance(delay, str) and delay[-1:] == "s":
            return parse_retry_after({"retry-after": delay[:-1]})
    return None


def _worded(code: Any) -> str | None:
    is_code = isinstance(code, (str, int)) and not isinstance(code, bool) and _CODE.fullmatch(str(code))
    return str(code) if is_code else None


def _code(kind: str, status: int) -> str:
    if kind != "rejected":
        return kind
    return {404: "not_found", 409: "conflict", 413: "request_too_large", 422: "unprocessable_entity"}.get(status, "invalid_request")


def _fields(body: bytes) -> dict[str, Any]:
    """The error object of a body in any of the shapes that OpenAI-compatible servers use; empty for HTML, text and nonsense.

    Google's endpoint wraps it in a list; FastAPI's servers (vLLM, Mistral) say `detail`; Cloudflare has a list of `errors`; gateways of AWS
    say `Message`, servers in Go often `msg`, MiniMax's own API `base_resp`.
    """
    try:
        value = _value_of(body)
    except ValueError:
        return {}
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, dict):
        return {}
    message = next((value[name] for name in _WORDS if value.get(name)), None)
    error = value.get("error") or (None if message else value.get("errors"))
    if isinstance(error, list) and len(error) == 1:
        error = error[0]
    if isinstance(error, dict):
        return error
    if error and isinstance(error, (str, list)):
        return {"message": error, **{name: value[name] for name in ("type", "code") if value.get(name)}}
    if _text(message):
        return {"message": message, "type": value.get("type"), "code": value.get("code")}
    return _of_base_resp(value.get("base_resp"))


def _in_events(body: bytes) -> dict[str, Any]:
    """The error object of a body that is sent as events, since a stream was asked for."""
    decoder = EventDecoder()
    events = [event.data for event in decoder.feed(body)]
    return next(filter(None, map(_fields, islice((*events, decoder.eof()), _MOST_EVENTS))), {})


def _value_of(body: bytes) -> Any:
    """Of a body that was not read to its end, as one that repeats a long request, what its beginning says. Raises ValueError."""
    try:
        return lenient_value_of(body)
    except ValueError:
        return beginning_of(body)


def _plain(status: int, headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """The words of a body that is no object. Of a 5xx they may be a trace, or those of whoever stands before the provider."""
    if status >= 500 or not headers.get("content-type", "").lower().startswith("text/plain"):
        return {}
    try:
        text = body.decode().strip()
    except UnicodeDecodeError:
        return {}
    return {} if text.startswith("<") else {"message": text}


def _text(message: Any) -> str:
    """A message as text: FastAPI's list of what is wrong where as `where: what; ...`, anything else that is none as its JSON."""
    if isinstance(message, dict) and set(message) == {"detail"}:
        message = message["detail"]
    if not message or isinstance(message, str):
        return message or ""
    if isinstance(message, list) and all(isinstance(each, dict) and isinstance(each.get("msg"), str) for each in message):
        return "; ".join(map(_wrong, message))
    try:
        return orjson.dumps(message).decode()
    except orjson.JSONEncodeError:  # it is too deep
        return ""


def _wrong(each: dict[str, Any]) -> str:
    where = each.get("loc")
    path = ".".join(map(str, where)) if isinstance(where, list) else ""
    return f"{path}: {each['msg']}" if path else str(each["msg"])
