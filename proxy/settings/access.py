"""Who may use the data plane, as the sections say it together."""

from __future__ import annotations

import ipaddress

from proxy.core.hosts import is_literal
from proxy.settings.discovery import is_loopback_name
from proxy.settings.model import Settings

_POLICY = "authenticate"


def is_said_open(settings: Settings) -> bool:
    """Whether the configuration says in so many words that nobody needs a key."""
    section = settings.policies.get(_POLICY)
    return section is False or getattr(section, "open", None) is True


def is_open(settings: Settings, *, exposed: bool | None = None) -> bool:
    """Whether clients without a key are served. Unless it is said, only where no other machine can come.

    `exposed` says whether others can; None: as the address in the configuration has it.
    """
    said = getattr(settings.policies.get(_POLICY), "open", None)
    if is_said_open(settings) or said is not None:
        return is_said_open(settings)
    return not (is_exposed(settings) if exposed is None else exposed)


def is_exposed(settings: Settings) -> bool:
    """Whether the address of the data plane can be reached from other machines."""
    host = settings.server.address.host
    return not (ipaddress.ip_address(host).is_loopback if is_literal(host) else is_loopback_name(host))


def needs_storage(settings: Settings, *, exposed: bool | None = None) -> bool:
    """Whether there is anything to be kept for good: keys are asked for, storage is configured, or a provider's key is stored."""
    return settings.storage is not None or bool(stored_credentials(settings)) or not is_open(settings, exposed=exposed)


def stored_credentials(settings: Settings) -> dict[str, list[str]]:
    """The credentials that `store:NAME` refers to, by name, each with the providers that use it."""
    found: dict[str, list[str]] = {}
    for provider, section in settings.providers.items():
        for reference in dict.fromkeys(getattr(section, "references", ())):
            scheme, _, name = reference.partition(":")
            if scheme == "store":
                found.setdefault(name, []).append(provider)
    return found
