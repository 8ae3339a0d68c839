"""Content codings: decoded whole and in pieces, damaged, cut, too large, unknown; row 28 of docs/faults.md."""

from __future__ import annotations

import gzip
import zlib

import pytest

from proxy.coding import decoder_for
from proxy.core.errors import UpstreamError
from tests.core.doubles import every_cut

TEXT = b'{"choices":[{"message":{"content":"hello, hello, hello"}}]}'


def _bare(data: bytes) -> bytes:
    made = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return made.compress(data) + made.flush()


CODED = {
    "gzip": gzip.compress(TEXT, mtime=0),
    "x-gzip": gzip.compress(TEXT, mtime=0),
    " GZIP ": gzip.compress(TEXT, mtime=0),
    "deflate": zlib.compress(TEXT),
}


def decoded(coding: str, *parts: bytes, cap: int = 2**20) -> bytes:
    decoder = decoder_for(coding, cap)
    assert decoder is not None
    found = b"".join(decoder.feed(part) for part in parts)
    decoder.eof()
    return found


@pytest.mark.parametrize("coding", ["", "identity", " Identity "])
def test_no_coding_needs_no_decoder(coding: str):
    assert decoder_for(coding, 100) is None


@pytest.mark.parametrize(("coding", "data"), CODED.items(), ids=CODED.keys())
def test_a_coding_is_decoded_wherever_it_is_cut(coding: str, data: bytes):
    for parts in every_cut(data):
        assert decoded(coding, *parts) == TEXT


def test_deflate_without_its_wrapping_is_decoded_too():
    for parts in every_cut(_bare(TEXT)):
        assert decoded("deflate", *parts) == TEXT


def test_a_gzip_of_several_members_is_their_sum():
    for parts in every_cut(gzip.compress(TEXT, mtime=0) + gzip.compress(b"more")):
        assert decoded("gzip", *parts) == TEXT + b"more"


def test_no_bytes_at_all_are_an_empty_body():
    assert decoded("gzip") == decoded("deflate") == decoded("gzip", b"") == b""


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_cut_is_told_wherever_it_falls(coding: str):
    whole = CODED[coding]
    for end in range(1, len(whole)):
        with pytest.raises(UpstreamError) as caught:
            decoded(coding, whole[:end])
        assert caught.value.kind == "bad_upstream"


@pytest.mark.parametrize(
    ("coding", "data"),
    [
        ("gzip", b"this is no gzip"),
        ("gzip", zlib.compress(TEXT)),
        ("deflate", b"\xff\xff\xff\xff"),
        ("gzip", CODED["gzip"][:-6] + b"\0\0\0\0\0\0"),
        ("gzip", CODED["gzip"] + b"rubbish after the end"),
    ],
)
def test_damage_is_told(coding: str, data: bytes):
    for parts in ((data,), tuple(data[at : at + 1] for at in range(len(data)))):
        with pytest.raises(UpstreamError) as caught:
            decoded(coding, *parts)
        assert caught.value.kind == "bad_upstream"


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_the_cap_counts_decoded_bytes(coding: str):
    assert decoded(coding, CODED[coding], cap=len(TEXT)) == TEXT
    with pytest.raises(UpstreamError) as caught:
        decoded(coding, CODED[coding], cap=len(TEXT) - 1)
    assert caught.value.kind == "response_too_large"


def test_the_cap_holds_over_all_pieces():
    parts = [gzip.compress(TEXT, mtime=0)] * 3
    assert decoded("gzip", *parts, cap=3 * len(TEXT)) == 3 * TEXT
    with pytest.raises(UpstreamError):
        decoded("gzip", *parts, cap=3 * len(TEXT) - 1)


def test_a_bomb_bursts_before_its_memory_is_spent():
    made = zlib.compressobj(9, wbits=16 + zlib.MAX_WBITS)
    bomb = b"".join(made.compress(bytes(2**20)) for _ in range(64)) + made.flush()
    assert len(bomb) < 2**17
    with pytest.raises(UpstreamError) as caught:
        decoded("gzip", bomb, cap=2**16)
    assert caught.value.kind == "response_too_large"


def test_a_body_larger_than_one_step_comes_whole():
    data = bytes(range(256)) * 2**13
    assert decoded("gzip", gzip.compress(data, mtime=0), cap=len(data)) == data


@pytest.mark.parametrize("coding", ["zstd", "compress", "gzip, gzip", "x" * 500])
def test_a_coding_that_is_not_known_is_refused(coding: str):
    with pytest.raises(UpstreamError) as caught:
        decoder_for(coding, 100)
    assert caught.value.kind == "bad_upstream"
    assert len(caught.value.detail or "") <= 40


@pytest.mark.parametrize("status", [199, 301, 400, 429, 503])
def test_a_refusal_in_a_coding_that_is_not_known_fails_for_who_reads_it(status: int):
    decoder = decoder_for("zstd", 100, status)
    assert decoder is not None
    decoder.eof()
    with pytest.raises(UpstreamError):
        decoder.feed(b"x")
