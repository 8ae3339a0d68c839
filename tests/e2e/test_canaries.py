"""Secrets that can be told from everything else go through the whole gateway; then all that it said and wrote is searched."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from comporta.cli import main
from proxy.vault import new_key
from tests.support.gateway import Gateway, provider
from tests.support.raw_client import Answer, RawClient, chat_body
from tests.support.script import chat_chunks, completion, error_response, json_response, script, sse
from tests.support.upstream import Upstream

#: What nobody but the provider is shown.
FROM_ENVIRONMENT = "sk-canary-environment-0123456789abcdef"
STORED = "sk-canary-stored-0123456789abcdef"
ADMIN = "canary-administrator-0123456789abcdef"
WRITTEN = "sk-canary-written-into-the-file-0123456789"
PASSWORD = "canary-password-of-a-database"
#: What the client and its provider say to each other.
ASKED, ANSWERED = "canary-asked-of-the-model", "canary-answered-by-the-model"


class Whole:
    """A gateway, all that came out of it by where it came from, and the virtual key that was made there."""

    def __init__(self, upstream: Upstream, folder: Path) -> None:
        self.upstream, self.folder = upstream, folder
        self.environ = {"ADMIN_KEY": ADMIN, "KEK": new_key(), "PEPPER": "p" * 40, "TEST_UPSTREAM_KEY": FROM_ENVIRONMENT}
        self.environ["DATABASE"] = f"sqlite:///{folder}/comporta.db"
        config = {
            "server": {"admin_key": "env:ADMIN_KEY"},
            "providers": {"up": provider(upstream.url), "spare": provider(upstream.url, api_key="store:spare")},
            "models": {"test-model": "up", "spare-model": "spare"},
            "storage": {"url": "env:DATABASE", "pepper": "env:PEPPER"},
            "credentials": {"key": "env:KEK"},
            "llm": {"task_types": {}},
            "policies": {"authenticate": {"open": False, "staleness": "100ms"}, "retry": False},
        }
        self.gateway = Gateway(config, folder, self.environ)
        self.told: list[tuple[str, str]] = [("ready", json.dumps(self.gateway.ready))]
        self.admin("PUT", "/admin/credentials/spare", {"secret": STORED})
        self.admin("POST", "/admin/users", {"id": "ada"})
        self.key: str = self.made("POST", "/admin/keys", {"user_id": "ada"})

    def made(self, method: str, path: str, body: dict[str, Any]) -> str:
        """The key in the answer that makes it, which is the one place for it."""
        answer = self._asked(self.gateway.admin, method, path, json.dumps(body).encode(), ADMIN)
        assert answer.status == 201, answer.body
        key: str = answer.json().pop("key")
        self.told.append((path, answer.body.decode().replace(key, "")))
        return key

    def admin(self, method: str, path: str, body: dict[str, Any] | None = None, *, key: str = ADMIN, **headers: str) -> Answer:
        answer = self._asked(self.gateway.admin, method, path, b"" if body is None else json.dumps(body).encode(), key, **headers)
        self.told.append((f"{method} {path}", f"{answer.headers} {answer.body.decode()}"))
        return answer

    def client(self, method: str, path: str, body: bytes = b"", key: str | None = None, **headers: str) -> Answer:
        answer = self._asked(self.gateway.url, method, path, body, key or self.key, **headers)
        self.told.append((f"client: {method} {path}", f"{answer.headers} {answer.body.decode()}"))
        return answer

    def command(self, *words: str, status: int = 0) -> None:
        result = CliRunner().invoke(main, words, env={**self.environ, "COMPORTA_CONFIG": str(self.gateway.config)})
        assert result.exit_code == status, (words, result.output)
        self.told.append((" ".join(words), result.output + repr(result.exception)))

    def written(self) -> Iterator[tuple[str, str]]:
        """What is on the disk, in the log, and to be seen by every user of the machine."""
        for path in self.folder.rglob("*"):
            if path.is_file():
                yield str(path), path.read_bytes().decode("latin-1")
        yield "log", json.dumps(self.gateway.lines) + repr(self.gateway.noise)

    def _asked(self, url: str, method: str, path: str, body: bytes, key: str, **headers: str) -> Answer:
        with RawClient(url, timeout=20.0) as client:
            return client.ask(method, path, body, headers={"Authorization": f"Bearer {key}", **headers})


@pytest.fixture
def whole(tmp_path: Path) -> Iterator[Whole]:
    upstream = Upstream(script(error_response(500, ANSWERED)))
    found = Whole(upstream, tmp_path)
    yield found
    found.gateway.stop()
    upstream.stop()


def talk(whole: Whole) -> None:
    """Requests that are answered, and requests that fail in as many ways as there are places to say why."""
    body = chat_body(messages=[{"role": "user", "content": ASKED}], user=ASKED, metadata={"note": ASKED})
    spare = chat_body("spare-model", messages=[{"role": "user", "content": ASKED}])
    streamed = chat_body(stream=True, messages=[{"role": "user", "content": ASKED}])
    good, stream = json_response(200, completion(ANSWERED)), sse(chat_chunks(ANSWERED))
    echo = error_response(401, f"Incorrect API key provided: {FROM_ENVIRONMENT}. {ASKED}", code="invalid_api_key")
    echo_stored = error_response(400, f"The key {STORED} may not do that. {ASKED}", param=STORED)
    paths = "/v1/chat/completions"
    broken = b"nonsense " + ANSWERED.encode()
    for answer, asked in ((good, body), (stream, streamed), (good, spare), (broken, body), (echo_stored, spare), (echo, body)):
        whole.upstream.play(answer)
        whole.client("POST", paths, asked, **{"X-Note": ASKED, "X-Client-Request-Id": ASKED})
    whole.client("POST", paths, chat_body("no-such-model", user=ASKED))
    whole.client("POST", paths, b'{"model": "test-model", "messages": "' + ASKED.encode() + b'"')
    whole.client("POST", f"/v1/{ASKED}?note={ASKED}", body)
    whole.client("GET", f"/v1/files/{ASKED}")
    whole.client("POST", paths, body, key=whole.key[:-1] + ("0" if whole.key[-1] != "0" else "1"))
    whole.client("POST", paths, body, **{"api-key": ADMIN})
    whole.client("GET", "/v1/models")
    whole.client("PUT", "/v1/users/llm-config", json.dumps({"preferred_model": "test-model", ASKED: ASKED}).encode())


def administer(whole: Whole) -> None:
    """All that can be asked of the admin plane, rightly and wrongly, and the commands that read the same."""
    document = whole.admin("GET", "/openapi.json").json()
    last = whole.client("GET", "/v1/models").header("x-request-id") or ""
    for path in [path for path, methods in document["paths"].items() if "get" in methods]:
        for id in (last, "ada", whole.key[7:19]) if "{id}" in path else ("",):
            filled = path.replace("{id}", id).replace("{name}", "spare")
            whole.admin("GET", filled)
            assert whole.admin("GET", filled, key=whole.key).status == 401
    whole.admin("GET", "/admin/config/preview?user=ada&model=test-model")
    whole.admin("POST", "/admin/credentials/spare/test", {})
    whole.admin("POST", "/admin/keys", {"user_id": STORED, "key": whole.key})
    whole.admin("PUT", "/admin/credentials/spare", {"secret": STORED, "note": STORED})
    whole.admin("GET", f"/admin/users/{ASKED}")
    whole.admin("GET", "/metrics", Accept="application/openmetrics-text")
    whole.admin("GET", "/metrics")
    whole.admin("GET", "/readyz?verbose")
    whole.command("config", "show")
    whole.command("credentials", "list")
    whole.command("keys", "list")
    whole.command("audit", "list")
    whole.command("check")


def break_the_configuration(whole: Whole) -> None:
    """A key and a password in the file: refused, shown, kept as a version, and never repeated."""
    good = whole.gateway.config.read_text()
    bad = good.replace("env:TEST_UPSTREAM_KEY", WRITTEN).replace("env:DATABASE", f"postgresql://ada:{PASSWORD}@host/name")
    assert WRITTEN in bad and PASSWORD in bad
    whole.gateway.config.write_text(bad)
    whole.gateway.process.send_signal(signal.SIGHUP)
    whole.gateway.wait_line("configuration_refused")
    assert whole.admin("GET", "/admin/config").json()["problems"]
    whole.command("check", status=2)
    whole.admin("POST", "/admin/config/validate", {"text": bad})
    assert whole.admin("PUT", "/admin/config", {"text": bad}).status == 400
    assert whole.admin("PUT", "/admin/config", {"text": good}).status == 200
    whole.admin("GET", "/admin/config/versions")
    for number in (1, 2, 3):
        whole.admin("GET", f"/admin/config/versions/{number}")


def test_no_secret_and_no_prompt_comes_out_anywhere(whole: Whole):
    talk(whole)
    assert len(whole.upstream.requests) == 6, "the provider was asked with both keys"
    assert {request.header("authorization") for request in whole.upstream.requests} == {f"Bearer {FROM_ENVIRONMENT}", f"Bearer {STORED}"}
    whole.client("GET", "/v1/models")
    administer(whole)
    break_the_configuration(whole)
    process = Path("/proc", str(whole.gateway.process.pid))
    whole.told.append(("cmdline", (process / "cmdline").read_bytes().decode()))
    whole.gateway.stop()
    found = [*whole.told, *whole.written()]
    secrets = {FROM_ENVIRONMENT, STORED, ADMIN, WRITTEN, PASSWORD, whole.key, whole.key.partition("_")[2], whole.environ["KEK"]}
    assert [(secret[:20], where[-80:]) for secret in secrets for where, text in found if secret in text] == []
    ours = [(where, text) for where, text in found if not where.startswith("client: ") and ASKED not in where]
    assert [(said, where[-80:]) for said in (ASKED, ANSWERED) for where, text in ours if said in text] == []
