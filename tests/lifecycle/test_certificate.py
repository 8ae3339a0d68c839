"""A certificate that was replaced where it is kept: after SIGHUP new connections see the new one, and open ones go on."""

from __future__ import annotations

import datetime
import signal
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.lifecycle.conftest import Start
from tests.support.gateway import Gateway
from tests.support.script import Fin, Wait, chunk, head, script
from tests.support.upstream import Upstream

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: gateway.test\r\n\r\n"


def write_certificate(folder: Path, name: str) -> bytes:
    """A certificate for `name` and its key, as cert.pem and key.pem. Returns the certificate as a client sees it (DER)."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number(), now, now + datetime.timedelta(days=1))
    certificate = made.sign(key, hashes.SHA256())
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").touch(mode=0o600)
    (folder / "key.pem").write_bytes(secret)
    return certificate.public_bytes(serialization.Encoding.DER)


def connect(gateway: Gateway) -> ssl.SSLSocket:
    parts = urlsplit(gateway.url)
    assert parts.scheme == "https" and parts.hostname and parts.port
    return trusting().wrap_socket(socket.create_connection((parts.hostname, parts.port), 5))


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def shown(gateway: Gateway) -> bytes | None:
    """The certificate that a new connection sees."""
    with connect(gateway) as connection:
        return connection.getpeercert(binary_form=True)


def served(connection: ssl.SSLSocket) -> bool:
    connection.sendall(HEALTH)
    return connection.recv(4096).startswith(b"HTTP/1.1 200 ")


@pytest.fixture
def tls(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "tls").mkdir()
    return {"certificate": f"file:{tmp_path}/tls/cert.pem", "key": f"file:{tmp_path}/tls/key.pem"}


@pytest.mark.parametrize("workers", [1, 2])
def test_new_connections_see_the_certificate_that_the_files_hold_after_a_reload(
    start: Start, tmp_path: Path, tls: dict[str, str], workers: int
):
    first = write_certificate(tmp_path / "tls", "first.test")
    gateway = start({"workers": workers, "tls": tls})
    with connect(gateway) as before:
        assert before.getpeercert(binary_form=True) == first
        second = write_certificate(tmp_path / "tls", "second.test")
        assert shown(gateway) == first, "it is not read unasked"
        gateway.process.send_signal(signal.SIGHUP)
        gateway.wait_line("configuration_applied")
        assert {shown(gateway) for _ in range(20)} == {second}
        assert served(before), "an open connection does not go on"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_certificate_that_does_not_fit_its_key_is_refused_and_the_old_one_shown(
    start: Start, tmp_path: Path, tls: dict[str, str], workers: int
):
    first = write_certificate(tmp_path / "tls", "first.test")
    gateway = start({"workers": workers, "tls": tls})
    key = (tmp_path / "tls" / "key.pem").read_bytes()
    write_certificate(tmp_path / "tls", "second.test")
    (tmp_path / "tls" / "key.pem").write_bytes(key)
    gateway.process.send_signal(signal.SIGHUP)
    gateway.wait_line("configuration_refused")
    assert {shown(gateway) for _ in range(20)} == {first}
    assert gateway.metric("comporta_config_last_reload_successful") == 0


def test_a_client_that_lies_idle_and_says_no_goodbye_does_not_hold_a_shutdown_up(start: Start, tmp_path: Path, tls: dict[str, str]):
    write_certificate(tmp_path / "tls", "first.test")
    gateway = start({"tls": tls, "grace": "30s"})
    with connect(gateway) as idle:
        assert served(idle)
        asked = time.monotonic()
        gateway.process.send_signal(signal.SIGTERM)
        gateway.ended(25.0)
        assert time.monotonic() - asked < 10.0


def test_connections_that_never_agree_on_tls_are_closed(start: Start, tmp_path: Path, tls: dict[str, str]):
    write_certificate(tmp_path / "tls", "first.test")
    gateway = start({"tls": tls, "header_timeout": "1s"})
    parts = urlsplit(gateway.url)
    silent = [socket.create_connection((parts.hostname, parts.port), 10) for _ in range(5)]
    for connection in silent:
        with connection:
            assert connection.recv(1) == b""


def test_connections_that_never_agree_on_tls_are_some_of_all(start: Start, tmp_path: Path, tls: dict[str, str]):
    """And they hold nobody up who wants to end."""
    write_certificate(tmp_path / "tls", "first.test")
    gateway = start({"tls": tls, "header_timeout": "60s", "max_connections": 4})
    parts = urlsplit(gateway.url)
    silent = [socket.create_connection((parts.hostname, parts.port), 10) for _ in range(4)]
    with pytest.raises(OSError, match=r"EOF|reset"):
        connect(gateway)
    silent.pop().close()
    until = time.monotonic() + 5
    while not _answers(gateway):
        assert time.monotonic() < until, "the place of one that has left is not free"
        time.sleep(0.02)
    asked = time.monotonic()
    gateway.process.send_signal(signal.SIGTERM)
    gateway.ended(25.0)
    assert time.monotonic() - asked < 10.0
    for each in silent:
        each.close()


def _answers(gateway: Gateway) -> bool:
    try:
        with connect(gateway) as connection:
            return served(connection)
    except OSError:
        return False


def test_an_answer_that_breaks_off_is_reset_over_tls_where_only_the_close_ends_it(
    start: Start, upstream: Upstream, tmp_path: Path, tls: dict[str, str]
):
    """Many clients take an end without a goodbye (close_notify) for a good one."""
    write_certificate(tmp_path / "tls", "first.test")
    sound = head(200, [("Content-Type", "audio/mpeg"), ("Transfer-Encoding", "chunked")]) + chunk(b"d" * 5000)
    upstream.play(script(sound, Wait(0.05), Fin()))
    gateway = start({"tls": tls})
    parts = urlsplit(gateway.url)
    body = b'{"model": "test-model", "input": "x", "voice": "alloy"}'
    with socket.create_connection((parts.hostname, parts.port), 5) as connection:
        coming, going = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = trusting().wrap_bio(coming, going)
        with pytest.raises(ConnectionResetError):  # of the connection below; that of `ssl` would call it an end
            passed_on(connection, coming, going, client.do_handshake)
            client.write(b"POST /v1/audio/speech HTTP/1.0\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            while passed_on(connection, coming, going, lambda: client.read(65536)):
                pass


def passed_on(connection: socket.socket, coming: ssl.MemoryBIO, going: ssl.MemoryBIO, step: Callable[[], Any]) -> Any:
    """What `step` of a TLS connection over `connection` comes to, once what it needs has come."""
    while True:
        try:
            return step()
        except ssl.SSLWantReadError:
            connection.sendall(going.read())
            coming.write(connection.recv(65536))
