"""For whom a proxy asks: what trusted proxies wrote is believed, what a client wrote is not, and nonsense is nobody's address."""

from __future__ import annotations

from typing import Any

import pytest
from multidict import CIMultiDict

from proxy.core.permissions import may_come_from
from proxy.http.forwarded import Proxies, address_of

TRUSTED = ("10.0.0.0/8", "2001:db8:1::/48", "local")
PROXY = "10.0.0.1"


def client(*headers: tuple[str, str], peer: str = PROXY, trusted: tuple[str, ...] = TRUSTED) -> str:
    """Who asks, where `peer` hands on these headers."""
    behind = Proxies(trusted).behind(peer)
    return peer if behind is None else behind(CIMultiDict(headers))


def xff(*values: str) -> list[tuple[str, str]]:
    return [("X-Forwarded-For", value) for value in values]


def forwarded(*values: str) -> list[tuple[str, str]]:
    return [("Forwarded", value) for value in values]


@pytest.mark.parametrize("peer", ["192.0.2.1", "2001:db8:2::1", ""])
def test_who_is_no_trusted_proxy_is_the_client_whatever_it_writes(peer: str):
    assert client(*xff("198.51.100.1"), *forwarded("for=198.51.100.1"), peer=peer) == peer


def test_a_unix_socket_is_trusted_only_by_its_word():
    assert client(*xff("198.51.100.1"), peer="local") == "198.51.100.1"
    assert client(*xff("198.51.100.1"), peer="local", trusted=("0.0.0.0/0",)) == "local"


def test_a_proxy_that_writes_nothing_asks_for_itself():
    assert client() == PROXY


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["198.51.100.1"], "198.51.100.1"),
        (["198.51.100.1, 10.0.0.2"], "198.51.100.1"),
        (["198.51.100.1", "10.0.0.2, 10.0.0.3"], "198.51.100.1"),
        (["1.1.1.1, 198.51.100.1, 10.0.0.2"], "198.51.100.1"),  # what stands left is the client's word
        (["1.1.1.1", "198.51.100.1"], "198.51.100.1"),
        (["10.0.0.9, 10.0.0.2"], "10.0.0.9"),  # all are trusted: somebody inside asks
        (["198.51.100.1:4711"], "198.51.100.1"),
        (["[2001:db8::1]:443"], "2001:db8::1"),
        (["2001:db8::1"], "2001:db8::1"),
        (["2001:DB8:0::1, 2001:db8:1::7"], "2001:db8::1"),
        (["::ffff:198.51.100.1"], "198.51.100.1"),
        (["198.51.100.1 , , 10.0.0.2,"], "198.51.100.1"),
    ],
)
def test_x_forwarded_for_is_read_from_its_right_end(values: list[str], expected: str):
    assert client(*xff(*values)) == expected


@pytest.mark.parametrize(
    "value",
    [
        "",
        ",",
        "unknown",
        "198.51.100.1, unknown",
        "1.1.1.1, garbage, 10.0.0.2",
        "198.51.100.300",
        "198.51.100.1:port",
        "198.51.100.1:123456",
        "[198.51.100.1",
        "[]:1",
        "1" * 5000,
        "198.51.100.1;10.0.0.2",
        '"198.51.100.1"',
        "local",
        "0x7f000001",
        "\u0661.1.1.1",
    ],
)
def test_what_is_no_address_is_nobodys_and_passes_no_limit(value: str):
    assert client(*xff(value)) == ""
    assert not may_come_from(("0.0.0.0/0", "::/0"), "")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["for=198.51.100.1"], "198.51.100.1"),
        (["For=198.51.100.1;proto=https;by=10.0.0.1"], "198.51.100.1"),
        (['for="[2001:db8::1]:4711"'], "2001:db8::1"),
        (['for="198.51.100.1:80" ; host="a,b;c"'], "198.51.100.1"),
        (["for=198.51.100.1:80"], "198.51.100.1"),  # quotes forgotten
        (["for=1.1.1.1, for=198.51.100.1, for=10.0.0.2"], "198.51.100.1"),
        (["for=1.1.1.1", "for=198.51.100.1"], "198.51.100.1"),
        ([r'for="198\.51.100.1"'], "198.51.100.1"),
        (["for=unknown, for=198.51.100.1"], "198.51.100.1"),
        (['for=1.1.1.1;x="', "for=198.51.100.1"], "198.51.100.1"),  # an open quote ends with its line
    ],
)
def test_forwarded_is_read_from_its_right_end(values: list[str], expected: str):
    assert client(*forwarded(*values)) == expected


@pytest.mark.parametrize(
    "value",
    [
        "",
        "for=unknown",
        "for=_hidden",
        "by=198.51.100.1",
        "for=198.51.100.1;for=1.1.1.1",
        'for="198.51.100.1',
        'for=1.1.1.1;x=", for=198.51.100.1',  # the client opens a quote, the proxy goes on behind it
        'for="1.1.1.1, for="[2001:db8::1]"',
        "for",
        "for=198.51.100.1 for=1.1.1.1",
        "198.51.100.1",
        'for="";;',
        "=;=,=",
    ],
)
def test_a_forwarded_that_does_not_say_clearly_says_nothing(value: str):
    assert client(*forwarded(value)) == ""


def test_two_headers_are_believed_where_they_agree():
    assert client(*xff("198.51.100.1"), *forwarded("for=198.51.100.1")) == "198.51.100.1"
    assert client(*xff("198.51.100.1"), *forwarded("for=198.51.100.2")) == ""
    assert client(*xff("198.51.100.1"), *forwarded("")) == ""


@pytest.mark.parametrize(
    "line", ['for="' * 4000, "for=1.1.1.1;" * 4000, "," * 8000, "\\" * 8000, 'for="' + "\\" * 8000, " " * 8000 + "x", "x" * 8000]
)
def test_a_long_line_is_read_once(line: str):
    """Nothing here grows faster than the line does; where it did, this would take many minutes."""
    for _ in range(50):
        assert client(*forwarded(line)) == ""
        client(*xff(line))


@pytest.mark.parametrize(("hop", "expected"), [("fe80::1%eth0", "fe80::1%eth0"), (" 1.1.1.1", ""), ("1.1.1.1:_x", "1.1.1.1")])
def test_addresses_are_read_as_proxies_write_them(hop: str, expected: Any):
    assert address_of(hop) == expected
