"""What the host of an address is."""

from __future__ import annotations

import ipaddress


def is_literal(host: str) -> bool:
    """Whether it is an IP address and no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
