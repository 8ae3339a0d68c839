"""Bytes to and from providers: both transports over real loopback sockets, and the one place where foreign errors become ours."""

from __future__ import annotations

import asyncio
import gc
import gzip
import inspect
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import client_exceptions, http_exceptions
from aiohttp.client_reqrep import ConnectionKey
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from proxy.core.call import Content, Timeouts
from proxy.core.errors import START, TOTAL, UPSTREAM_KINDS, ClientDisconnected, ClientError, UpstreamError
from proxy.core.protocols import UNSENT, Transport, UpstreamRequest, UpstreamResponse
from proxy.http.lingering import be_reset
from proxy.transport import TRANSLATIONS, ClientTransport, PinnedResolver, PooledTransport, flatten, is_public, translate
from proxy.transport.client import AT_ONCE, may_be_sent_again
from proxy.transport.connection import Connection
from tests.fuzz.wires import Wire

PATIENCE = Timeouts(connect=2, first_token=5, idle=5, total=10)
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"

# -- foreign errors --

_KEY = ConnectionKey("host-4711", 443, True, True, None, None, None, None)
_OS = OSError(111, "refused")
_URL = URL("http://host-4711/")

#: How to make those that need more than a message.
_MADE: dict[str, Callable[[type[Any]], BaseException]] = {
    "ClientConnectorError": lambda kind: kind(_KEY, _OS),
    "ClientConnectorDNSError": lambda kind: kind(_KEY, _OS),
    "ClientProxyConnectionError": lambda kind: kind(_KEY, _OS),
    "ClientConnectorSSLError": lambda kind: kind(_KEY, _OS),
    "ClientSSLError": lambda kind: kind(_KEY, _OS),
    "UnixClientConnectorError": lambda kind: kind("/path", _KEY, _OS),
    "ClientConnectorCertificateError": lambda kind: kind(_KEY, ssl.CertificateError("bad")),
    "ServerFingerprintMismatch": lambda kind: kind(b"a", b"b", "host-4711", 443),
    "InvalidURL": lambda kind: kind("http://"),
    "NonHttpUrlClientError": lambda kind: kind("ftp://x"),
    "InvalidUrlClientError": lambda kind: kind("http://"),
    "InvalidUrlRedirectClientError": lambda kind: kind("http://"),
    "NonHttpUrlRedirectClientError": lambda kind: kind("ftp://x"),
    "LineTooLong": lambda kind: kind(b"line", 10),
    "InvalidHeader": lambda kind: kind("x"),
    "InvalidURLError": lambda kind: kind("x"),
}

#: Never raised by a client that opens no web socket.
_WEB_SOCKET = {"WSMessageTypeError", "WSServerHandshakeError"}


def _foreign() -> list[type[BaseException]]:
    found = {
        value
        for module in (client_exceptions, http_exceptions)
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, BaseException) and value.__module__.startswith("aiohttp.")
    }
    return sorted((kind for kind in found if kind.__name__ not in _WEB_SOCKET), key=lambda kind: kind.__name__)


def _made(kind: type[BaseException]) -> BaseException:
    if kind.__name__ in _MADE:
        return _MADE[kind.__name__](kind)
    if issubclass(kind, aiohttp.ClientResponseError):
        return kind(aiohttp.RequestInfo(_URL, "GET", CIMultiDictProxy(CIMultiDict())), (), message="4711")
    return kind(message="4711") if kind is http_exceptions.HttpProcessingError else kind("4711")


@pytest.mark.parametrize("kind", _foreign(), ids=lambda kind: kind.__name__)
def test_every_exception_of_aiohttps_client_becomes_ours(kind: type[BaseException]):
    error = translate(_made(kind))
    assert error.kind in UPSTREAM_KINDS
    assert "4711" not in error.message, "the foreign message is for the log"
    assert error.detail is None or error.detail.startswith(kind.__name__)


def test_the_reflection_finds_what_it_should():
    assert {"ServerDisconnectedError", "ClientConnectorDNSError", "BadStatusLine"} <= {kind.__name__ for kind in _foreign()}


@pytest.mark.parametrize(
    ("error", "kind", "reached"),
    [
        (aiohttp.ClientConnectorDNSError(_KEY, _OS), "dns", False),
        (aiohttp.ClientConnectorError(_KEY, _OS), "connect_failed", False),
        (aiohttp.ClientConnectorCertificateError(_KEY, ssl.CertificateError("x")), "tls", False),
        (ssl.SSLError("x"), "tls", False),
        (aiohttp.ConnectionTimeoutError("x"), "connect_timeout", False),
        (aiohttp.SocketTimeoutError("x"), "upstream_timeout", True),
        (aiohttp.ServerDisconnectedError(), "reset", True),
        (aiohttp.ClientOSError(104, "x"), "reset", True),
        (aiohttp.ClientPayloadError("x"), "bad_upstream", True),
        (aiohttp.ClientError("Got more than 8190 bytes"), "response_too_large", True),
        (TimeoutError(), "upstream_timeout", True),
        (ConnectionResetError(), "reset", True),
        (ValueError("x"), "bad_upstream", True),
    ],
)
def test_a_failure_says_whether_the_provider_may_have_begun_to_work(error: BaseException, kind: str, reached: bool):
    found = translate(error)
    assert (found.kind, found.reached) == (kind, reached)


def test_our_own_error_stays_itself():
    error = UpstreamError("reset", "m")
    assert translate(error) is error


def test_a_bug_is_not_made_a_providers_failure():
    with pytest.raises(LookupError):
        translate(LookupError("bug"))


def test_no_line_of_the_table_is_hidden_by_one_above_it():
    for at, (kind, _, _) in enumerate(TRANSLATIONS):
        assert not any(issubclass(kind, above) for above, _, _ in TRANSLATIONS[:at]), kind


def test_repeated_headers_are_joined():
    raw = ((b"A", b"1"), (b"b", b"x"), (b"a", b"2"))
    assert flatten(raw) == {"a": "1, 2", "b": "x"}


# -- addresses --


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("10.0.0.1", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("127.0.0.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),  # noqa: S104 - an address to refuse
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:93.184.216.34", True),
        ("2002:7f00:1::", False),
        ("2002:5db8:d822::", True),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::a00:1", False),
        ("64:ff9b::5db8:d822", True),
        ("64:ff9b:1::5db8:d822", False),
        ("::10.0.0.1", False),
        ("::127.0.0.1", False),
        ("::93.184.216.34", True),
    ],
)
def test_an_address_is_judged_by_what_it_stands_for(address: str, public: bool):
    assert is_public(address) is public


def resolver(*addresses: str, allow_private: bool = False) -> PinnedResolver:
    async def lookup(host: str, port: int, **_options: Any) -> list[tuple[Any, ...]]:
        return [(socket.AF_INET6 if ":" in found else socket.AF_INET, 1, 6, "", (found, port)) for found in addresses]

    return PinnedResolver(allow_private=allow_private, lookup=lookup)


@pytest.mark.parametrize(
    ("host", "addresses", "allow_private", "expected"),
    [
        ("api.example", ("93.184.216.34",), False, ["93.184.216.34"]),
        ("api.example", ("10.0.0.1", "93.184.216.34"), False, ["93.184.216.34"]),
        ("api.example", ("10.0.0.1", "::1"), True, ["10.0.0.1", "::1"]),
        ("localhost", ("127.0.0.1",), False, ["127.0.0.1"]),
        ("10.0.0.1", ("10.0.0.1",), False, ["10.0.0.1"]),
    ],
)
async def test_only_permitted_addresses_are_connected_to(host: str, addresses: tuple[str, ...], allow_private: bool, expected: list[str]):
    found = await resolver(*addresses, allow_private=allow_private).resolve(host, 443)
    assert [entry["host"] for entry in found] == expected
    assert all(entry["hostname"] == host and entry["port"] == 443 and entry["flags"] == socket.AI_NUMERICHOST for entry in found)


@pytest.mark.parametrize("addresses", [("10.0.0.1",), ("127.0.0.1", "::1"), ("::ffff:169.254.169.254",)])
async def test_a_name_that_leads_inside_is_refused(addresses: tuple[str, ...]):
    with pytest.raises(OSError, match="private address"):
        await resolver(*addresses).resolve("rebound.example", 443)


# -- a server --

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Raw HTTP on loopback. `serve` is run for each connection; what it reads with `request` is kept."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self.connections = 0
        self.requests: list[bytes] = []
        self.gone = asyncio.Event()
        self.url = ""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self._serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.gone.set()
            writer.close()


async def request_of(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
    return head + await reader.readexactly(length)


@asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[Server]:
    server = Server(serve)
    listening = await asyncio.start_server(server, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listening.close()


def answering(*answers: bytes, close: bool = False) -> Serve:
    """Each connection gives `answers` in turn, one for each request, and then stays open unless `close`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await request_of(reader)
            writer.write(answer)
            await writer.drain()
        if not close:
            await reader.read()

    return serve


def pooled(url: str, **options: Any) -> Transport:
    settings = {"connections": 4, "keep_alive": 30.0, **options}
    return PooledTransport(url, resolver=PinnedResolver(allow_private=True), **settings)


def client(_url: str, **options: Any) -> Transport:
    settings = {"connections": 4, "keep_alive": 30.0, **options}
    return ClientTransport(resolver=PinnedResolver(allow_private=True), **settings)


Make = Callable[..., Transport]
BOTH = pytest.mark.parametrize("make", [pooled, client])


@asynccontextmanager
async def reaching(make: Make, url: str, **options: Any) -> AsyncIterator[Transport]:
    transport = make(url, **options)
    try:
        yield transport
    finally:
        await transport.close()


async def body_of(response: UpstreamResponse) -> bytes:
    parts = []
    while data := await response.receive():
        parts.append(data)
    return b"".join(parts)


async def ask(transport: Transport, url: str, body: bytes | Content = b"{}", timeouts: Timeouts = PATIENCE) -> tuple[int, bytes]:
    """One exchange, whole."""
    response = await transport.send(UpstreamRequest("POST", url + "/v1/x?y=z", {"content-type": "application/json"}, body), timeouts)
    try:
        found = await body_of(response)
    except BaseException:
        response.close()
        raise
    response.close(reuse=True)
    return response.status, found


@BOTH
async def test_a_request_arrives_as_it_was_made_and_nothing_is_added(make: Make):
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await request_of(reader))
        writer.write(OK)
        await reader.read()

    async with serving(serve) as server, reaching(make, server.url) as transport:
        assert await ask(transport, server.url, b'{"a":1}') == (200, b"{}")
    head, _, body = seen[0].partition(b"\r\n\r\n")
    line, *headers = head.decode().lower().split("\r\n")
    assert line == "post /v1/x?y=z http/1.1"
    assert body == b'{"a":1}'
    names = {header.partition(":")[0] for header in headers}
    assert names - {"accept-encoding"} == {"host", "content-type", "content-length"}


@BOTH
async def test_one_connection_serves_one_request_after_the_other(make: Make):
    async with serving(answering(OK, OK, OK)) as server, reaching(make, server.url) as transport:
        for _ in range(3):
            assert await ask(transport, server.url) == (200, b"{}")
        assert server.connections == 1


@pytest.mark.parametrize("surplus", [b"H", b"HTTP/1.1 200 OK\r\n\r\n", b"nonsense"])
async def test_what_follows_an_answer_closes_its_connection_at_once_also_when_nobody_reads_to_the_end(surplus: bytes):
    """The answer's end was on its way when it was closed; it comes together with what is nobody's."""
    released: list[Connection] = []
    connection = Connection(released.append, lambda _: None, header_limit=1000, body_limit=1000)
    wire = Wire(connection)
    connection.begin(b"GET / HTTP/1.1\r\n\r\n")
    wire.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n")
    assert await connection.receive() == b"{}"
    connection.close(reuse=True)
    assert connection.draining
    wire.feed(b"0\r\n\r\n" + surplus)
    assert connection.closed
    assert wire.is_closing()


async def test_a_connection_that_a_trailer_closes_serves_no_other_request():
    """`Connection: close` has no business in a trailer, but whoever sends it means it."""
    last = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nConnection: close\r\n\r\n"
    async with serving(answering(last, last)) as server, reaching(pooled, server.url) as transport:
        for expected in (1, 2):
            assert await ask(transport, server.url) == (200, b"{}")
            assert server.connections == expected


@BOTH
async def test_a_connection_that_its_server_had_closed_is_replaced_once(make: Make):
    async with serving(answering(OK, close=True)) as server, reaching(make, server.url) as transport:
        for expected in (1, 2, 3):
            assert await ask(transport, server.url) == (200, b"{}")
            assert server.connections == expected


@BOTH
async def test_a_connection_that_dies_on_reuse_is_replaced_once_and_only_once(make: Make):
    """The second request is read and not answered: on the reused connection, and then on the fresh one."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        if server.connections == 1:
            writer.write(OK)
            await request_of(reader)

    async with serving(serve) as server, reaching(make, server.url) as transport:
        assert await ask(transport, server.url) == (200, b"{}")
        with pytest.raises(UpstreamError) as caught:
            await ask(transport, server.url)
        assert caught.value.kind == "reset"
        assert server.connections == 2


@pytest.mark.parametrize(
    ("method", "after", "again"),
    [("POST", 0.0, True), ("POST", 0.4, True), ("POST", 0.6, False), ("DELETE", 0.6, False), ("GET", 0.6, True), ("HEAD", 60.0, True)],
)
def test_what_a_kept_connection_lost_is_sent_again_at_once_or_where_it_may_be_done_twice(method: str, after: float, again: bool):
    assert may_be_sent_again(method, after) is again


@BOTH
async def test_what_a_provider_has_worked_on_is_not_sent_again(make: Make):
    """It took the request on a kept connection, and only then lost it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(OK)
        await request_of(reader)
        await asyncio.sleep(AT_ONCE + 0.1)

    async with serving(serve) as server, reaching(make, server.url) as transport:
        assert await ask(transport, server.url) == (200, b"{}")
        with pytest.raises(UpstreamError) as caught:
            await ask(transport, server.url)
        assert (caught.value.kind, caught.value.reached) == ("reset", True)
        assert server.connections == 1


@BOTH
@pytest.mark.parametrize("begun", [b"H", OK[:60], b"HTTP/1.1 100 Continue\r\n\r\n"], ids=["a byte", "half a head", "an interim answer"])
async def test_a_request_whose_answer_had_begun_is_not_sent_again(make: Make, begun: bytes):
    """Its provider closes a kept connection at once, but not without a word."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(OK)
        await request_of(reader)
        writer.write(begun)

    async with serving(serve) as server, reaching(make, server.url) as transport:
        assert await ask(transport, server.url) == (200, b"{}")
        with pytest.raises(UpstreamError) as caught:
            await ask(transport, server.url)
        assert (caught.value.kind, caught.value.reached) == ("bad_upstream", True)
        assert server.connections == 1


@BOTH
async def test_a_fresh_connection_that_dies_is_not_replaced(make: Make):
    async with serving(answering(b"", close=True)) as server, reaching(make, server.url) as transport:
        with pytest.raises(UpstreamError) as caught:
            await ask(transport, server.url)
        assert caught.value.kind == "reset"
        assert server.connections == 1


@BOTH
@pytest.mark.parametrize("answer", [b"", OK[:-1]], ids=["before the head", "inside the body"])
async def test_cancelling_closes_the_connection_at_once(make: Make, answer: bytes):
    asked = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(answer)
        asked.set()
        await reader.read()

    async with serving(serve) as server, reaching(make, server.url) as transport:
        task = asyncio.ensure_future(ask(transport, server.url))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(1):
            await server.gone.wait()


@BOTH
async def test_an_answer_given_up_in_the_middle_closes_its_connection(make: Make):
    async with serving(answering(OK[:-1])) as server, reaching(make, server.url) as transport:
        response = await transport.send(UpstreamRequest("POST", server.url + "/x"), PATIENCE)
        assert await response.receive() == b"{"
        response.close()
        response.close()
        async with asyncio.timeout(1):
            await server.gone.wait()


@BOTH
async def test_an_answer_can_be_failed_while_it_is_waited_for(make: Make):
    async with serving(answering(OK[:-1])) as server, reaching(make, server.url) as transport:
        response = await transport.send(UpstreamRequest("POST", server.url + "/x"), PATIENCE)
        assert await response.receive() == b"{"
        late = UpstreamError("upstream_timeout", "late")
        asyncio.get_running_loop().call_soon(response.fail, late)
        with pytest.raises(UpstreamError) as caught:
            await response.receive()
        assert caught.value.kind == "upstream_timeout"
        response.close()


BROKEN = {
    "no HTTP": (b"hello\r\n\r\n", {"bad_upstream"}),
    "cut in the head": (b"HTTP/1.1 200 OK\r\nContent-", {"bad_upstream", "reset"}),
    "cut in the body": (OK[:-1], {"bad_upstream", "reset"}),
    "cut in a chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", {"bad_upstream", "reset"}),
    "no chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", {"bad_upstream"}),
    "another transfer coding": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", {"bad_upstream"}),
    "a coding that is not known": (b"HTTP/1.1 200 OK\r\nContent-Encoding: zstd\r\nContent-Length: 1\r\n\r\nx", {"bad_upstream"}),
    "damaged gzip": (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd", {"bad_upstream"}),
    "one large header": (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 5000 + b"\r\nContent-Length: 0\r\n\r\n", {"response_too_large"}),
    "many headers": (
        b"HTTP/1.1 200 OK\r\n" + b"X: y%s\r\n" * 60 % ((b"z" * 50,) * 60) + b"Content-Length: 0\r\n\r\n",
        {"response_too_large"},
    ),
    "a head without an end": (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 10_000, {"response_too_large"}),
}


@BOTH
@pytest.mark.parametrize(("answer", "kinds"), BROKEN.values(), ids=BROKEN.keys())
async def test_what_is_broken_or_too_large_is_an_upstream_error(make: Make, answer: bytes, kinds: set[str]):
    async with serving(answering(answer, close=True)) as server, reaching(make, server.url, header_limit=2048) as transport:
        with pytest.raises(UpstreamError) as caught:
            await ask(transport, server.url)
        assert caught.value.kind in kinds


@BOTH
async def test_a_refusals_head_is_read_whatever_its_body_is_coded_in(make: Make):
    answer = b"HTTP/1.1 429 No\r\nContent-Encoding: br\r\nRetry-After: 7\r\nContent-Length: 1\r\n\r\nx"
    async with serving(answering(answer)) as server, reaching(make, server.url) as transport:
        response = await transport.send(UpstreamRequest("GET", server.url), Timeouts())
        assert (response.status, response.headers["retry-after"]) == (429, "7")
        with pytest.raises(UpstreamError) as caught:
            await response.receive()
        assert caught.value.kind == "bad_upstream"
        response.close()


@BOTH
async def test_a_body_of_no_known_length_ends_with_its_connection(make: Make):
    async with serving(answering(b"HTTP/1.1 200 OK\r\n\r\nhello", close=True)) as server, reaching(make, server.url) as transport:
        assert await ask(transport, server.url) == (200, b"hello")


@BOTH
async def test_a_body_of_no_known_length_that_is_reset_has_not_ended(make: Make):
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhello")
        await asyncio.sleep(0.02)
        be_reset(cast(asyncio.Transport, writer.transport))

    async with serving(serve) as server, reaching(make, server.url) as transport:
        with pytest.raises(UpstreamError) as caught:
            await ask(transport, server.url)
        assert caught.value.kind == "reset"


@BOTH
async def test_what_is_no_http_behind_a_good_head_fails_at_once(make: Make):
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        for piece in (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"5\r\nhello\r\n", b"xyz\r\n"):
            writer.write(piece)
            await asyncio.sleep(0.02)
        await reader.read()

    async with asyncio.timeout(3), serving(serve) as server, reaching(make, server.url) as transport:
        with pytest.raises(UpstreamError) as caught:
            await ask(transport, server.url)
        assert caught.value.kind == "bad_upstream"


@BOTH
async def test_many_small_headers_are_no_reason_to_refuse_an_answer(make: Make):
    answer = OK.replace(b"\r\n", b"\r\n" + b"".join(b"X-%d: a\r\n" % number for number in range(300)), 1)
    async with serving(answering(answer)) as server, reaching(make, server.url) as transport:
        assert await ask(transport, server.url) == (200, b"{}")


@BOTH
async def test_a_kept_connection_that_is_reset_is_nobodys_failure(make: Make, caplog: pytest.LogCaptureFixture):
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(OK[:-1])
        await asyncio.sleep(0.02)
        writer.write(OK[-1:])
        await asyncio.sleep(0.02)
        be_reset(cast(asyncio.Transport, writer.transport))

    async with serving(serve) as server, reaching(make, server.url) as transport:
        assert await ask(transport, server.url) == (200, b"{}")
        async with asyncio.timeout(3):
            await server.gone.wait()
        await asyncio.sleep(0.02)
    gc.collect()
    assert not caplog.records


@BOTH
async def test_an_informational_answer_is_not_the_answer(make: Make):
    async with (
        serving(answering(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + OK)) as server,
        reaching(make, server.url) as transport,
    ):
        assert await ask(transport, server.url) == (200, b"{}")


@BOTH
async def test_an_answer_that_comes_coded_is_decoded_under_the_cap(make: Make):
    coded = gzip.compress(b"x" * 1000)
    answer = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(coded), coded)
    async with serving(answering(answer, answer)) as server:
        async with reaching(make, server.url, body_limit=1000) as transport:
            assert await ask(transport, server.url) == (200, b"x" * 1000)
        async with reaching(make, server.url, body_limit=999) as transport:
            with pytest.raises(UpstreamError) as caught:
                await ask(transport, server.url)
            assert caught.value.kind == "response_too_large"


@BOTH
async def test_a_redirect_is_an_answer_and_is_not_followed(make: Make):
    async with serving(answering(OK)) as other:
        answer = b"HTTP/1.1 307 Temporary Redirect\r\nLocation: %b/stolen\r\nContent-Length: 0\r\n\r\n" % other.url.encode()
        async with serving(answering(answer)) as server, reaching(make, server.url) as transport:
            assert (await ask(transport, server.url))[0] == 307
        assert other.connections == 0


@BOTH
async def test_cookies_are_not_kept(make: Make):
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            seen.append(await request_of(reader))
            writer.write(OK.replace(b"Content-Type", b"Set-Cookie: a=b; Path=/\r\nContent-Type"))

    async with serving(serve) as server, reaching(make, server.url) as transport:
        await ask(transport, server.url)
        await ask(transport, server.url)
    assert len(seen) == 2
    assert b"cookie" not in seen[1].lower()


@BOTH
async def test_a_proxy_of_the_environment_is_not_used(make: Make, monkeypatch: pytest.MonkeyPatch):
    async with serving(answering(OK)) as proxy, serving(answering(OK)) as server:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        async with reaching(make, server.url) as transport:
            await ask(transport, server.url)
        assert (server.connections, proxy.connections) == (1, 0)


@BOTH
async def test_a_port_where_nobody_listens_is_a_failed_connection(make: Make):
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        async with reaching(make, url) as transport:
            with pytest.raises(UpstreamError) as caught:
                await ask(transport, url)
    assert (caught.value.kind, caught.value.reached) == ("connect_failed", False)


@BOTH
async def test_a_name_that_does_not_resolve_is_a_dns_failure(make: Make):
    async def lookup(*_args: Any, **_options: Any) -> list[Any]:
        raise socket.gaierror(-2, "unknown")

    url = "http://nowhere.example:1"
    found: Transport
    refusing = PinnedResolver(allow_private=False, lookup=lookup)
    if make is pooled:
        found = PooledTransport(url, connections=1, keep_alive=1.0, resolver=refusing)
    else:
        found = ClientTransport(connections=1, keep_alive=1.0, resolver=refusing)
    with pytest.raises(UpstreamError) as caught:
        await ask(found, url)
    assert (caught.value.kind, caught.value.reached) == ("dns", False)
    await found.close()


@BOTH
async def test_a_host_that_no_name_server_can_be_asked_for_is_a_dns_failure(make: Make):
    url = "http://a..example:1"
    async with reaching(make, url) as transport:
        with pytest.raises(UpstreamError) as caught:
            await ask(transport, url)
    assert (caught.value.kind, caught.value.reached) == ("dns", False)


@BOTH
async def test_a_head_that_does_not_come_is_late(make: Make):
    async with serving(answering(b"")) as server, reaching(make, server.url) as transport:
        with pytest.raises(UpstreamError) as caught:
            await ask(transport, server.url, timeouts=Timeouts(connect=2, first_token=0.05, idle=None, total=None))
        assert (caught.value.kind, caught.value.status) == ("upstream_timeout", 504)
        async with asyncio.timeout(1):
            await server.gone.wait()


class Pieces:
    """A body that is passed on as it arrives."""

    def __init__(self, *pieces: bytes, length: int | None = None) -> None:
        self._pieces = pieces
        self.length = length

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece

    def named(self, model: str) -> Pieces:
        return self


@BOTH
@pytest.mark.parametrize("length", [6, None])
async def test_a_body_is_passed_on_as_it_arrives(make: Make, length: int | None):
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        body = await (reader.readexactly(6) if length else reader.readuntil(b"0\r\n\r\n"))
        seen.extend((head.lower(), body))
        writer.write(OK)
        await reader.read()

    async with serving(serve) as server, reaching(make, server.url) as transport:
        assert await ask(transport, server.url, Pieces(b"abc", b"def", length=length)) == (200, b"{}")
    assert (b"content-length: 6" in seen[0]) is (length == 6)
    assert seen[1] == (b"abcdef" if length else b"3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n")


class Slow(Pieces):
    """A body whose client takes its time before each piece, and before its end."""

    def __init__(self, *pieces: bytes, length: int | None, gap: float) -> None:
        super().__init__(*pieces, length=length)
        self._gap = gap

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in super().__aiter__():
            await asyncio.sleep(self._gap)
            yield piece


#: For an answer's first byte, in seconds, and less than such a body takes.
FIRST_BYTE = 0.2


@BOTH
@pytest.mark.parametrize("length", [6, None])
async def test_the_time_for_an_answers_first_byte_begins_when_the_body_has_been_sent(make: Make, length: int | None):
    silent = False

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await (reader.readexactly(6) if length else reader.readuntil(b"0\r\n\r\n"))
        if not silent:
            writer.write(OK)
        await reader.read()

    async with serving(serve) as server, reaching(make, server.url) as transport:
        patience = Timeouts(connect=2, first_token=FIRST_BYTE, idle=None, total=5)
        assert await ask(transport, server.url, Slow(b"abc", b"def", length=length, gap=FIRST_BYTE), patience) == (200, b"{}")
        silent = True
        began = asyncio.get_running_loop().time()
        with pytest.raises(UpstreamError) as caught:
            await ask(transport, server.url, Slow(b"abc", b"def", length=length, gap=FIRST_BYTE), patience)
        assert (caught.value.kind, caught.value.bound) == ("upstream_timeout", START)
        assert 3 * FIRST_BYTE <= asyncio.get_running_loop().time() - began < 3 * FIRST_BYTE + 0.5


@BOTH
async def test_the_total_bounds_the_sending_too(make: Make):
    async with serving(answering(b"")) as server, reaching(make, server.url) as transport:
        patience = Timeouts(connect=2, first_token=0.1, idle=None, total=0.3)
        with pytest.raises(UpstreamError) as caught:
            await ask(transport, server.url, Slow(b"abc", length=3, gap=5), patience)
        assert (caught.value.kind, caught.value.bound) == ("upstream_timeout", TOTAL)


@BOTH
@pytest.mark.parametrize(("left", "is_bounded"), [(None, False), (0.45, True)], ids=["no deadline", "a deadline"])
async def test_a_total_that_nobody_has_set_begins_anew_with_each_piece_that_is_sent(make: Make, left: float | None, is_bounded: bool):
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(8)
        writer.write(OK)
        await reader.read()

    async with serving(serve) as server, reaching(make, server.url) as transport:
        unset = Timeouts(connect=2, first_token=None, idle=None, total=0.4, defaults=frozenset({"total"}), left=left)
        body = Slow(b"ab", b"cd", b"ef", b"gh", length=8, gap=0.2)
        if is_bounded:
            with pytest.raises(UpstreamError) as caught:
                await ask(transport, server.url, body, unset)
            assert caught.value.kind == "upstream_timeout"
        else:
            assert await ask(transport, server.url, body, unset) == (200, b"{}")
            with pytest.raises(UpstreamError):
                await ask(transport, server.url, Slow(b"ab", length=2, gap=5), unset)


@BOTH
@pytest.mark.parametrize("first_token", [None, 0.1])
async def test_an_answer_that_comes_before_the_bodys_end_is_not_late(make: Make, first_token: float | None):
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await reader.read()

    async with serving(serve) as server, reaching(make, server.url) as transport:
        patience = Timeouts(connect=2, first_token=first_token, idle=None, total=5)
        assert await ask(transport, server.url, Slow(b"abc", b"def", length=6, gap=0.05), patience) == (200, b"{}")
        await asyncio.sleep(0.2)  # whatever is left of the body ends: nobody is failed by it any more


@BOTH
async def test_a_streamed_body_is_never_sent_twice(make: Make):
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(OK)
        await request_of(reader)

    async with serving(serve) as server, reaching(make, server.url) as transport:
        await ask(transport, server.url)
        with pytest.raises(UpstreamError):
            await ask(transport, server.url, Pieces(b"abc", length=3))
        assert server.connections == 1


@BOTH
async def test_no_more_connections_are_open_than_allowed(make: Make):
    most = 0
    here = 0
    free = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal most, here
        while True:
            await request_of(reader)
            here += 1
            most = max(most, here)
            if here == 2:
                free.set()
            await free.wait()
            here -= 1
            writer.write(OK)

    async with serving(serve) as server, reaching(make, server.url, connections=2) as transport:
        found = await asyncio.gather(*[ask(transport, server.url) for _ in range(6)])
        assert found == [(200, b"{}")] * 6
        assert (server.connections, most) == (2, 2)


@BOTH
async def test_closing_closes_what_lies_idle(make: Make):
    async with serving(answering(OK)) as server:
        transport = make(server.url)
        await ask(transport, server.url)
        await transport.close()
        async with asyncio.timeout(1):
            await server.gone.wait()


async def test_closing_what_was_never_opened_does_nothing():
    await client("").close()
    await pooled("http://127.0.0.1:1").close()


async def test_bytes_that_nobody_asked_for_never_become_an_answer():
    """A second answer behind the first: the connection is in doubt, and the next request goes over another."""
    async with serving(answering(OK + OK.replace(b"{}", b"no"), OK)) as server, reaching(pooled, server.url) as transport:
        assert await ask(transport, server.url) == (200, b"{}")
        assert await ask(transport, server.url) == (200, b"{}")
        assert server.connections == 2


@BOTH
@pytest.mark.parametrize("said", [OK.replace(b"{}", b"no"), OK[:20], b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"])
async def test_what_is_said_on_an_idle_connection_closes_it_and_answers_nobody(make: Make, said: bytes):
    is_idle = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(OK)
        await is_idle.wait()
        writer.write(said)
        await reader.read()

    async with serving(serve) as server, reaching(make, server.url) as transport:
        assert await ask(transport, server.url) == (200, b"{}")
        is_idle.set()
        async with asyncio.timeout(1):
            await server.gone.wait()
        assert await ask(transport, server.url) == (200, b"{}")
        assert server.connections == 2


# -- whose failure it is --


class Broken(Pieces):
    """A body that ends with `ending` instead of its end."""

    def __init__(self, *pieces: bytes, ending: Exception, length: int | None = None) -> None:
        super().__init__(*pieces, length=length)
        self._ending = ending

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in super().__aiter__():
            yield piece
        raise self._ending


@BOTH
@pytest.mark.parametrize("length", [6, None])
@pytest.mark.parametrize(
    "ending",
    [
        ClientError("The request's body is larger than it may be.", status=413),
        ClientError("The request's body did not come in time.", status=408),
        ClientDisconnected("The client has left."),
    ],
    ids=["too large", "late", "gone"],
)
async def test_what_is_wrong_with_a_clients_body_is_no_failure_of_the_providers(make: Make, ending: Exception, length: int | None):
    async with serving(answering(b"")) as server, reaching(make, server.url) as transport:
        with pytest.raises(ClientError) as caught:
            await ask(transport, server.url, Broken(b"abc", ending=ending, length=length))
        assert caught.value is ending
        async with asyncio.timeout(1):
            await server.gone.wait()


@BOTH
@pytest.mark.parametrize("length", [6, None])
async def test_a_provider_that_is_lost_while_a_body_is_sent_has_failed(make: Make, length: int | None):
    """Whatever its client's body is stopped with."""

    async def serve(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    async with serving(serve) as server, reaching(make, server.url) as transport:
        with pytest.raises(UpstreamError) as caught:
            await ask(transport, server.url, Slow(b"abc", b"def", length=length, gap=0.05))
        assert (caught.value.kind, caught.value.reached) == ("reset", True)


# -- what was never sent --

BRIEF = Timeouts(connect=0.1, first_token=None, idle=None, total=5)


@BOTH
@pytest.mark.parametrize("timeouts", [BRIEF, Timeouts(connect=5, first_token=None, idle=None, total=0.1)], ids=["connect", "total"])
async def test_who_finds_no_connection_free_is_told_that_it_is_the_gateways_own_bound(make: Make, timeouts: Timeouts):
    async with serving(answering(b"")) as server, reaching(make, server.url, connections=1) as transport:
        first = asyncio.ensure_future(ask(transport, server.url))
        async with asyncio.timeout(1):
            while not server.connections:
                await asyncio.sleep(0.01)
        with pytest.raises(UpstreamError) as caught:
            async with asyncio.timeout(2):
                await ask(transport, server.url, timeouts=timeouts)
        assert (caught.value.kind, caught.value.reached) == ("overloaded", False)
        waiting = asyncio.ensure_future(ask(transport, server.url))
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError) as left:
            await waiting
        assert left.value.args == (UNSENT,)
        first.cancel()
        with pytest.raises(asyncio.CancelledError) as left:
            await first
        assert UNSENT not in left.value.args


@asynccontextmanager
async def deaf() -> AsyncIterator[str]:
    """The URL of a port that takes no connection, and refuses none: its queue is full."""
    with ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = sockets.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@BOTH
@pytest.mark.parametrize(
    ("timeouts", "kind"),
    [
        (BRIEF, "connect_timeout"),
        (Timeouts(connect=5, first_token=0.1, idle=None, total=5), "upstream_timeout"),
        (Timeouts(connect=5, first_token=None, idle=None, total=0.1), "upstream_timeout"),
    ],
    ids=["connect", "first_token", "total"],
)
async def test_who_is_not_connected_in_time_has_sent_nothing(make: Make, timeouts: Timeouts, kind: str):
    async with deaf() as url, reaching(make, url) as transport:
        with pytest.raises(UpstreamError) as caught:
            await ask(transport, url, timeouts=timeouts)
        assert (caught.value.kind, caught.value.reached) == (kind, False)


@BOTH
async def test_who_leaves_before_a_connection_is_there_has_sent_nothing(make: Make):
    async with deaf() as url, reaching(make, url) as transport:
        asking = asyncio.ensure_future(ask(transport, url))
        await asyncio.sleep(0.05)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await asking
        assert caught.value.args == (UNSENT,)


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", b"nonsense\r\n\r\n", b""],
    ids=["407", "no HTTP", "a close"],
)
async def test_a_proxy_that_does_not_connect_has_sent_nothing_on(answer: bytes):
    async with serving(answering(answer, close=True)) as proxy, reaching(client, "", proxy=proxy.url) as transport:
        with pytest.raises(UpstreamError) as caught:
            await ask(transport, "https://127.0.0.1:9")
        assert (caught.value.kind, caught.value.reached) == ("connect_failed", False)
