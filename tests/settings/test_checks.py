"""What is asked of the sections together."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from proxy.settings import secret_warnings
from tests.lifecycle.test_certificate import write_certificate
from tests.settings.conftest import Load, Refused


def _provider(base_url: str, more: str = "") -> str:
    return f'providers:\n  a: {{kind: openai, base_url: "{base_url}"{more}}}\n'


def _warnings(loaded: Load, text: str) -> str:
    return "\n".join(map(str, loaded(text).warnings))


@pytest.mark.parametrize(
    ("listen", "admin"),
    [("127.0.0.1:8080", "127.0.0.1:8080"), ("0.0.0.0:8080", "127.0.0.1:8080"), ("127.0.0.1:8080", "[::]:8080")],
)
def test_the_two_planes_need_a_port_each(refused: Refused, listen: str, admin: str):
    (problem,) = refused(f'server:\n  listen: "{listen}"\n  admin_listen: "{admin}"')
    assert (problem.line, problem.path) == (3, "server.admin_listen")


@pytest.mark.parametrize(("listen", "admin"), [("127.0.0.1:0", "127.0.0.1:0"), ("127.0.0.1:8080", "127.0.0.2:8080")])
def test_free_ports_and_other_addresses_do_not_collide(loaded: Load, listen: str, admin: str):
    assert loaded(f'server: {{listen: "{listen}", admin_listen: "{admin}"}}').warnings == []


def test_listening_beyond_this_machine_is_told(loaded: Load):
    beyond = 'server:\n  listen: "0.0.0.0:8080"\n'
    for is_open in ("authenticate: {open: true}", "authenticate: false"):
        said = _warnings(loaded, f"{beyond}policies: {{{is_open}}}")
        assert ":2: server.listen: can be reached from other machines, and no client needs a key" in said
    for closed in ("", "policies: {authenticate: {open: false}}", "policies: {authenticate: {}}"):
        assert _warnings(loaded, beyond + closed) == ""
    assert _warnings(loaded, 'server: {listen: "localhost:8080", admin_listen: "[::1]:8081"}') == ""


def test_an_admin_plane_that_others_can_reach_needs_a_key(loaded: Load, refused: Refused):
    (problem,) = refused('server:\n  admin_listen: "192.0.2.1:8081"')
    assert (problem.line, problem.path) == (2, "server.admin_listen")
    assert "admin_key" in str(problem)
    assert loaded('server: {admin_listen: "192.0.2.1:8081", admin_key: "env:ADMIN_KEY"}').settings.server.admin_key == "env:ADMIN_KEY"


@pytest.mark.parametrize(
    "base_url", ["ftp://a.example/v1", "a.example/v1", "https://", "https://me:pw@a.example/v1", "https://a.example/v1?x=1"]
)
def test_a_base_url_is_whole_and_holds_no_credential(refused: Refused, base_url: str):
    (problem,) = refused(_provider(base_url))
    assert problem.path == "providers.a.base_url"
    assert "pw" not in problem.message.replace("password", "")


def test_a_provider_that_is_the_gateway_itself_is_refused(refused: Refused):
    (problem,) = refused('server: {listen: "0.0.0.0:9000"}\n' + _provider("http://localhost:9000/v1", ", allow_private: true"))
    assert "every request would come back to it" in str(problem)


@pytest.mark.parametrize(
    ("base_url", "told"),
    [
        ("http://models.example.net/v1", True),
        ("http://8.8.8.8/v1", True),
        ("https://models.example.net/v1", False),
        ("http://10.0.0.3/v1", False),
        ("http://vllm:8000/v1", False),
        ("http://vllm.internal/v1", False),
    ],
)
def test_a_public_provider_without_encryption_is_told(loaded: Load, base_url: str, told: bool):
    assert ("is not encrypted" in _warnings(loaded, _provider(base_url))) == told


def test_a_name_of_this_machine_needs_permission(loaded: Load):
    assert "add allow_private: true" in _warnings(loaded, _provider("http://localhost:8000/v1"))
    assert _warnings(loaded, _provider("http://localhost:8000/v1", ", allow_private: true")) == ""


@pytest.mark.parametrize("header", ["Authorization", "api-key", "X-API-Key", "Cookie"])
def test_credentials_do_not_go_into_headers(refused: Refused, header: str):
    (problem,) = refused(_provider("https://a.example", f", headers: {{{header}: abc}}"))
    assert "abc" not in str(problem)
    assert "api_key" in str(problem)


@pytest.mark.parametrize("header", ["Upgrade", "content-length", "Transfer-Encoding", "connection"])
def test_what_is_written_for_each_request_is_no_further_header(refused: Refused, header: str):
    (problem,) = refused(_provider("https://a.example", f", headers: {{{header}: abc}}"))
    assert (problem.line, problem.path) == (2, f"providers.a.headers.{header}")
    assert "the gateway writes it itself" in str(problem)


@pytest.mark.parametrize("host", ["llama.models.example.com", "LLAMA-1", "a_b.example:8443", "10.0.0.1:80", '"[::1]:8000"'])
def test_a_provider_may_be_asked_by_another_name_than_its_address(loaded: Load, host: str):
    text = _provider("https://a.example", f", headers: {{Host: {host}}}")
    assert loaded(text).settings.providers["a"].model_dump()["headers"] == {"Host": host.strip('"')}
    assert _warnings(loaded, text) == ""


@pytest.mark.parametrize(
    "host", ["", "https://a.example", "a.example/v1", "a.example:", "a.example:70000", "a b", "a,b", "me@a", "::1", "é"]
)
def test_the_name_a_provider_is_asked_by_is_a_host(refused: Refused, host: str):
    (problem,) = refused(_provider("https://a.example", f', headers: {{host: "{host}"}}'))
    assert (problem.line, problem.path) == (2, "providers.a.headers.host")
    assert "is no host, with or without a port" in str(problem)


def test_a_host_that_the_proxy_replaces_is_told(loaded: Load):
    other = ', headers: {Host: b.example}, proxy: "http://10.0.0.1:3128"'
    assert "an HTTP proxy writes the address's own host" in _warnings(loaded, _provider("http://10.0.0.2/v1", other))
    assert _warnings(loaded, _provider("https://a.example", other)) == ""


def test_a_header_needs_a_name_that_is_one(refused: Refused):
    assert "is no header name" in str(refused(_provider("https://a.example", ', headers: {"a b": c}'))[0])


def test_nothing_else_is_called_sim(refused: Refused):
    assert "belongs to the simulated provider" in str(refused('providers: {sim: {kind: openai, base_url: "https://a.example"}}')[0])


def test_a_public_name_that_hides_a_providers_is_told(loaded: Load):
    text = _provider("https://a.example") + "models: {a/b: a, meta/llama: a}"
    assert "hides the model 'b' of the provider 'a'" in _warnings(loaded, text)
    assert "llama" not in _warnings(loaded, text)


def test_references_that_lead_nowhere_are_told_with_their_line(loaded: Load):
    text = 'providers:\n  a:\n    kind: openai\n    base_url: "https://a.example"\n    api_keys:\n      - "env:GONE"\n      - "env:HERE"\n'
    found = loaded(text)
    (warning,) = secret_warnings(found, {"HERE": "a-secret"})
    assert (warning.line, warning.path) == (6, "providers.a.api_keys[0]")
    assert "env:GONE cannot be used: the environment variable GONE is not set" in str(warning)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('server: {admin_key: "env:GONE"}', "server.admin_key"),
        ('credentials: {key: "env:GONE"}', "credentials.key"),
        ('state: {url: "env:GONE"}', "state.url"),
        ('storage: {pepper: "env:GONE"}', "storage.pepper"),
    ],
)
def test_references_of_every_section_are_followed(loaded: Load, text: str, path: str):
    (warning,) = secret_warnings(loaded(text), {})
    assert (warning.line, warning.path) == (1, path)


def test_the_administrators_key_is_not_in_the_store(refused: Refused):
    (problem,) = refused('server: {admin_key: "store:admin"}')
    assert problem.path == "server.admin_key"


def test_authorities_to_trust_are_looked_for(refused: Refused, loaded: Load, tmp_path: Path):
    text = _provider("https://a.example", f', ca: "{tmp_path}/ca.pem"')
    (problem,) = refused(text)
    assert (problem.line, problem.path, "ca.pem cannot be read" in problem.message) == (2, "providers.a.ca", True)
    (tmp_path / "ca.pem").write_text("nothing")
    assert "ca.pem holds no certificate" in refused(text)[0].message
    write_certificate(tmp_path, "here.test")
    loaded(_provider("https://a.example", f', ca: "{tmp_path}/cert.pem"'))


@pytest.mark.parametrize("proxy", ["http://", "http://[::1", "http://10.0.0.1:99999", "https://10.0.0.1:3128"])
def test_a_proxy_has_an_address(refused: Refused, proxy: str):
    (problem,) = refused(_provider("https://a.example", f', proxy: "{proxy}"'))
    assert problem.path == "providers.a.proxy"


@pytest.mark.parametrize("bound", ["timeouts: {connect: 0s}", "timeouts: {total: 0s}", "limits: {body: 0}", "limits: {event: -1}"])
def test_a_provider_that_is_given_nothing_is_a_mistake(refused: Refused, bound: str):
    assert "must be greater than 0" in str(refused(_provider("https://a.example", f", {bound}"))[0])


def test_the_certificates_files_are_looked_for(refused: Refused, loaded: Load, tmp_path: Path):
    write_certificate(tmp_path, "here.test")
    text = f'server:\n  tls:\n    certificate: "file:{tmp_path}/cert.pem"\n    key: "file:{tmp_path}/key.pem"\n'
    (tmp_path / "key.pem").chmod(0o644)
    (problem,) = refused(text)
    assert (problem.line, problem.hint) == (4, f"chmod 600 {tmp_path}/key.pem")
    (tmp_path / "key.pem").chmod(0o600)
    tls = loaded(text).settings.server.tls
    assert tls is not None
    assert tls.paths["key"] == tmp_path / "key.pem"
    (tmp_path / "cert.pem").unlink()
    assert "cert.pem cannot be read" in str(refused(text)[0])


PEM = "-----BEGIN {0}-----\nAAAA\n-----END {0}-----\n"


@pytest.mark.parametrize(
    ("certificate", "key", "said"),
    [
        (None, "another's", "{0}/cert.pem and {0}/key.pem do not belong together"),
        ("words", None, "{0}/cert.pem is no PEM certificate"),
        (None, "words", "{0}/key.pem is no PEM private key"),
        (PEM.format("CERTIFICATE"), None, "{0}/cert.pem and {0}/key.pem cannot be used: one of them is damaged"),
        (None, "encrypted", "{0}/key.pem is encrypted, and nobody is asked for its password"),
    ],
)
def test_the_certificates_files_are_tried(refused: Refused, tmp_path: Path, certificate: str | None, key: str | None, said: str):
    write_certificate(tmp_path, "here.test")
    if certificate is not None:
        (tmp_path / "cert.pem").write_text(certificate)
    if key is not None:
        secret = ec.generate_private_key(ec.SECP256R1())
        locked = serialization.BestAvailableEncryption(b"p") if key == "encrypted" else serialization.NoEncryption()
        written = secret.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)
        (tmp_path / "key.pem").write_bytes(b"words" if key == "words" else written)
    (problem,) = refused(f'server:\n  tls:\n    certificate: "file:{tmp_path}/cert.pem"\n    key: "file:{tmp_path}/key.pem"\n')
    assert (problem.path, problem.message) == ("server.tls", said.format(tmp_path))
