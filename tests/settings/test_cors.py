"""Origins of pages: as browsers write them, or told how to."""

from __future__ import annotations

import pytest

from tests.settings.conftest import Load, Refused


def _text(*origins: str) -> str:
    return f"server:\n  cors:\n    origins: {list(origins)}\n"


@pytest.mark.parametrize(
    ("written", "origin"),
    [
        ("https://app.example.com", "https://app.example.com"),
        ("HTTPS://App.Example.COM:443", "https://app.example.com"),
        ("http://app.example.com:80", "http://app.example.com"),
        ("http://app.example.com:443", "http://app.example.com:443"),
        ("http://localhost:03000", "http://localhost:3000"),
        ("http://[0:0::1]:3000", "http://[::1]:3000"),
        ("chrome-extension://abcdefghijklmnop", "chrome-extension://abcdefghijklmnop"),
        ("null", "null"),
        ("*", "*"),
    ],
)
def test_an_origin_is_kept_as_browsers_write_it(loaded: Load, written: str, origin: str):
    cors = loaded(_text(written)).settings.server.cors
    assert cors is not None
    assert (cors.origins, cors.max_age) == ((origin,), 600.0)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("https://app.example.com/", 'has something behind the origin; write "https://app.example.com"'),
        ("https://app.example.com/chat?x=1", 'has something behind the origin; write "https://app.example.com"'),
        ("app.example.com", 'has no scheme; write "https://app.example.com"'),
        ("localhost:3000", 'has no scheme; write "http://localhost:3000"'),
        ("https://*.example.com", "list each origin"),
        ("https://b\xfccher.example", "xn--"),
        ("https://me:secret@app.example.com", "wants SCHEME://HOST"),
        ("http://[:::]", "wants SCHEME://HOST"),
        ("https://app.example.com:0", "a port that is none"),
        ("https://app.example.com:70000", "a port that is none"),
        ("", "wants SCHEME://HOST"),
    ],
)
def test_what_is_no_origin_is_told_with_what_to_write(refused: Refused, written: str, said: str):
    (problem,) = refused(_text("https://good.example", written))
    assert (problem.line, problem.path) == (3, "server.cors.origins[1]")
    assert said in problem.message
    assert "secret" not in str(problem)


@pytest.mark.parametrize(
    ("cors", "said"),
    [
        ("{origin: [null]}", "did you mean 'origins'?"),
        ("{}", "server.cors.origins: is missing"),
        ("{origins: []}", "leave cors out"),
        ("{origins: [null]}", "text, in quotes"),
        ("{origins: ['*', 'https://app.example.com']}", "stands alone"),
        ("{origins: ['null'], max_age: 10}", "no unit"),
    ],
)
def test_what_is_wrong_around_them_is_told(refused: Refused, cors: str, said: str):
    assert said in "\n".join(map(str, refused(f"server: {{cors: {cors}}}")))


def test_every_page_and_no_key_is_told(loaded: Load):
    def warnings(more: str, *origins: str) -> str:
        return "\n".join(map(str, loaded(_text(*origins) + more).warnings))

    asks = "policies: {authenticate: {open: false}}"
    assert "server.cors.origins: any page" in warnings("", "*")
    assert warnings(asks, "*") == warnings("", "https://app.example.com") == ""
