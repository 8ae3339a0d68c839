"""What every provider that is reached over the network can be told."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from proxy.core.call import Timeouts
from proxy.fields import Duration, SecretRef, Section, Size


def _base_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError('it is no address; write it whole, such as "https://api.openai.com/v1"')
    if value.split() != [value]:
        raise ValueError("there is a blank in it")
    if not _is_host_name(parts.hostname):
        raise ValueError("its host name is none: each part between its dots has 1 to 63 characters")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("no user, password, query or fragment belongs into base_url; the key goes into api_key, as a reference")
    return value.rstrip("/")


def _is_host_name(host: str) -> bool:
    """Whether a name server could be asked for it (RFC 5890)."""
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return True


def _proxy(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme != "http" or not parts.hostname or parts.port == 0:
        raise ValueError('it is no address of an HTTP proxy, such as "http://10.0.0.1:3128"')
    return value


BaseURL = Annotated[str, AfterValidator(_base_url)]


class PoolSettings(Section):
    """Connections to one provider."""

    connections: int = Field(16384, ge=1, description="most connections that are open at once; further requests wait")
    keep_alive: Duration = Field(60.0, description="how long an idle connection is kept")


#: Seconds for which a provider is waited for where nobody says anything. Models that reason are silent for minutes, and the common clients
#: bear it directly at the provider: OpenAI's own wait for ten minutes or longer, others without an end.
_WAITED = 600.0


class TimeoutSettings(Section):
    """How long to wait for one provider."""

    connect: Duration = Field(5.0, gt=0, description="name resolution, TCP and TLS")
    first_token: Annotated[Duration, Field(gt=0)] | None = Field(
        None,
        description="from sending to the first content; if unset, as long as the client says that it waits for a byte, or of streams "
        '"10m". Set, it also bounds the first byte of whole answers',
    )
    idle: Annotated[Duration, Field(gt=0)] | None = Field(
        None,
        description='between two contents; if unset, as long as the client says that it waits for a byte, or "10m". '
        "Set, comments and pings do not count",
    )
    total: Annotated[Duration, Field(gt=0)] | None = Field(
        None,
        description='the whole attempt; if unset, "10m", or as long as first_token, the time of the whole request or what the client says, '
        "for what comes whole or has not begun, while what flows is bounded by idle alone",
    )
    min_tokens_per_second: float | None = Field(
        None, description="what a stream must bring from its first content on, or it is ended as if it were silent", gt=0
    )
    window: Duration = Field(30.0, description="how long a stream may be slower than that", gt=0)

    def decided(self, *, stream: bool) -> Timeouts:
        first = self.first_token if self.first_token is not None else _WAITED if stream else None
        idle = self.idle if self.idle is not None else _WAITED
        # A default cuts nothing short that somebody has set.
        total = self.total if self.total is not None else max(_WAITED, self.first_token or 0.0)
        unset = frozenset(name for name in ("first_token", "idle", "total") if getattr(self, name) is None)
        return Timeouts(self.connect, first, idle, total, self.min_tokens_per_second, self.window, unset)


class LimitSettings(Section):
    """What an answer may measure before it is cut off."""

    body: Size = Field(64 * 2**20, gt=0, description="a whole answer")
    header: Size = Field(64 * 2**10, gt=0, description="an answer's headers")
    # An image in base64, or the last event of an answer that repeats several, is one event.
    event: Size = Field(32 * 2**20, gt=0, description="one event of a stream")


class NetworkSettings(Section):
    """One upstream account, whatever its dialect."""

    base_url: BaseURL = Field(description="where it is, up to and with its version, such as /v1")
    api_key: SecretRef | None = Field(None, description="its key, by reference")
    api_keys: tuple[SecretRef, ...] = Field((), description="several keys, used in turn")
    headers: dict[str, str] = Field(
        default_factory=dict,
        description="further headers for every request; Host: who is asked at base_url, whose certificate stays that of its own host",
    )
    pool: PoolSettings = Field(default_factory=PoolSettings, description="connections")
    timeouts: TimeoutSettings = Field(default_factory=TimeoutSettings, description="patience")
    limits: LimitSettings = Field(default_factory=LimitSettings, description="sizes of answers")
    proxy: Annotated[str, AfterValidator(_proxy)] | None = Field(
        None, description="an HTTP proxy to go through, such as http://10.0.0.1:3128", pattern="^http://"
    )
    ca: str | None = Field(None, description="a PEM file of certificate authorities to trust instead of the system's")
    health: bool = Field(True, description="whether it is checked as the section health says; false for one that has no list of models")
    allow_private: bool = Field(False, description="let a host name resolve to a private or loopback address")

    @property
    def references(self) -> tuple[str, ...]:
        """The references of its keys, in the order of use."""
        return ((self.api_key,) if self.api_key else ()) + self.api_keys
