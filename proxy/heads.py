"""What is read of the head of a provider's answer, and what of it the client may see."""

from __future__ import annotations

import re

from proxy.core.call import Call
from proxy.core.hiding import shows
from proxy.core.protocols import UpstreamResponse
from proxy.core.reply import PROVIDER_REQUEST_ID
from proxy.core.sse import is_event_type
from proxy.download import ADDED, location_of
from proxy.download import SHOWN as SHOWN_OF_DOWNLOADS

#: What a provider says of its rate limits: clients pace themselves by it, most of all when it has refused one. OpenAI has them of requests
#: and of tokens; others of nothing in particular (OpenRouter), a minute's or a day's (Mistral, Cerebras), a prompt's (Fireworks).
_RATE_LIMIT = re.compile(r"x-(?:ratelimit|tokenlimit)-(?:limit|remaining|reset)(?:-[a-z-]+)?")

_SHOWN = frozenset(
    (
        "content-type",
        "content-disposition",
        "content-range",
        "accept-ranges",
        "openai-processing-ms",
        "openai-version",
        "openai-model",
        "openai-poll-after-ms",  # how long to wait before asking again: official SDKs that poll go by it
        "retry-after",
        "retry-after-ms",
    )
)

#: By which a provider finds a request again.
_REQUEST_ID = "x-request-id"

#: What a provider may call a thing that was made.
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,255}")


def is_rate_limit(name: str) -> bool:
    return _RATE_LIMIT.fullmatch(name) is not None


def shown_as(name: str) -> str | None:
    """What a header of the provider's is called to the client, None where it may not see it; `name` is in lower case."""
    if name == _REQUEST_ID:
        return PROVIDER_REQUEST_ID
    return name if name in _SHOWN or is_rate_limit(name) else None


def media_type(response: UpstreamResponse) -> str:
    """With its parameters, in lower case: it is the same in any (RFC 9110, 8.3.1)."""
    return response.headers.get("content-type", "").lower()


def is_event_stream(response: UpstreamResponse) -> bool:
    return is_event_type(media_type(response))


def shown_of_download(response: UpstreamResponse) -> dict[str, str]:
    """What of a file content's headers the client may see."""
    headers = {}
    for name, value in response.headers.items():
        told = name if name in SHOWN_OF_DOWNLOADS else shown_as(name)
        if told is not None:
            headers[told] = value
    headers.update(ADDED)
    return headers


def shown_of_failure(response: UpstreamResponse) -> dict[str, str]:
    """What of the headers of an answer that failed the client may see: how the provider calls it, and its rate limits."""
    headers = response.headers
    shown = {name: value for name, value in headers.items() if is_rate_limit(name)}
    if _REQUEST_ID in headers:
        shown[PROVIDER_REQUEST_ID] = headers[_REQUEST_ID]
    return shown


def made_at(call: Call, response: UpstreamResponse) -> str | None:
    """Where here lies what a call has made, below the path that it was made at; None if that is not said, or not so.

    Of a call of the realtime API nothing else says its id. The host, and what stands before that path there, are the provider's own.
    """
    before, _, name = response.headers.get("location", "").partition("?")[0].rpartition("/")
    credential = call.target.credential if call.target is not None else None
    if not before.endswith(call.path) or not _NAME.fullmatch(name) or (credential is not None and shows(name, credential.secret)):
        return None
    return f"/v1{call.path}/{name}"


def redirect(call: Call, response: UpstreamResponse) -> dict[str, str] | None:
    """The headers of an answer that says where a file lies, without its body's; None if the client may not be told."""
    credential = call.target.credential if call.target is not None else None
    location = location_of(response.headers, credential.secret if credential is not None else "")
    if location is None:
        return None
    headers = shown_of_download(response)
    for name in ("content-type", "content-disposition", "content-range"):
        headers.pop(name, None)
    headers["location"] = location
    return headers
