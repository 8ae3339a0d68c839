"""Which model a form asks for: the gateway's reading must be every provider's."""

from __future__ import annotations

import email
import random
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.errors import ClientError
from proxy.http.form import MAX_HEADERS, MAX_PARTS, FormReader, boundary_of
from tests.core.doubles import every_cut

NAMED = b'Content-Disposition: form-data; name="model"'
FILE = b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav'
OTHER = b'Content-Disposition: form-data; name="other"'


def form(*parts: tuple[bytes, bytes], boundary: bytes = b"b") -> bytes:
    """A form of parts: headers without the last line's end, and content."""
    return b"".join(b"--%b\r\n%b\r\n\r\n%b\r\n" % (boundary, *part) for part in parts) + b"--%b--\r\n" % boundary


MODEL = (NAMED, b"whisper-1")
SOUND = (FILE, b"RIFF\x00\xff\r\n\r\n\x01\r\n--")


def read(*pieces: bytes, boundary: bytes = b"b") -> tuple[bytes | None, bytes]:
    """The model of a form, and what was passed on of it. Raises ClientError."""
    reader, passed, model = FormReader(boundary), b"", None
    for piece in pieces:
        more = reader.feed(piece)
        if model is None and reader.model is not None:
            model = more[reader.model_at]
        passed += more
    assert model == reader.model
    return model, passed + reader.end()


def refusal(*pieces: bytes) -> tuple[str | None, bytes]:
    """The code with which a form is refused, and what was passed on of it before."""
    reader, passed = FormReader(b"b"), b""
    with pytest.raises(ClientError) as caught:
        for piece in pieces:
            passed += reader.feed(piece)
        passed += reader.end()
    assert caught.value.status == 400
    return caught.value.code, passed


# -- forms that everybody reads in the same way --

GOOD = {
    "model first": (form(MODEL, SOUND), b"whisper-1"),
    "model last": (form(SOUND, MODEL), b"whisper-1"),
    "model alone": (form(MODEL), b"whisper-1"),
    "no model": (form(SOUND, (OTHER, b"x")), None),
    "no parts": (b"--b--\r\n", None),
    "no line's end at its end": (form(MODEL)[:-2], b"whisper-1"),
    "a line's end before its beginning": (b"\r\n" + form(MODEL), b"whisper-1"),
    "an empty model": (form((NAMED, b"")), b""),
    "an empty file": (form((FILE, b""), MODEL), b"whisper-1"),
    "a model of many lines": (form((NAMED, b"a\r\nb")), b"a\r\nb"),
    "small letters": (form((NAMED.lower(), b"m")), b"m"),
    "large letters": (form((b'CONTENT-DISPOSITION: FORM-DATA; NAME="model"', b"m")), b"m"),
    "no quotes": (form((b"Content-Disposition: form-data; name=model", b"m")), b"m"),
    "spaces": (form((b'Content-Disposition:form-data ;\t name="model" ; ', b"m")), b"m"),
    "plain text": (form((NAMED + b"\r\nContent-Type: text/plain; charset=UTF-8", b"m\xc3\xa9")), b"m\xc3\xa9"),
    "a length, as OkHttp says it": (
        form((NAMED + b"\r\nContent-Length: 9", b"whisper-1"), (FILE + b"\r\nContent-Length: 3", b"abc")),
        b"whisper-1",
    ),
    "what Apache's client says": (
        form((NAMED + b"\r\nContent-Type: text/plain; charset=ISO-8859-1\r\nContent-Transfer-Encoding: 8bit", b"m")),
        b"m",
    ),
    "a name that ends alike": (form((b'Content-Disposition: form-data; name="my-model"', b"no"), MODEL), b"whisper-1"),
    "a name that begins alike": (form((b'Content-Disposition: form-data; name="model_version"', b"no"), MODEL), b"whisper-1"),
    "lists and members": (
        form(
            (b'Content-Disposition: form-data; name="include[]"', b"x"),
            (b'Content-Disposition: form-data; name="metadata[model]"', b"x"),
            MODEL,
        ),
        b"whisper-1",
    ),
    "a file's name first": (form((b'Content-Disposition: form-data; filename="a"; name="file"', b"x"), MODEL), b"whisper-1"),
    "a file that is called model": (form((b'Content-Disposition: form-data; name="file"; filename="model"', b"x"), MODEL), b"whisper-1"),
    "a file's name with quotes, as older curls write it": (
        form((b'Content-Disposition: form-data; name="file"; filename="my \\"own\\" a.wav"', b"x"), MODEL),
        b"whisper-1",
    ),
    "a file's name in two ways": (
        form((b'Content-Disposition: form-data; name="file"; filename="a"; filename*=UTF-8\'\'%C3%A9', b"x"), MODEL),
        b"whisper-1",
    ),
    "a file that holds a form": (form((FILE, form(MODEL, boundary=b"c")), (NAMED, b"mine")), b"mine"),
    "a file that looks like a part": (form((FILE, b"\r\n" + NAMED + b"\r\n\r\nother\r\n"), (NAMED, b"mine")), b"mine"),
    "a boundary without its dashes": (form((FILE, b"\r\nb\r\n-b\r\n-\r\n--\r\n"), MODEL), b"whisper-1"),
}


@pytest.mark.parametrize(("raw", "model"), GOOD.values(), ids=GOOD.keys())
def test_a_forms_model_is_its_part_of_that_name_at_any_split(raw: bytes, model: bytes | None):
    for pieces in every_cut(raw):
        assert read(*pieces) == (model, raw)


# -- forms that two parsers may read differently --

BAD = {
    "two models": (form(MODEL, (NAMED, b"gpt-4")), "ambiguous_model"),
    "two models, a file between them": (form(MODEL, SOUND, (NAMED, b"gpt-4")), "ambiguous_model"),
    "the same model twice": (form(MODEL, MODEL), "ambiguous_model"),
    "a model without quotes behind another": (form(MODEL, (b"content-disposition: form-data; name=model", b"gpt-4")), "ambiguous_model"),
    "a name in RFC 5987's way": (form((b"Content-Disposition: form-data; name*=UTF-8''model", b"gpt-4")), "invalid_form"),
    "a name in pieces": (form((b'Content-Disposition: form-data; name*0="mo"; name*1="del"', b"gpt-4")), "invalid_form"),
    "a name in two ways": (form((b"Content-Disposition: form-data; name=\"x\"; name*=UTF-8''model", b"gpt-4")), "invalid_form"),
    "two names": (form((b'Content-Disposition: form-data; name="x"; name="model"', b"gpt-4")), "invalid_form"),
    "a name within a file's name": (
        form((b'Content-Disposition: form-data; filename="; name=model;"; name="x"', b"gpt-4")),
        "invalid_form",
    ),
    "a name behind an escaped quote": (
        form((b'Content-Disposition: form-data; name="x"; filename="\\"; name=\\"model"', b"a")),
        "invalid_form",
    ),
    "a name of another kind": (form((b'Content-Disposition: form-data; x-name="model"; name="x"', b"gpt-4")), "invalid_form"),
    "an escaped name": (form((b'Content-Disposition: form-data; name="mod\\el"', b"gpt-4")), "invalid_form"),
    "a name that some end earlier": (form((b'Content-Disposition: form-data; name="model; x"', b"gpt-4")), "invalid_form"),
    "a name in percents": (form((b'Content-Disposition: form-data; name="%6dodel"', b"gpt-4")), "invalid_form"),
    "a name in another case": (form((b'Content-Disposition: form-data; name="Model"', b"gpt-4")), "invalid_form"),
    "a name with a space": (form((b'Content-Disposition: form-data; name="model "', b"gpt-4")), "invalid_form"),
    "a name with an index": (form((b'Content-Disposition: form-data; name="model[0]"', b"gpt-4")), "invalid_form"),
    "a name as in a mail": (form((b'Content-Disposition: form-data; name="=?utf-8?q?model?="', b"gpt-4")), "invalid_form"),
    "a name that ends within": (form((b'Content-Disposition: form-data; name="model\0x"', b"gpt-4")), "invalid_form"),
    "no name": (form((b"Content-Disposition: form-data", b"gpt-4")), "invalid_form"),
    "a name that does not end": (form((b'Content-Disposition: form-data; name="model', b"gpt-4")), "invalid_form"),
    "a name with a space before its sign": (form((b'Content-Disposition: form-data; name ="model"', b"gpt-4")), "invalid_form"),
    "no headers": (b"--b\r\n\r\ngpt-4\r\n--b--\r\n", "invalid_form"),
    "no disposition": (form((b"Content-Type: text/plain", b"gpt-4")), "invalid_form"),
    "another disposition": (form((b'Content-Disposition: attachment; name="model"', b"gpt-4")), "invalid_form"),
    "two dispositions": (form((OTHER + b"\r\n" + NAMED, b"gpt-4")), "invalid_form"),
    "a disposition within a header": (
        form((b"X: \xe2\x80\xa8Content-Disposition: form-data; name=model\r\n" + OTHER, b"x")),
        "invalid_form",
    ),
    "a folded header": (form((b'Content-Disposition: form-data;\r\n name="model"', b"gpt-4")), "invalid_form"),
    "a folded header that hides one": (form((b"X: a\r\n " + NAMED + b"\r\n" + OTHER, b"gpt-4")), "invalid_form"),
    "a line's end of its own": (form((OTHER + b"\nX: y", b"gpt-4")), "invalid_form"),
    "a space before the colon": (form((b'Content-Disposition : form-data; name="model"', b"gpt-4")), "invalid_form"),
    "a header twice": (form((OTHER + b"\r\nContent-Type: a/b\r\ncontent-type: c/d", b"gpt-4")), "invalid_form"),
    "a form within the form": (form((FILE.replace(b"audio/wav", b"Multipart/Mixed; boundary=c"), b"x")), "invalid_form"),
    "a character set for all": (form((b'Content-Disposition: form-data; name="_charset_"', b"utf-7")), "invalid_form"),
    "a model that is a file": (form((NAMED + b'; filename="a"', b"gpt-4")), "invalid_form"),
    "a model that is no text": (form((NAMED + b"\r\nContent-Type: application/json", b'"gpt-4"')), "invalid_form"),
    "a model in other letters": (form((NAMED + b"\r\nContent-Type: text/plain; charset=utf-7", b"gpt+AC0-4")), "invalid_form"),
    "a model in Latin letters": (form((NAMED + b"\r\nContent-Type: text/plain; charset=iso-8859-1", b"\xc3\xa9")), "invalid_form"),
    "a model that is coded": (form((NAMED + b"\r\nContent-Transfer-Encoding: base64", b"Z3B0LTQ=")), "invalid_form"),
    "a model that is compressed": (form((NAMED + b"\r\nContent-Encoding: gzip", b"gpt-4")), "invalid_form"),
    "a model without end": (form((NAMED, b"x" * 1025)), "invalid_value"),
    "a length that is another": (form((FILE + b"\r\nContent-Length: 2", b"abc"), MODEL), "invalid_form"),
    "a length that is longer": (form((FILE + b"\r\nContent-Length: 200", b"abc"), MODEL), "invalid_form"),
    "a length that is none": (form((FILE + b"\r\nContent-Length: +3", b"abc"), MODEL), "invalid_form"),
    "something before it": (b"a\r\n" + form(MODEL), "invalid_form"),
    "two line's ends before it": (b"\r\n\r\n" + form(MODEL), "invalid_form"),
    "something after it": (form(MODEL) + b"--b\r\n" + NAMED + b"\r\n\r\ngpt-4\r\n--b--\r\n", "invalid_form"),
    "another boundary": (form(MODEL, boundary=b"c"), "invalid_form"),
    "a longer boundary": (form((FILE, b"x\r\n--bb\r\n" + NAMED + b"\r\n\r\ngpt-4"), MODEL), "invalid_form"),
    "spaces after a boundary": (b"--b \r\n" + NAMED + b"\r\n\r\ngpt-4\r\n--b--\r\n", "invalid_form"),
    "a boundary after a bare line's end": (form((FILE, b"x\n--b\r\n" + NAMED + b"\r\n\r\ngpt-4"), MODEL), "invalid_form"),
    "a boundary before a bare line's end": (form((FILE, b"x\r\n--b\n" + NAMED + b"\n\ngpt-4"), MODEL), "invalid_form"),
    "a boundary within a line": (form((FILE, b"x--b\r\n" + NAMED + b"\r\n\r\ngpt-4"), MODEL), "invalid_form"),
    "a boundary within a header": (form((FILE + b"\r\nX: --b", b"x"), MODEL), "invalid_form"),
    "a boundary right after headers": (b"--b\r\n" + OTHER + b"\r\n\r\n--b\r\n" + NAMED + b"\r\n\r\ngpt-4\r\n--b--\r\n", "invalid_form"),
    "bare line's ends": (form(MODEL).replace(b"\r\n", b"\n"), "invalid_form"),
    "no end": (form(MODEL, SOUND)[:-7], "invalid_form"),
    "no end of its model": (b"--b\r\n" + NAMED + b"\r\n\r\ngpt-4", "invalid_form"),
    "half an end": (form(MODEL)[:-3], "invalid_form"),
    "nothing": (b"", "invalid_form"),
    "headers without end": (b"--b\r\n" + NAMED + b"\r\nX: " + b"x" * MAX_HEADERS, "invalid_form"),
    "parts without end": (form(*[(OTHER, b"x")] * (MAX_PARTS + 1)), "invalid_form"),
}


@pytest.mark.parametrize(("raw", "code"), BAD.values(), ids=BAD.keys())
def test_a_form_that_can_be_read_in_two_ways_is_refused_and_its_end_never_passed_on(raw: bytes, code: str):
    cuts = every_cut(raw) if len(raw) < 1000 else [(raw,), tuple(raw[at : at + 1000] for at in range(0, len(raw), 1000))]
    for pieces in cuts:
        found, passed = refusal(*pieces)
        assert found == code
        assert raw.startswith(passed)
        assert b"--b--" not in passed
        assert b"gpt-4" not in passed, "what the gateway did not read as the model is on its way"


def test_a_model_that_comes_behind_what_is_held_back_is_refused():
    reader = FormReader(b"b")
    raw = form(SOUND, MODEL)
    passed = reader.feed(raw[:100])
    reader.go_on_without()
    with pytest.raises(ClientError) as caught:
        passed += reader.feed(raw[100:])
    assert (caught.value.code, caught.value.param) == ("model_too_late", "model")
    assert NAMED not in passed


@given(
    st.lists(st.sampled_from([b"--b", b"\r\n", b"--", b"b", b"\r", b"\n", NAMED, OTHER, b"\r\n\r\n", b"m", b"--b--\r\n"]), max_size=24),
    st.randoms(),
)
def test_no_split_of_any_bytes_changes_what_is_found(tokens: list[bytes], chance: random.Random):
    raw = b"--b\r\n" + b"".join(tokens)

    def verdict(*pieces: bytes) -> tuple[object, ...]:
        try:
            return read(*pieces)
        except ClientError as error:
            return (error.message,)

    whole = verdict(raw)
    cuts = sorted(chance.randint(0, len(raw)) for _ in range(chance.randint(0, 8)))
    assert verdict(*(raw[start:end] for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True))) == whole
    if len(whole) == 2:
        assert whole[1] == raw


def others_models(raw: bytes) -> list[list[bytes]]:
    """The models that a form has to two careless readers: the mail parser of the standard library, and one that splits wherever it can."""
    message = email.message_from_bytes(b"Content-Type: multipart/form-data; boundary=b\r\n\r\n" + raw)
    parts = [part for part in message.walk() if not part.is_multipart() and part.get_param("name", header="content-disposition") == "model"]
    mails = [bytes(part.get_payload(decode=True)) for part in parts] if message.is_multipart() else []
    split = []
    for part in raw.split(b"--b--")[0].split(b"--b")[1:]:
        head, _, content = part.partition(b"\r\n\r\n")
        said = re.split(rb"\ncontent-type", head, flags=re.IGNORECASE)[0]
        if any(re.fullmatch(rb'[\s"]*name\*?=[\s"]*model[\s"]*', each) for each in re.split(rb"[;\r\n]", said)):
            split.append(content.removesuffix(b"\r\n"))
    return [mails, split]


MUTATIONS = [
    b"--b",
    b"\r\n",
    b"--",
    b"\n",
    b"\r",
    NAMED,
    OTHER,
    b"; name=model",
    b'; filename="',
    b'"',
    b"\r\n--b\r\n",
    b"\\",
    b";",
    b"name=",
    b"*",
]


def test_no_form_that_is_taken_has_another_model_to_careless_readers():
    chance, taken = random.Random(7), 0
    for _ in range(6000):
        parts = [(chance.choice([NAMED, OTHER, FILE]), chance.choice([b"m1", b"m2", b"", b"a--c"])) for _ in range(chance.randint(1, 4))]
        raw = form(*parts)
        for _ in range(chance.randint(0, 2)):
            at = chance.randint(0, len(raw))
            raw = raw[:at] + chance.choice(MUTATIONS) + raw[at + chance.choice([0, 0, 1, 3]) :]
        try:
            model, _ = read(raw)
        except ClientError:
            continue
        taken += 1
        for found in others_models(raw):
            assert found in ([], [model]), raw
    assert taken > 1000


# -- what is kept, and how long it takes --


def test_no_more_of_a_file_is_kept_than_a_boundary_is_long():
    reader, fed, passed = FormReader(b"b" * 70), 0, 0
    raw = form((FILE, b"x" * 100_000), boundary=b"b" * 70)
    for at in range(0, 90_000, 333):
        passed += len(reader.feed(raw[at : at + 333]))
        fed += 333
        assert fed == passed or fed < 1000
    # Only what may be a boundary's beginning is kept: that, and the end of the line before it.
    for rest, kept in (
        (b"\r", 1),
        (b"\n", 2),
        (b"--bb", 6),
        (b"b" * 67, 73),
        (b"c", 0),
        (b"-", 1),
        (b"--", 2),
        (b"c", 0),
        (b"\r\n\r\n-", 3),
    ):
        passed += len(reader.feed(rest))
        fed += len(rest)
        assert fed - passed == kept, rest


def test_what_holds_no_boundary_is_passed_on_uncopied():
    reader, piece = FormReader(b"b"), b"x" * 2**16
    reader.feed(form((FILE, b"y"))[:-10])
    assert reader.feed(piece) is piece


SLOW = {
    "boundaries but for their end": (b"b" * 70, b"\r\n--" + b"b" * 69 + b"c"),
    "boundaries but for their middle": (b"-" * 35 + b"x" + b"-" * 34, b"-"),
    "line's ends": (b"b", b"\r\n"),
    "line's ends and dashes": (b"b", b"\r\n--"),
}


@pytest.mark.parametrize("size", [2**16, 64], ids=["large pieces", "small pieces"])
@pytest.mark.parametrize(("boundary", "filling"), SLOW.values(), ids=SLOW.keys())
def test_a_form_that_is_made_to_be_slow_is_read_in_time_that_grows_with_its_size(boundary: bytes, filling: bytes, size: int):
    raw = form((FILE, (filling * 2**18)[: 2**18]), boundary=boundary)
    began = time.process_time()
    model, passed = None, 0
    reader = FormReader(boundary)
    for at in range(0, len(raw), size):
        passed += len(reader.feed(raw[at : at + size]))
    assert (model, passed + len(reader.end())) == (None, len(raw))
    assert time.process_time() - began < 0.5, "it would stand in the way of all other requests"


@pytest.mark.parametrize(
    "line",
    [
        b'content-disposition: form-data; name="x"\r\n',
        b"content-disposition: form-data;" + b' name="model"' * 1000,
        b"; a=b" * 3000,
        b'"\\' * 8000,
    ],
    ids=["lines", "names", "parameters", "escapes"],
)
def test_headers_that_are_made_to_be_slow_are_read_in_time(line: bytes):
    block = (b"Content-Disposition: form-data" + line)[: MAX_HEADERS - 10]
    began = time.process_time()
    for _ in range(20):
        refusal(b"--b\r\n", *(block[at : at + 64] for at in range(0, len(block), 64)), b"\r\n\r\n")
    assert time.process_time() - began < 0.5


# -- its Content-Type --


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/form-data; boundary=b", b"b"),
        ("Multipart/Form-Data;BOUNDARY=b;", b"b"),
        ('multipart/form-data; charset=utf-8 ; boundary="a b"', b"a b"),
        ("multipart/form-data; boundary=----WebKitFormBoundary7MA4", b"----WebKitFormBoundary7MA4"),
        ("multipart/form-data; boundary===============7==", b"==============7=="),
        ("multipart/form-data; boundary=" + "b" * 70, b"b" * 70),
    ],
)
def test_a_forms_boundary_is_read(content_type: str, boundary: bytes):
    assert boundary_of(content_type) == boundary


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/form-data; boundary",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary=""',
        "multipart/form-data; boundary=" + "b" * 71,
        "multipart/form-data; boundary=a; boundary=b",
        "multipart/form-data; boundary=a; boundary*=utf-8''b",
        'multipart/form-data; x="boundary=a"; boundary=b',
        "multipart/form-data; boundary=a,b",
        'multipart/form-data; boundary="a,b"',
        'multipart/form-data; boundary="a',
        'multipart/form-data; boundary="a "',
        'multipart/form-data; boundary="a\\"b"',
        "multipart/form-data; boundary = a",
        "multipart/form-data, boundary=a",
        "multipart/form-data; boundary=é",
        "multipart/form-data boundary=a",
    ],
)
def test_a_boundary_that_is_not_one_for_everybody_is_refused(content_type: str):
    with pytest.raises(ClientError) as caught:
        boundary_of(content_type)
    assert (caught.value.status, caught.value.code) == (400, "invalid_form")
