"""aiohttp's own TLS contexts: nobody reads certificates for them before somebody makes a connection with them, and then they are whole."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.gateway import ROOT

_SHOWN = """
import ssl
import {module}
from aiohttp import connector

{use}
print(len(connector._SSL_CONTEXT_VERIFIED.get_ca_certs()), len(ssl.create_default_context().get_ca_certs()))
"""
_FIRST = "connector._SSL_CONTEXT_VERIFIED.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname='localhost')"


def _certificates(use: str, module: str = "proxy.app") -> tuple[int, int]:
    """How many aiohttp's context trusts in a process that has loaded the gateway, and how many the system does."""
    command = [sys.executable, "-c", _SHOWN.format(use=use, module=module)]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    return int(shown[0]), int(shown[1])


@pytest.mark.parametrize("module", ["comporta.cli.serve", "proxy.app", "proxy.worker"])
def test_a_start_reads_no_certificates(module: str):
    assert _certificates("pass", module)[0] == 0


def test_a_command_that_serves_nothing_does_without_aiohttp():
    shown = [sys.executable, "-c", "import comporta.cli.check, sys; print('aiohttp' in sys.modules)"]
    assert subprocess.run(shown, cwd=ROOT, capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.parametrize("times", [1, 2])
def test_who_uses_the_contexts_finds_them_whole(times: int):
    found, expected = _certificates("\n".join([_FIRST] * times))
    assert found == expected
