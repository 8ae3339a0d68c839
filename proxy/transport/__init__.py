"""Bytes to and from providers: our own connections over httptools' parser; aiohttp's client where there is a proxy."""

from proxy.transport.addresses import PinnedResolver, is_public
from proxy.transport.client import TRANSLATIONS, ClientResponse, ClientTransport, flatten, translate
from proxy.transport.connection import Connection
from proxy.transport.pool import PooledTransport

__all__ = [
    "TRANSLATIONS",
    "ClientResponse",
    "ClientTransport",
    "Connection",
    "PinnedResolver",
    "PooledTransport",
    "flatten",
    "is_public",
    "translate",
]
