"""Where a provider is, and connections to it: to that of its addresses which takes them."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections import Counter
from collections.abc import Callable

from proxy.core.errors import UpstreamError
from proxy.transport.addresses import PinnedResolver, PrivateAddress
from proxy.transport.client import REFUSES, translate
from proxy.transport.connection import Connection

#: How long an address is believed, and how long a name that does not resolve, in seconds.
_ADDRESS_LASTS = 10.0
_NO_ADDRESS_LASTS = 2.0

#: How old an address may become while the name is being looked up again, or no name server answers, in seconds. RFC 8767 says why.
_ADDRESS_SERVES = 60.0

#: How long an address is dialled before the next one is beside it, in seconds. RFC 8305, 5, has 0.25, and at most 2, for TCP alone; here
#: TLS is part of it, which takes another round trip or two.
_HEAD_START = 0.5

Address = tuple[str, int]
Addresses = list[Address]


class Dialler:
    """Opens connections to one origin, an `https` one where there is `tls`; `make` makes what listens on them."""

    def __init__(
        self, host: str, port: int, *, tls: ssl.SSLContext | None, resolver: PinnedResolver, make: Callable[[], Connection]
    ) -> None:
        self._host = host
        self._port = port
        self._tls = tls
        self._resolver = resolver
        self._make = make
        self._addresses: Addresses | UpstreamError = []
        self._addresses_until = 0.0
        self._serves_until = 0.0
        self._lookup: asyncio.Future[None] | None = None

    async def dial(self) -> Connection:
        """A connection on which nothing has been said. Raises UpstreamError: where several addresses failed, what the last one did."""
        addresses = await self._resolve()
        if len(addresses) != 1:
            return await self._race(addresses)
        return await self._connect(*addresses[0])

    async def _race(self, addresses: Addresses) -> Connection:
        """The first connection that is made. The next address is dialled when one has failed, or has had its head start."""
        running: dict[asyncio.Task[Connection], int] = {}
        begun = 0
        failure = UpstreamError("dns", "The provider's host name has no address.", reached=False)
        try:
            while True:
                if begun < len(addresses):
                    running[asyncio.ensure_future(self._connect(*addresses[begun]))] = begun
                    begun += 1
                if not running:
                    raise failure
                patience = _HEAD_START if begun < len(addresses) else None
                done, _ = await asyncio.wait(running, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                for task in sorted(done, key=running.__getitem__):
                    try:
                        connection = _silent(task.result())  # it may have spoken since
                    except UpstreamError as error:
                        failure = error
                        del running[task]
                    else:
                        self._prefer(addresses, running.pop(task))
                        return connection
        finally:
            for task in running:
                task.cancel()
                task.add_done_callback(_discard)

    def _prefer(self, addresses: Addresses, place: int) -> None:
        """The address at `place` has won: those before it go to the end, until the name is looked up again."""
        if place and self._addresses is addresses:
            self._addresses = addresses[place:] + addresses[:place]

    async def _connect(self, address: str, family: int) -> Connection:
        connection = self._make()
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: connection,
                address,
                self._port,
                family=family,
                flags=socket.AI_NUMERICHOST,
                ssl=self._tls,
                server_hostname=self._host if self._tls is not None else None,
            )
        except (OSError, ssl.SSLError, ValueError) as error:
            raise _dialling(error) from error
        return _silent(connection)

    # -- names --

    async def _resolve(self) -> Addresses:
        now = asyncio.get_running_loop().time()
        if self._lookup is None and now >= self._addresses_until:
            # One for all who wait: a name server that is slow is not asked by each of them.
            self._lookup = asyncio.ensure_future(self._look_up())
            self._lookup.add_done_callback(self._looked_up)
        if self._lookup is not None and now >= self._serves_until:
            await asyncio.shield(self._lookup)
        if isinstance(self._addresses, UpstreamError):
            failed = self._addresses
            raise UpstreamError(failed.kind, failed.message, detail=failed.detail, reached=False)
        return self._addresses

    def _looked_up(self, _lookup: asyncio.Future[None]) -> None:
        self._lookup = None

    async def _look_up(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            found = await self._resolver.resolve(self._host, self._port)
        except PrivateAddress:
            message = "The provider's host name resolves to a private address, which needs allow_private: true."
            self._fail(UpstreamError("dns", message, reached=False))
        except OSError as error:
            if error.errno == socket.EAI_AGAIN and loop.time() < self._serves_until:
                self._addresses_until = loop.time() + _NO_ADDRESS_LASTS
                return
            self._fail(UpstreamError("dns", "The provider's host name cannot be resolved.", detail=str(error)[:200], reached=False))
        else:
            self._addresses = interleaved([(str(entry["host"]), int(entry["family"])) for entry in found])
            self._addresses_until = loop.time() + _ADDRESS_LASTS
            self._serves_until = loop.time() + _ADDRESS_SERVES

    def _fail(self, failure: UpstreamError) -> None:
        self._addresses = failure
        self._addresses_until = asyncio.get_running_loop().time() + _NO_ADDRESS_LASTS
        self._serves_until = 0.0


def interleaved(addresses: Addresses) -> Addresses:
    """The families in turn: where no address of one leads anywhere, that is soon found out. RFC 8305, 4."""
    seen: Counter[int] = Counter()
    places: list[tuple[int, Address]] = []
    for address in addresses:
        places.append((seen[address[1]], address))
        seen[address[1]] += 1
    return [address for _, address in sorted(places, key=lambda found: found[0])]


def _silent(connection: Connection) -> Connection:
    """A connection that is still open: the loop may deliver what a provider says unasked before it lets who dialled go on."""
    if connection.closed:
        raise UpstreamError("connect_failed", REFUSES, detail="spoke or closed before it was asked", reached=False)
    return connection


def _discard(task: asyncio.Task[Connection]) -> None:
    """End what came too late."""
    if not task.cancelled() and task.exception() is None:
        task.result().abort()


def _dialling(error: BaseException) -> UpstreamError:
    """A failure to connect. Inside the TLS handshake, a lost connection is one too: no request has been sent."""
    if isinstance(error, ssl.SSLError):
        message = (
            "The provider's certificate is not valid."
            if isinstance(error, ssl.SSLCertVerificationError)
            else "A TLS connection cannot be made."
        )
        return UpstreamError("tls", message, detail=str(error)[:200], reached=False)
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return UpstreamError("overloaded", "The gateway has no file descriptor left.", retry_after=1.0, reached=False)
    failure = translate(error)
    return UpstreamError("connect_failed", REFUSES, detail=failure.detail, reached=False)
