"""Providers whose certificate an authority of one's own has signed."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from providers.openai import OpenAI, OpenAISettings
from proxy.core.call import Timeouts
from proxy.core.clock import SystemClock
from proxy.core.errors import UpstreamError
from proxy.core.protocols import Transport, UpstreamRequest
from proxy.snapshot import build_upstream

PATIENCE = Timeouts(connect=5, first_token=5, idle=5, total=5)
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
MANY = b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: a\r\n" % number for number in range(300)) + b"Content-Length: 2\r\n\r\n{}"


@pytest.fixture
def authority(tmp_path: Path) -> tuple[Path, ssl.SSLContext]:
    """The file of an authority, and what a server at 127.0.0.1 serves with that it vouches for."""
    secret = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "here.test")])
    builder = x509.CertificateBuilder(
        subject, subject, secret.public_key(), x509.random_serial_number(), now, now + datetime.timedelta(days=1)
    )
    here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = builder.add_extension(here, critical=False).sign(secret, hashes.SHA256())
    file, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(secret.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(file, key)
    return file, context


@asynccontextmanager
async def answering(context: ssl.SSLContext, *pieces: bytes) -> AsyncIterator[str]:
    """A server that gives `pieces`, each in a read of its own, to one request for each connection, which then stays open."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0.02)
        await reader.read()
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
    finally:
        listening.close()


def transport(url: str, **more: Any) -> Transport:
    section = OpenAISettings(kind="openai", base_url=url, **more)
    return build_upstream("up", section, {"openai": OpenAI}, str, SystemClock()).transport


async def ask(found: Transport, url: str, headers: dict[str, str] | None = None) -> bytes:
    try:
        response = await found.send(UpstreamRequest("GET", f"{url}/models", headers or {}), PATIENCE)
        body = b"".join([piece async for piece in pieces_of(response)])
        response.close(reuse=True)
        return body
    finally:
        await found.close()


async def pieces_of(response: Any) -> AsyncIterator[bytes]:
    while data := await response.receive():
        yield data


@pytest.mark.parametrize("answer", [HEAD + b"2\r\n{}\r\n0\r\n\r\n", MANY], ids=["plain", "300 headers"])
async def test_its_providers_are_asked(authority: tuple[Path, ssl.SSLContext], answer: bytes):
    file, context = authority
    async with answering(context, answer) as url:
        assert await ask(transport(url, ca=str(file)), url) == b"{}"


async def test_nobody_else_trusts_it(authority: tuple[Path, ssl.SSLContext]):
    async with answering(authority[1]) as url:
        with pytest.raises(UpstreamError) as caught:
            await ask(transport(url), url)
    assert caught.value.kind == "tls"


@asynccontextmanager
async def recording(context: ssl.SSLContext | None, *, tunnels: bool = False) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that answers one request for each connection, with the heads it was sent; it `tunnels` to itself as a proxy does."""
    heads: list[bytes] = []
    tasks: list[asyncio.Task[None] | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.current_task())
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        if tunnels:
            assert context is not None
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            await writer.start_tls(context)
            heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        await reader.read()
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=None if tunnels else context)
    try:
        yield f"127.0.0.1:{listening.sockets[0].getsockname()[1]}", heads
    finally:
        listening.close()
        await asyncio.gather(*filter(None, tasks))


OTHER = {"host": "llama.models.example.com"}


@pytest.mark.parametrize("way", ["plain", "tls", "proxy"])
async def test_another_host_takes_the_place_of_the_addresss_own(authority: tuple[Path, ssl.SSLContext], way: str):
    file, context = authority
    more = {} if way == "plain" else {"ca": str(file)}
    async with recording(None if way == "plain" else context, tunnels=way == "proxy") as (where, heads):
        base = f"{'http' if way == 'plain' else 'https'}://{where}/v1"
        if way == "proxy":
            more["proxy"] = f"http://{where}"
        assert await ask(transport(base, **more), base, OTHER) == b"{}"
    hosts = [line.lower() for line in heads[-1].split(b"\r\n") if line.lower().startswith(b"host:")]
    assert hosts == [b"host: llama.models.example.com"]
    if way == "proxy":
        assert heads[0].startswith(f"CONNECT {where} HTTP/1.1\r\n".encode())


async def test_another_host_is_nobody_elses_certificate(authority: tuple[Path, ssl.SSLContext]):
    file, context = authority
    async with recording(context) as (where, _):
        base = f"https://localhost:{where.partition(':')[2]}/v1"
        with pytest.raises(UpstreamError) as caught:
            await ask(transport(base, ca=str(file)), base, {"host": "127.0.0.1"})
    assert caught.value.kind == "tls"


async def test_what_is_no_http_in_its_providers_answers_fails_at_once(authority: tuple[Path, ssl.SSLContext]):
    file, context = authority
    async with asyncio.timeout(3), answering(context, HEAD, b"xyz\r\n") as url:
        with pytest.raises(UpstreamError) as caught:
            await ask(transport(url, ca=str(file)), url)
    assert caught.value.kind == "bad_upstream"
