"""What of an address goes on to the provider."""

from __future__ import annotations

import pytest
from aiohttp.http import HttpVersion11, RawRequestMessage
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from proxy.core import keys
from proxy.http.request_line import read

OURS = keys.generate()[1]


def query(text: str) -> str:
    """What is left of a query."""
    path = f"/v1/files?{text}"
    headers: CIMultiDict[str] = CIMultiDict()
    return read(
        RawRequestMessage("GET", path, HttpVersion11, CIMultiDictProxy(headers), (), False, None, False, False, URL(path, encoded=True))
    ).query


@pytest.mark.parametrize(
    "text", ["key=metadata.team&token=abc", "Key=1", "after=file_1&token=", "token", "limit=2&metadata%5Bkey%5D=x&a=%zz", "a=b;c", "x=sk-x"]
)
def test_a_parameter_goes_on_whatever_its_name(text: str) -> None:
    assert query(text) == text


@pytest.mark.parametrize("name", ["key", "token", "api_key", "auth", "x", "%6bey", "Authorization"])
@pytest.mark.parametrize(
    "value",
    [OURS, f"Bearer%20{OURS}", f"Bearer+{OURS}", OURS.replace("k", "%6b", 1), OURS.replace("-", "%2D"), OURS[:40]],
    ids=["plain", "bearer", "bearer and plus", "letter coded", "dash coded", "beginning"],
)
def test_a_key_of_ours_stays_here_whatever_it_is_called(name: str, value: str) -> None:
    assert query(f"a=1&{name}={value}&b=2") == "a=1&b=2"
    assert query(f"{name}={value}") == ""


@pytest.mark.parametrize("text", [f"{OURS}", f"{OURS}=1", f"a=1;key={OURS}"], ids=["name", "name of a value", "behind a semicolon"])
def test_nor_does_it_go_on_where_it_is_no_value(text: str) -> None:
    assert query(text) == ""


@pytest.mark.parametrize("name", ["api_key", "api-key", "apikey", "API_KEY", "access_token", "api%5Fkey"])
def test_what_can_only_be_a_key_stays_here_whosever_it_is(name: str) -> None:
    assert query(f"after=x&{name}=sk-somebodys&limit=1") == "after=x&limit=1"
