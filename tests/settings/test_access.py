"""Who needs a key, out of what is written and where it listens; and what may stand in `storage` and `state`."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from policies.authenticate import AuthenticateSettings
from providers.settings import NetworkSettings
from proxy.settings import ServerSettings, Settings
from proxy.settings.access import is_exposed, is_open, is_said_open, needs_storage, stored_credentials
from proxy.settings.storage import StateSettings, StorageSettings
from tests.settings.conftest import Refused

LOCAL = ["127.0.0.1:8080", "127.9.9.9:0", "[::1]:8080", "localhost:8080"]
BEYOND = ["0.0.0.0:8080", "[::]:8080", "192.0.2.1:8080", "10.0.0.1:80", "gateway.example.org:80"]


def settings(listen: str, policy: Any = None, **more: Any) -> Settings:
    policies = {} if policy is None else {"authenticate": policy}
    return Settings(server=ServerSettings(listen=listen), policies=policies, **more)


@pytest.mark.parametrize("listen", LOCAL + BEYOND)
def test_unless_it_is_said_only_loopback_is_open(listen: str):
    for policy in (None, AuthenticateSettings()):
        found = settings(listen, policy)
        assert is_open(found) is (listen in LOCAL)
        assert is_exposed(found) is (listen in BEYOND)
        assert is_open(found, exposed=True) is False
        assert is_open(found, exposed=False) is True
        assert is_said_open(found) is False


@pytest.mark.parametrize("exposed", [None, True, False])
@pytest.mark.parametrize("listen", LOCAL[:1] + BEYOND[:1])
def test_what_is_said_holds_wherever_it_listens(listen: str, exposed: bool | None):
    for policy in (AuthenticateSettings(open=True), False):
        assert is_open(settings(listen, policy), exposed=exposed)
        assert is_said_open(settings(listen, policy))
    assert not is_open(settings(listen, AuthenticateSettings(open=False)), exposed=exposed)


def test_storage_is_needed_where_keys_are_or_where_it_is_configured():
    assert not needs_storage(settings(LOCAL[0]))
    assert needs_storage(settings(LOCAL[0]), exposed=True)
    assert needs_storage(settings(BEYOND[0]))
    assert not needs_storage(settings(BEYOND[0], AuthenticateSettings(open=True)))
    assert needs_storage(settings(LOCAL[0], storage=StorageSettings()))


def test_storage_is_needed_where_a_providers_key_is_stored():
    network = NetworkSettings(base_url="https://a.example/v1", api_key="store:spare", api_keys=("env:KEY", "store:spare", "store:other"))
    plain = NetworkSettings(base_url="https://a.example/v1", api_key="env:KEY")
    found = settings(LOCAL[0]).model_copy(update={"providers": {"a": network, "b": plain}})
    assert needs_storage(found)
    assert stored_credentials(found) == {"spare": ["a"], "other": ["a"]}
    assert not needs_storage(found.model_copy(update={"providers": {"b": plain}}))


@pytest.mark.parametrize(
    "url", ["sqlite:////var/lib/a.db", "sqlite:///a.db", "postgresql://me@host/name", "postgresql:///name", "env:URL", "file:/run/url"]
)
def test_a_database_is_named_by_a_url_or_a_reference(url: str):
    assert StorageSettings(url=url).url == url


@pytest.mark.parametrize("url", ["mysql://host/a", "a.db", "", "postgresql://me:hunter2@host/name", "postgresql+asyncpg://host/a", "env:"])
def test_a_database_is_named_in_no_other_way_and_a_password_is_not_repeated(url: str):
    with pytest.raises(ValidationError) as caught:
        StorageSettings(url=url)
    assert "hunter2" not in caught.value.errors()[0]["msg"]


@pytest.mark.parametrize("url", ["sqlite:", "sqlite://", "sqlite:///", "sqlite://a.db", "sqlite:////var/lib/", "sqlite:///:memory:"])
def test_a_sqlite_database_is_a_file(url: str):
    with pytest.raises(ValidationError, match=r"wants a file, such as sqlite:////"):
        StorageSettings(url=url)


@pytest.mark.parametrize("url", ["memory:", "redis://host:6379/0", "rediss://host", "unix:///run/redis.sock", "env:REDIS_URL"])
def test_shared_state_is_named_likewise(url: str):
    assert StateSettings(url=url).url == url


@pytest.mark.parametrize("url", ["memory", "http://host", "redis://:hunter2@host"])
def test_shared_state_is_named_in_no_other_way(url: str):
    with pytest.raises(ValidationError):
        StateSettings(url=url)


def test_a_shared_database_needs_a_pepper(refused: Refused):
    (problem,) = refused('storage: {url: "postgresql://me@host/name"}')
    assert problem.path == "storage.pepper"


def test_a_password_in_the_file_is_refused_with_what_to_write_instead(refused: Refused):
    (problem,) = refused('storage: {url: "postgresql://me:hunter2@host/name", pepper: "env:PEPPER"}')
    assert problem.path == "storage.url"
    assert "hunter2" not in str(problem)
    assert "env:NAME" in str(problem)
