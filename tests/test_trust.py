"""aiohttp's own TLS contexts: nobody reads certificates for them before somebody makes a connection with them, and then they are whole."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.gateway import ROOT

_SHOWN = """
import ssl
import proxy.app
from aiohttp import connector

{use}
print(len(connector._SSL_CONTEXT_VERIFIED.get_ca_certs()), len(ssl.create_default_context().get_ca_certs()))
"""
_FIRST = "connector._SSL_CONTEXT_VERIFIED.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname='localhost')"


def _certificates(use: str) -> tuple[int, int]:
    """How many aiohttp's context trusts in a process that has loaded the gateway, and how many the system does."""
    command = [sys.executable, "-c", _SHOWN.format(use=use)]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    return int(shown[0]), int(shown[1])


def test_a_start_reads_no_certificates():
    assert _certificates("pass")[0] == 0


@pytest.mark.parametrize("times", [1, 2])
def test_who_uses_the_contexts_finds_them_whole(times: int):
    found, expected = _certificates("\n".join([_FIRST] * times))
    assert found == expected
