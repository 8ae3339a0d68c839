"""The shape of the configuration. A provider's and a policy's sections stand beside the class that they configure."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field, SerializeAsAny, WithJsonSchema

from proxy.fields import Duration, SecretRef, Section, Size
from proxy.settings.cors import CorsSettings
from proxy.settings.credentials import CredentialSettings
from proxy.settings.health import HealthSettings
from proxy.settings.llm import LlmSettings
from proxy.settings.models import ModelEntry, ModelTargets
from proxy.settings.storage import StateSettings, StorageSettings

#: The name of the provider that is there without being configured, and the kind that it has.
SIMULATED = "sim"

#: Whoever asks over a Unix socket, among networks.
LOCAL = "local"

#: Bytes of a body that is passed on and never held, if nobody says otherwise: OpenAI's own limit for one file.
_MOST_UPLOADED = 512 * 2**20

_ADDRESS = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>\d{1,5})")


class Address(NamedTuple):
    """Where to listen. Port 0 is any free one."""

    host: str
    port: int


def parse_address(text: str) -> Address:
    """`"127.0.0.1:8080"` or `"[::1]:8080"`. Raises ValueError."""
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match["port"]) > 65535:
        raise ValueError('wants HOST:PORT, such as "127.0.0.1:8080", "[::1]:8080", or "0.0.0.0:8080" for every interface')
    return Address(match["v6"] or match["host"], int(match["port"]))


def _address(text: str) -> str:
    parse_address(text)
    return text


def _proxy(text: str) -> str:
    if text != LOCAL and not ipaddress.ip_network(text, strict=False).prefixlen:
        raise ValueError("would believe everybody: name the networks that your proxies are in")
    return text


AddressText = Annotated[str, AfterValidator(_address), Field(examples=["127.0.0.1:8080", "[::1]:8080"])]
ProxyText = Annotated[str, AfterValidator(_proxy), Field(examples=["10.0.0.0/8", "2001:db8::/32", "local"])]
Positive = Annotated[Duration, Field(gt=0)]
NotNegative = Annotated[Duration, Field(ge=0)]


def _pem(value: Any) -> Any:
    if isinstance(value, str) and value.removeprefix("file:") not in ("", value):
        return value
    raise ValueError('wants a file, as "file:PATH"')


PemFile = Annotated[str, BeforeValidator(_pem), WithJsonSchema({"type": "string", "pattern": r"^file:.+"})]


class TlsSettings(Section):
    """The certificate that the data plane shows; without this section it speaks plain HTTP."""

    certificate: PemFile = Field(description='PEM file with the certificate and its chain, as "file:PATH"')
    key: PemFile = Field(description='PEM file with the private key, as "file:PATH"; only its owner may read it')

    @property
    def paths(self) -> dict[str, Path]:
        """The two files by the key that names them; relative ones are relative to where the process was started."""
        written = {"certificate": self.certificate, "key": self.key}
        return {name: Path(reference.removeprefix("file:")).expanduser() for name, reference in written.items()}


class ServerSettings(Section):
    """Where the gateway listens and how much it takes from its clients."""

    listen: AddressText = Field("127.0.0.1:8080", description="address of the data plane, HOST:PORT; port 0 is any free one")
    admin_listen: AddressText = Field("127.0.0.1:8081", description="address of the admin plane (/metrics), HOST:PORT")
    admin_key: SecretRef | None = Field(
        None,
        description="the administrator's key, by reference; without one the admin plane can only listen on loopback",
        pattern="^(env|file|keyring):",
    )
    workers: int = Field(1, description="processes that serve; more than 1 run under a supervisor", ge=1, le=256)
    worker_timeout: Annotated[Duration, Field(ge=2)] = Field(
        30.0, description="a worker whose event loop does not move for so long is killed and another started; it is asked once a second"
    )
    watch: bool = Field(False, description="read the configuration again when its file has changed, as SIGHUP does")
    grace: NotNegative = Field(30.0, description="how long running requests may go on after SIGTERM")
    drain_delay: NotNegative = Field(
        0.0, description="how long after SIGTERM connections are still taken while /readyz says 503, so that load balancers look elsewhere"
    )
    max_body: Size = Field(32 * 2**20, description="largest request body that is read whole (JSON); more is answered with 413", gt=0)
    max_upload: Size | None = Field(
        None,
        description="largest body that is passed on as it comes (forms, files); absent: max_body where that is written, else 512MiB",
        gt=0,
    )
    tls: TlsSettings | None = Field(None, description="certificate and key of the data plane; absent: plain HTTP")
    cors: CorsSettings | None = Field(None, description="pages in browsers that may read answers; absent: none")
    ping: NotNegative = Field(10.0, description='silence in an event stream after which a comment ": ping" is sent; "0s" is never')
    header_timeout: Positive = Field(10.0, description="how long a client may take to send the head of a request")
    body_timeout: Positive = Field(
        15.0,
        description="how long a client may pause while it sends a body; the whole may take four times as long, and a second more per 4 KiB",
    )
    write_timeout: Positive = Field(30.0, description="how long a client may take none of an answer that waits for it")
    keep_alive: NotNegative = Field(75.0, description="how long an idle connection of a client stays open")
    max_connections: int = Field(65536, description="connections of all clients together", ge=1)
    max_connections_per_address: int = Field(
        16384, description="connections from one client address; trusted proxies may have any number of them", ge=1
    )
    trusted_proxies: tuple[ProxyText, ...] = Field(
        (),
        description="networks of proxies whose X-Forwarded-For or Forwarded is believed; local: whoever asks over a Unix socket",
    )
    max_in_flight: int = Field(20_000, description="requests that are being answered at once; more are answered with 503", ge=1)
    recent_requests: int = Field(
        1000,
        description="requests that each process keeps the facts of, so that /admin/requests can explain them; 0 is none",
        ge=0,
        le=100_000,
    )
    max_memory: Size | None = Field(
        None, description="resident memory of a process above which new requests are answered with 503; absent: no limit", gt=0
    )

    @property
    def largest_upload(self) -> int:
        """Bytes. Who bounds bodies and does not speak of uploads means them, too."""
        if self.max_upload is not None:
            return self.max_upload
        return self.max_body if "max_body" in self.model_fields_set else _MOST_UPLOADED

    @property
    def address(self) -> Address:
        return parse_address(self.listen)

    @property
    def admin_address(self) -> Address:
        return parse_address(self.admin_listen)


class Settings(Section):
    """The whole configuration. Everything has a default."""

    server: ServerSettings = Field(default_factory=ServerSettings, description="listening, limits and time-outs towards clients")
    sim: bool = Field(True, description="whether the simulated provider named `sim` is there without being listed")
    default_provider: str | None = Field(
        None, description="serves model names that no table lists, and routes that name no model; left out: the first listed provider"
    )
    providers: dict[str, SerializeAsAny[Section]] = Field(default_factory=dict, description="a name of yours -> one upstream account")
    models: dict[str, ModelEntry | ModelTargets] | None = Field(
        None, description="public model name -> who serves it; without the section every name goes to the default provider"
    )
    credentials: CredentialSettings = Field(
        default_factory=CredentialSettings, description="where keys of providers that the gateway keeps itself are, encrypted"
    )
    health: HealthSettings = Field(default_factory=HealthSettings, description="how often providers are checked, and what follows")
    llm: LlmSettings | None = Field(None, description="which model, time limit, retries and parameters hold, by task type and user")
    storage: StorageSettings | None = Field(
        None, description="where users, keys and preferences are; without the section there is storage only where clients need keys"
    )
    state: StateSettings = Field(default_factory=StateSettings, description="what several gateways share while they run")
    policies: dict[str, SerializeAsAny[Section] | Literal[False]] = Field(
        default_factory=dict, description="a policy's name -> its settings, or false for off; absent: the policy's default"
    )


SECTIONS = tuple(Settings.model_fields)
