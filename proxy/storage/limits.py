"""What a virtual key may, as it is stored: a JSON object in which a name that is left out is no limit."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from proxy.core.errors import ClientError

_MAX_ENTRIES = 1000
_MAX_LENGTH = 200


@dataclass(frozen=True, slots=True)
class Limits:
    """See `proxy.core.call.Principal`. `addresses` are networks (`10.0.0.0/8`, `2001:db8::/32`) that the key may come from."""

    models: tuple[str, ...] | None = None
    providers: frozenset[str] | None = None
    operations: frozenset[str] | None = None
    task_types: frozenset[str] | None = None
    addresses: tuple[str, ...] | None = None
    grants: frozenset[str] = frozenset()
    may_set: frozenset[str] | None = None
    names_users: bool = False

    def encode(self) -> dict[str, Any]:
        """The stored object. Raises ClientError (400) for a name that is no name and an address that is none."""
        stored: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name == "names_users":
                stored[item.name] = bool(value)
            elif value is not None:
                stored[item.name] = _names(item.name, value if isinstance(value, tuple) else sorted(value))
        if self.addresses is not None:
            stored["addresses"] = [_network(address) for address in self.addresses]
        return stored


def decode(stored: Mapping[str, Any]) -> Limits:
    """What `Limits.encode` made. A member that this version does not know is one that it cannot enforce: raises ValueError."""
    known = {item.name: item.type for item in fields(Limits)}
    if unknown := set(stored) - set(known):
        raise ValueError(f"a key with limits that this version does not know: {min(unknown)}")
    return Limits(**{name: _decoded(str(known[name]), value) for name, value in stored.items()})


def _decoded(kind: str, value: Any) -> Any:
    if kind.startswith("tuple"):
        return None if value is None else tuple(value)
    if kind.startswith("frozenset"):
        return None if value is None else frozenset(value)
    return value


def _names(param: str, values: Iterable[str]) -> list[str]:
    found = list(values)
    if len(found) > _MAX_ENTRIES:
        raise ClientError(f"At most {_MAX_ENTRIES} entries.", param=param, code="invalid_value")
    for value in found:
        if not value or len(value) > _MAX_LENGTH or not value.isprintable():
            raise ClientError(f"A name has 1 to {_MAX_LENGTH} printable characters.", param=param, code="invalid_value")
    return found


def _network(address: str) -> str:
    try:
        return str(ipaddress.ip_network(address, strict=False))
    except ValueError:
        raise ClientError("An address is written as 192.0.2.7 or 192.0.2.0/24.", param="addresses", code="invalid_value") from None
