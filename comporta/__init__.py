"""The front door: the names that providers, policies and applications from outside are written against. It holds no logic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from proxy import __version__
from proxy.core.call import ANONYMOUS, Attempt, Call, Credential, Principal, Target, Timeouts, Usage
from proxy.core.errors import CapacityError, ClientDisconnected, ClientError, GatewayError, StreamError, UpstreamError
from proxy.core.protocols import (
    Clock,
    Handler,
    LLMProvider,
    Policy,
    ResponseHead,
    Services,
    StreamDecoder,
    Transport,
    UpstreamRequest,
    UpstreamResponse,
)
from proxy.core.reply import Reply
from proxy.core.retry_after import parse_retry_after
from proxy.core.sse import Event, EventDecoder, ProtocolError

if TYPE_CHECKING:
    from providers.settings import NetworkSettings
    from proxy.fields import Duration, SecretRef, Section, Size

__all__ = [
    "ANONYMOUS",
    "Attempt",
    "Call",
    "CapacityError",
    "ClientDisconnected",
    "ClientError",
    "Clock",
    "Credential",
    "Duration",
    "Event",
    "EventDecoder",
    "GatewayError",
    "Handler",
    "LLMProvider",
    "NetworkSettings",
    "Policy",
    "Principal",
    "ProtocolError",
    "Reply",
    "ResponseHead",
    "SecretRef",
    "Section",
    "Services",
    "Size",
    "StreamDecoder",
    "StreamError",
    "Target",
    "Timeouts",
    "Transport",
    "UpstreamError",
    "UpstreamRequest",
    "UpstreamResponse",
    "Usage",
    "__version__",
    "parse_retry_after",
]

_SETTINGS = ("Duration", "NetworkSettings", "SecretRef", "Section", "Size")


def __getattr__(name: str) -> Any:
    """What settings are made of brings pydantic, which a command's help can do without: it is loaded for who asks first."""
    if name not in _SETTINGS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from providers import settings
    from proxy import fields

    found = globals()[name] = getattr(settings if name == "NetworkSettings" else fields, name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_SETTINGS})
