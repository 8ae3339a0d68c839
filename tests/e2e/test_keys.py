"""A gateway that wants keys, as its clients meet it: official client, raw sockets, a database of its own."""

from __future__ import annotations

import asyncio
import signal
import time
import zlib
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import openai
import pytest
import yaml

from proxy.core import keys as tokens
from proxy.core.clock import SystemClock
from proxy.keeping import database_url, pepper
from proxy.settings.storage import StorageSettings
from proxy.storage.database import Database
from proxy.storage.keys import Keys, NewKey
from proxy.storage.limits import Limits
from proxy.storage.users import Users
from tests.support.gateway import Gateway, error_of, provider
from tests.support.raw_client import Answer, RawClient, ask, chat, chat_body
from tests.support.script import CHAT, json_response, script
from tests.support.upstream import Upstream

T = TypeVar("T")

PATH = "/v1/chat/completions"
STALENESS = 0.5
FOREIGN = "sk-proj-somebody-elses-key-0123456789"


class Office:
    """Makes and takes back keys in the database of a gateway, from another process than the gateway's."""

    def __init__(self, folder: Path) -> None:
        self.environ = {"XDG_DATA_HOME": str(folder)}
        self.folder = folder / "comporta"
        self.url = database_url(StorageSettings(), self.environ)
        self.pepper = pepper(StorageSettings(), self.url, self.environ)
        self.made: list[str] = []

    def _do(self, work: Callable[[Database], Awaitable[T]]) -> T:
        async def done() -> T:
            database = Database(self.url, SystemClock())
            await database.open()
            try:
                return await work(database)
            finally:
                await database.close()

        return asyncio.run(done())

    def key(self, limits: Limits | None = None, *, lasts: float | None = None) -> str:
        """A new key of the user `ann`; `lasts` seconds from now."""
        public, token = tokens.generate()
        expires = None if lasts is None else datetime.now(UTC) + timedelta(seconds=lasts)
        digest = tokens.digest(token, self.pepper)
        new = NewKey(public, "ann", digest, token[-4:], limits=limits or Limits(), expires_at=expires)

        async def work(database: Database) -> None:
            if await Users(database).get("ann") is None:
                await Users(database).create("test", "ann")
            await Keys(database).create("test", new)

        self._do(work)
        self.made.append(token)
        return token

    def revoke(self, token: str) -> None:
        public = tokens.parse(token)
        assert public is not None

        async def work(database: Database) -> None:
            await Keys(database).revoke("test", public)

        self._do(work)


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Office:
    return Office(tmp_path_factory.mktemp("office"))


def configured(upstream: Upstream, **server: Any) -> dict[str, Any]:
    return {
        "server": server,
        "providers": {"up": provider(upstream.url)},
        "default_provider": "up",
        "policies": {"authenticate": {"open": False, "staleness": f"{int(STALENESS * 1000)}ms"}},
    }


@pytest.fixture(scope="module")
def closed(raw_upstream: Upstream, office: Office, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Gateway(configured(raw_upstream), tmp_path_factory.mktemp("closed"), office.environ) as running:
        yield running
        said = repr(running.lines)
        assert [token for token in (*office.made, FOREIGN) if token in said] == []


def asked(gateway: Gateway, token: str | None, method: str = "POST", path: str = PATH, **more: str) -> Answer:
    """One request that shows `token` and, by headers, `more`; nothing else."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    with RawClient(gateway.url) as client:
        written = client.request_bytes(method, path, chat_body() if method == "POST" else b"", headers={**headers, **more})
        client.send(written.replace(b"Authorization: Bearer sk-client-own-key\r\n", b""))
        return client.read(method)


def refused(answer: Answer, status: int, code: str) -> str:
    error = error_of(answer)
    assert (answer.status, error["code"], error["type"]) == (status, code, "invalid_request_error"), answer.body
    assert answer.header("www-authenticate") == ('Bearer realm="comporta"' if status == 401 else None)
    return str(error["message"])


# ------------------------------------------------------------------------------------------------------------------- who comes in
def test_the_official_client_comes_in_with_a_key_and_its_provider_never_sees_it(closed: Gateway, office: Office, upstream: Upstream):
    upstream.play(script(CHAT))
    token = office.key()
    with openai.OpenAI(base_url=f"{closed.url}/v1", api_key=token, max_retries=0) as client:
        assert client.chat.completions.create(model="test-model", messages=[{"role": "user", "content": "Hi"}]).choices
    assert token.encode() not in upstream.requests[0].raw_head


@pytest.mark.parametrize("made_up", [FOREIGN, tokens.generate()[1]], ids=["foreign", "unknown"])
def test_the_official_client_is_told_that_a_key_is_wrong_as_openai_tells_it(closed: Gateway, made_up: str):
    with openai.OpenAI(base_url=f"{closed.url}/v1", api_key=made_up, max_retries=0) as client:
        for request in (
            client.models.list,
            lambda: client.chat.completions.create(model="test-model", messages=[{"role": "user", "content": "Hi"}]),
        ):
            with pytest.raises(openai.AuthenticationError) as caught:
                request()
            assert (caught.value.status_code, caught.value.code, caught.value.type) == (401, "invalid_api_key", "invalid_request_error")
            assert made_up not in str(caught.value)


@pytest.mark.parametrize("header", ["Authorization", "api-key", "x-api-key"])
def test_a_key_may_stand_where_clients_put_it(closed: Gateway, office: Office, upstream: Upstream, header: str):
    upstream.play(script(CHAT))
    token = office.key()
    value = f"Bearer {token}" if header == "Authorization" else token
    assert asked(closed, None, **{header: value}).status == 200


def test_a_wrong_check_is_a_wrong_key(closed: Gateway, office: Office):
    token = office.key()
    last = "0" if token[-1] != "0" else "1"
    refused(asked(closed, token[:-1] + last), 401, "invalid_api_key")


def test_another_secret_under_a_known_id_is_a_wrong_key(closed: Gateway, office: Office):
    own, other = office.key(), tokens.generate()[1]
    body = own[:20] + other[20:53]
    forged = f"{body}_{zlib.crc32(body.encode()):08x}"
    assert tokens.parse(forged) == tokens.parse(own)
    refused(asked(closed, forged), 401, "invalid_api_key")


def test_two_keys_are_one_too_many(closed: Gateway, office: Office):
    refused(asked(closed, office.key(), **{"x-api-key": office.key()}), 400, "ambiguous_credentials")


def test_nobody_learns_what_there_is_without_a_key(closed: Gateway):
    for method, path in (("GET", "/v1/models"), ("GET", "/v1/models/test-model"), ("GET", "/v1/nothing"), ("GET", "/v1/files")):
        assert "didn't provide an API key" in refused(asked(closed, None, method, path), 401, "invalid_api_key")
    assert ask(closed.url, "GET", "/healthz").status == 200


# ----------------------------------------------------------------------------------------------------------------- the end of a key
def ends(gateway: Gateway, token: str, within: float) -> None:
    until = time.monotonic() + within
    while (answer := asked(gateway, token, "GET", "/v1/models")).status == 200:
        assert time.monotonic() < until, f"still good after {within} s"
        time.sleep(0.05)
    refused(answer, 401, "invalid_api_key")


def test_a_revoked_key_is_refused_within_the_bound(closed: Gateway, office: Office, upstream: Upstream):
    upstream.otherwise = script(json_response(200, {"object": "list", "data": []}))
    token = office.key()
    assert asked(closed, token, "GET", "/v1/models").status == 200
    office.revoke(token)
    ends(closed, token, STALENESS + 1.0)


def test_an_expired_key_is_refused_whatever_is_in_hand(closed: Gateway, office: Office, upstream: Upstream):
    upstream.otherwise = script(json_response(200, {"object": "list", "data": []}))
    unseen, token = office.key(lasts=1.0), office.key(lasts=3.0)
    assert asked(closed, token, "GET", "/v1/models").status == 200
    ends(closed, token, 4.0)
    refused(asked(closed, unseen), 401, "invalid_api_key")


# --------------------------------------------------------------------------------------------------------------------- what a key may
def test_objects_of_the_shared_account_need_a_grant(closed: Gateway, office: Office, upstream: Upstream):
    refused(asked(closed, office.key(), "GET", "/v1/files"), 403, "permission_denied")
    assert upstream.requests == []
    upstream.play(script(json_response(200, {"object": "list", "data": []})))
    assert asked(closed, office.key(Limits(grants=frozenset({"files"}))), "GET", "/v1/files").status == 200


def test_a_key_is_good_from_its_networks_only(closed: Gateway, office: Office, upstream: Upstream):
    refused(asked(closed, office.key(Limits(addresses=("10.0.0.0/8",)))), 403, "permission_denied")
    upstream.play(script(CHAT))
    assert asked(closed, office.key(Limits(addresses=("127.0.0.0/8", "::1")))).status == 200


def test_a_key_that_may_not_name_users_does_not(closed: Gateway, office: Office, upstream: Upstream):
    refused(asked(closed, office.key(), **{"x-comporta-user": "bob"}), 403, "permission_denied")
    upstream.play(script(CHAT))
    assert asked(closed, office.key(Limits(names_users=True)), **{"x-comporta-user": "bob"}).status == 200


@pytest.mark.parametrize("may_name", [False, True])
def test_a_body_gets_nobody_to_targets_that_are_meant_for_another_user(
    raw_upstream: Upstream, upstream: Upstream, office: Office, tmp_path: Path, may_name: bool
):
    targets = [{"provider": "up", "model": "vip", "when": {"user": "boss"}}, {"provider": "up", "model": "plain"}]
    with Gateway({**configured(raw_upstream), "models": {"m": {"targets": targets}}}, tmp_path, office.environ) as running:
        upstream.play(script(CHAT))
        headers = {"Authorization": f"Bearer {office.key(Limits(names_users=may_name))}"}
        assert ask(running.url, "POST", PATH, chat_body("m", user="boss"), headers=headers).status == 200
    assert upstream.requests[0].json()["model"] == ("vip" if may_name else "plain")


FIELD = 'Content-Disposition: form-data; name="model"\r\n\r\n{}\r\n'
SOUND = 'Content-Disposition: form-data; name="file"; filename="{}"\r\n\r\n{}\r\n'
ALLOWED, BARRED = FIELD.format("small-1"), FIELD.format("large-1")
HIDDEN = {
    "nothing but another": ([BARRED], "model_not_allowed"),
    "another one behind it": ([ALLOWED, BARRED], "ambiguous_model"),
    "another one behind it and 300 KB": ([ALLOWED, SOUND.format("a", "y" * 300_000), BARRED], "ambiguous_model"),
    "what looks like it in a file, before it": ([SOUND.format("a", f"\r\n{ALLOWED}"), BARRED], "model_not_allowed"),
    "another one without quotes": ([ALLOWED, BARRED.replace('"', "")], "ambiguous_model"),
    "another one, folded": ([ALLOWED, BARRED.replace("; name", ";\r\n name")], "invalid_form"),
    "another one as RFC 5987 has it": ([ALLOWED, BARRED.replace('name="model"', "name*=utf-8''model")], "invalid_form"),
    "its name in a file's name": ([SOUND.format('\\"; name=\\"model', "large-1"), ALLOWED], "invalid_form"),
    "another one after a bare line's end": ([ALLOWED, SOUND.format("a", "y\n--x\r\n" + BARRED)], "invalid_form"),
}


@pytest.mark.parametrize(("parts", "code"), HIDDEN.values(), ids=HIDDEN.keys())
def test_a_form_hides_no_model_from_a_keys_limits(closed: Gateway, office: Office, upstream: Upstream, parts: list[str], code: str):
    form = "".join("--x\r\n" + part for part in parts).encode() + b"--x--\r\n"
    headers = {"Authorization": f"Bearer {limited(office)}", "Content-Type": "multipart/form-data; boundary=x"}
    answer = ask(closed.url, "POST", "/v1/audio/transcriptions", form, headers=headers)
    assert (answer.status, error_of(answer)["code"]) == (403 if code == "model_not_allowed" else 400, code)
    assert upstream.requests == []


def test_a_key_that_is_limited_to_models_may_send_forms_for_them(closed: Gateway, office: Office, upstream: Upstream):
    form = f"--x\r\n{SOUND.format('a', f'{BARRED}y')}--x\r\n{ALLOWED}--x--\r\n".encode()
    upstream.play(script(CHAT))
    headers = {"Authorization": f"Bearer {limited(office)}", "Content-Type": "multipart/form-data; boundary=x"}
    assert ask(closed.url, "POST", "/v1/audio/transcriptions", form, headers=headers).status == 200
    assert upstream.requests[0].body == form


def limited(office: Office) -> str:
    return office.key(Limits(models=("small-*",)))


# ----------------------------------------------------------------------------------------------------------------------- hostile clients
@pytest.mark.parametrize(
    "shown",
    [
        "Bearer '",
        'Bearer " OR 1=1 --',
        "Bearer sk-cmp-'; DROP TABLE virtual_keys; --",
        "Bearer sk-cmp-" + "'" * (tokens.LENGTH - 7),
        "Bearer sk-cmp-%00%27{{7*7}}${x}",
        "Bearer " + "a" * 4000,
        "Bearer sk-cmp-" + "a" * 4000,
        "Basic YTpi",
        "Bearer",
        "\x80\xff\xfe",
        "Bearer sk-cmp-" + "\xff" * (tokens.LENGTH - 7),
    ],
    ids=lambda shown: ascii(shown)[:40],
)
def test_whatever_is_shown_is_refused_and_not_repeated(closed: Gateway, office: Office, shown: str):
    with RawClient(closed.url) as client:
        head = f"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: {shown}\r\n\r\n".encode("latin-1")
        client.send(head)
        answer = client.read()
    message = refused(answer, 401, "invalid_api_key")
    assert len(shown) < 12 or shown[7:].encode("latin-1") not in answer.body, message
    assert Path(office.url.removeprefix("sqlite:///")).exists()


@pytest.mark.parametrize(("shown", "status"), [(b"Bearer a\0b", 400), (b"Bearer " + b"a" * 2**20, 431)], ids=["NUL", "1 MB"])
def test_what_is_no_http_is_refused_as_such(closed: Gateway, shown: bytes, status: int):
    with RawClient(closed.url) as client:
        client.send(b"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: " + shown + b"\r\n\r\n")
        assert client.read().status == status


def test_a_stranger_is_answered_before_the_body_and_asked_for_none(closed: Gateway):
    with RawClient(closed.url) as client:
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n"
        client.send(head + b"Expect: 100-continue\r\n\r\n")
        answer = client.read("POST")
    refused(answer, 401, "invalid_api_key")
    assert (answer.header("connection") or "").lower() == "close"


def test_a_known_client_is_asked_to_go_on(closed: Gateway, office: Office, upstream: Upstream):
    upstream.play(script(CHAT))
    body = chat_body()
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {office.key()}\r\nExpect: 100-continue\r\n"
    with RawClient(closed.url) as client:
        client.send(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode())
        assert client.read("POST").status == 100
        client.send(body)
        assert client.read("POST").status == 200


def test_no_key_is_on_the_disk(closed: Gateway, office: Office):
    token = office.key()
    assert asked(closed, token, "GET", "/v1/nothing").status == 404
    for file in office.folder.iterdir():
        assert file.stat().st_mode & 0o077 == 0, file
        assert token[20:53].encode() not in file.read_bytes(), file


# ------------------------------------------------------------------------------------------------------------------- when it is open
def test_beyond_loopback_keys_are_asked_for_unless_it_is_said_that_none_are(raw_upstream: Upstream, office: Office, tmp_path: Path):
    config = configured(raw_upstream)
    del config["policies"]
    with Gateway(config, tmp_path, office.environ, listen="0.0.0.0:0") as running:
        url = running.url.replace("0.0.0.0", "127.0.0.1")  # noqa: S104 - where it listens, not where it is
        refused(ask(url, "GET", "/v1/models"), 401, "invalid_api_key")
    config["policies"] = {"authenticate": {"open": True}}
    with Gateway(config, tmp_path, {"XDG_DATA_HOME": "/dev/null"}, listen="0.0.0.0:0") as running:
        url = running.url.replace("0.0.0.0", "127.0.0.1")  # noqa: S104 - as above
        assert ask(url, "GET", "/v1/nothing").status == 404
        running.wait_line("open_to_everyone")


def test_on_loopback_other_keys_are_ignored_and_nothing_is_stored(upstream: Upstream, raw_upstream: Upstream, tmp_path: Path):
    config = configured(raw_upstream)
    del config["policies"]
    upstream.play(script(CHAT))
    with Gateway(config, tmp_path, {"XDG_DATA_HOME": str(tmp_path)}) as running:
        assert chat(running.url, headers={"Authorization": f"Bearer {FOREIGN}"}).status == 200
        refused(chat(running.url, headers={"Authorization": f"Bearer {tokens.generate()[1]}"}), 401, "invalid_api_key")
    assert not (tmp_path / "comporta").exists()


def test_a_reload_closes_an_open_gateway(raw_upstream: Upstream, office: Office, tmp_path: Path):
    config = configured(raw_upstream)
    with Gateway({**config, "policies": {}}, tmp_path, office.environ) as running:
        assert asked(running, None, "GET", "/v1/nothing").status == 404
        running.config.write_text(yaml.safe_dump(config))
        running.process.send_signal(signal.SIGHUP)
        running.wait_line("configuration_applied")
        refused(asked(running, None, "GET", "/v1/nothing"), 401, "invalid_api_key")
        assert asked(running, office.key(), "GET", "/v1/nothing").status == 404


def test_several_workers_know_the_same_keys(raw_upstream: Upstream, tmp_path: Path):
    """Started together on an empty folder: they agree on the pepper and on the tables."""
    with Gateway(configured(raw_upstream, workers=2), tmp_path, {"XDG_DATA_HOME": str(tmp_path)}) as running:
        office = Office(tmp_path)
        token = office.key()
        for _ in range(8):
            assert asked(running, token, "GET", "/v1/nothing").status == 404
            refused(asked(running, None, "GET", "/v1/nothing"), 401, "invalid_api_key")
