"""What a principal may do: every limit, and that whatever is not listed is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.call import Principal
from proxy.core.permissions import PLAIN, grant_for, may_ask, may_come_from, may_use

NETWORKS = ("10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "nonsense")


@pytest.mark.parametrize(
    ("operation", "method", "path", "grant"),
    [
        ("chat", "POST", "/chat/completions", None),
        ("models", "GET", "/models/fast", None),
        ("models", "DELETE", "/models/ft:one", "fine_tuning"),
        ("audio", "POST", "/audio/speech", None),
        ("audio", "POST", "/audio/voices", "voices"),
        ("audio", "GET", "/audio/voice_consents", "voices"),
        ("audio", "DELETE", "/audio/voices/v", "voices"),
        ("rerank", "POST", "/rerank", None),
        ("tokenize", "POST", "/detokenize", None),
        ("decisions", "POST", "/decisions", None),
        ("realtime", "POST", "/realtime/client_secrets", "realtime"),
        ("vaults", "GET", "/vaults/v/credentials", "vaults"),
        ("webhooks", "POST", "/webhook_endpoints/w/rotate_secret", "webhooks"),
        ("files", "GET", "/files", "files"),
        ("videos", "POST", "/videos", "videos"),
        ("stored_response", "GET", "/responses/x", "stored_response"),
        ("something_new", "POST", "/new", "something_new"),
    ],
)
def test_what_touches_the_shared_account_needs_a_grant(operation: str, method: str, path: str, grant: str | None):
    assert grant_for(operation, method, path) == grant
    assert may_ask(Principal(key="k"), operation, method, path) is (grant is None)
    assert may_ask(Principal(key="k", grants=frozenset({str(grant)})), operation, method, path)
    assert may_ask(Principal(key="k", operations=frozenset({operation})), operation, method, path) is (grant is None)
    assert may_ask(Principal(key="k", operations=frozenset()), operation, method, path) is False


def test_a_path_that_does_not_exist_is_refused_further_on():
    assert may_ask(Principal(key="k", operations=frozenset()), "unknown", "GET", "/nothing")


@given(st.text(), st.sampled_from(["GET", "POST", "DELETE"]), st.text())
def test_a_key_without_grants_has_plain_operations_only(operation: str, method: str, path: str):
    if may_ask(Principal(key="k"), operation, method, path):
        assert operation in PLAIN | {"unknown"}


@pytest.mark.parametrize(
    ("limits", "model", "provider", "may"),
    [
        ({}, "anything", "east", True),
        ({}, None, "east", True),
        ({"models": ("gpt-4*", "fast")}, "gpt-4.1", "east", True),
        ({"models": ("gpt-4*", "fast")}, "fast", "east", True),
        ({"models": ("gpt-4*", "fast")}, "faster", "east", False),
        ({"models": ("gpt-4*", "fast")}, "GPT-4", "east", False),
        ({"models": ("gpt-4*",)}, "east/gpt-4", "east", False),
        ({"models": ("gpt-4*",)}, None, "east", False),
        ({"models": ()}, "fast", "east", False),
        ({"providers": frozenset({"east"})}, "fast", "east", True),
        ({"providers": frozenset({"east"})}, "fast", "west", False),
        ({"providers": frozenset({"east"})}, None, "east", True),
        ({"providers": frozenset({"east"}), "models": ("fast",)}, "slow", "east", False),
    ],
)
def test_a_model_is_had_from_whom_the_key_may_ask(limits: dict[str, Any], model: str | None, provider: str, may: bool):
    assert may_use(Principal(key="k", **limits), model, provider) is may


@pytest.mark.parametrize(
    ("peer", "may"),
    [
        ("10.1.2.3", True),
        ("192.0.2.7", True),
        ("192.0.2.8", False),
        ("::ffff:10.1.2.3", True),
        ("2001:db8::1", True),
        ("2001:db9::1", False),
        ("2001:db8::1%eth0", True),
        ("local", False),
        ("", False),
        ("10.1.2.3.4", False),
    ],
)
def test_an_address_is_in_one_of_the_networks(peer: str, may: bool):
    assert may_come_from(NETWORKS, peer) is may
    assert may_come_from(None, peer)
    assert not may_come_from((), peer)
    assert not may_come_from(("nonsense",), peer)
