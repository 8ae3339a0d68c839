"""A multipart form on its way, read as far as it says which model is asked for. Bytes in, decisions out; nothing here waits.

What is checked here is read again by the provider, with a parser of its own. Parsers differ wherever a form is not plain: line ends without
CR, text before the first boundary or after the last, boundaries within a line, names that are escaped, folded, repeated. So a form is taken
only where all of them must find the same parts in it; every other one is refused. Forms that clients write are plain.

Sources: RFC 2046, 5.1.1; RFC 7578; RFC 2183 (`Content-Disposition`); RFC 9110, 8.3.1 (`Content-Type`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import unquote_to_bytes

from proxy.core.errors import ClientError

#: Bytes of the headers of one part.
MAX_HEADERS = 16 * 1024

#: Parts of one form, as in Go's mime/multipart, Django and Starlette: each costs more to read than its bytes do.
MAX_PARTS = 1000

#: Bytes of a model's name: 256 characters.
_MAX_MODEL = 1024

#: Bytes after the last boundary: a line's end, or two.
_MAX_EPILOGUE = 4

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_PARAMETER = re.compile(rb"[ \t]*+;[ \t]*+(" + _TOKEN + rb')=(?:"((?:[^"\\]|\\.)*+)"|([^\s";,\\]++))')
_HEADER = re.compile(rb"(" + _TOKEN + rb"):[ \t]*+([^\x00-\x08\x0a-\x1f\x7f]*+)")
_END = re.compile(rb"[ \t]*+;?[ \t]*+")

#: A boundary's characters, but for the comma: some parsers end it there, even in quotes.
_BOUNDARY = re.compile(rb"[0-9A-Za-z'()+_\-./:=? ]{0,69}[0-9A-Za-z'()+_\-./:=?]")

#: Wherever somebody may see a `name` given; not that of a `filename`.
_NAMING = re.compile(rb"(?<![a-z])name[ \t]*+[*=]")

_LENGTH = re.compile(rb"(\r\ncontent-length:[ \t]*+)[0-9]++", re.IGNORECASE)

#: What the part may say of itself that holds the model, and how: its bytes are its text.
_PLAIN = {
    b"content-disposition": re.compile(rb"(?s:.*)"),
    b"content-length": re.compile(rb"[0-9]{1,4}"),
    b"content-transfer-encoding": re.compile(rb"(?i:7bit|8bit|binary)"),
    b"content-type": re.compile(rb'(?i:text/plain(?:[ \t]*+;[ \t]*+charset="?(?:(utf-8)|us-ascii|iso-8859-1)"?)?)'),
}

#: In a name, what some take for its end even in quotes.
_SPLITS = re.compile(rb"[\\;]")

_NOT_LETTERS = re.compile(rb"[^0-9a-z]+")


def invalid(why: str) -> ClientError:
    return ClientError(f"The request's form cannot be read: {why}.", code="invalid_form")


def too_late() -> ClientError:
    """For a model that comes when what was before it is on its way."""
    message = "The form names its model after more than the gateway holds back. Put the field 'model' before the files."
    return ClientError(message, param="model", code="model_too_late")


def _doubled() -> ClientError:
    return ClientError("The form has more than one field 'model'.", param="model", code="ambiguous_model")


def boundary_of(content_type: str) -> bytes:
    """The boundary that a `Content-Type: multipart/…` names. Raises ClientError (400 `invalid_form`) where it is not one for everybody."""
    raw = content_type.encode("utf-8", "surrogateescape")
    kind = raw.partition(b";")[0].rstrip()
    found = _parameters(raw[len(kind) :])
    named = [value for name, value in found or () if name == b"boundary"]
    if len(named) != 1 or raw.lower().count(b"boundary") - named[0].lower().count(b"boundary") != 1 or not _BOUNDARY.fullmatch(named[0]):
        raise invalid("its Content-Type names no boundary, or not one of 1 to 70 of the characters that boundaries have")
    return named[0]


def _parameters(text: bytes) -> list[tuple[bytes, bytes]] | None:
    """What follows a header's value, `; name=value` and so on, names in lower case; None where it is not that."""
    found, at = [], 0
    while (match := _PARAMETER.match(text, at)) is not None:
        quoted = match[2]
        found.append((match[1].lower(), match[3] if quoted is None else quoted))
        at = match.end()
    return found if _END.fullmatch(text, at) else None


class FormReader:
    """Follows a form's boundary through its bytes, at any split of them.

    `model` is the value of its part `model`, once that part was whole, and `model_at` where it lies in what `feed` then returned, which has
    that part's headers too. `in_file`: a part with a file's name was come to. `is_closed`: the last boundary was read.
    `opens_with_line_end`: the first one has a line's end before it.
    """

    def __init__(self, boundary: bytes) -> None:
        self.model: bytes | None = None
        self.model_at = slice(0, 0)
        self.in_file = False
        self.is_closed = False
        self.opens_with_line_end = False
        self._mark = b"--" + boundary
        self._rest = b""
        self._read: Callable[[FormReader, bytes, int], int] = FormReader._read_opening
        self._before = 0  # bytes of the line's end that belongs to the boundary at hand
        self._parts = 0
        self._passed = 0
        self._ends: int | None = None  # where the part at hand says that it ends, counted from the form's beginning
        self._goes_on = False
        self._in_ascii = False
        self._headers = 0  # bytes from the boundary before the model to the model

    def go_on_without(self) -> None:
        """What was read is passed on without a model: from now on none may come."""
        self._goes_on = True

    def feed(self, data: bytes) -> bytes:
        """What may be passed on of the bytes so far: all but what may belong to a boundary, the headers at hand, or the model at hand.

        The last boundary is kept until `end`. Raises ClientError (400).
        """
        if self._rest:
            data = self._rest + data
        at, read = 0, None
        while read is not self._read:
            # A step that leads to no other one has come as far as the bytes do.
            read = self._read
            at = read(self, data, at)
        self._rest = data[at:]
        self._passed += at
        return data[:at]

    def end(self) -> bytes:
        """What was kept until the form was over. Raises ClientError (400) where its last boundary is missing."""
        if not self.is_closed:
            raise invalid("it ends before its last boundary")
        rest, self._rest = self._rest, b""
        return rest

    def named(self, head: bytes, model: bytes) -> bytes:
        """`head`, which ends with the headers of the part that holds the model, for another model. Raises ClientError (400)."""
        if self._mark in model:
            raise invalid("its boundary is part of the model's name")
        part = head.rfind(self._mark)
        return head[:part] + _LENGTH.sub(b"\\g<1>%d" % len(model), head[part:], count=1)

    def opened_with(self, model: str) -> bytes:
        """A part that names `model`, to be put before a form that has none. Raises ClientError (400)."""
        value = model.encode()
        if self._mark in value:
            raise invalid("its boundary is part of the model's name")
        part = self._mark + b'\r\nContent-Disposition: form-data; name="model"\r\n\r\n' + value
        return part if self.opens_with_line_end else part + b"\r\n"

    # -- steps: from the bytes at hand, and how many of them may be passed on, to how many that are now --

    def _read_opening(self, data: bytes, at: int) -> int:
        self._before = 2 if data.startswith(b"\r\n") else 0
        self.opens_with_line_end = self._before > 0
        size = self._before + len(self._mark)
        if len(data) < size and (self._mark.startswith(data[self._before :]) or data == b"\r"):
            return at
        if not data.startswith(self._mark, self._before):
            raise invalid("it does not begin with its boundary")
        self._read = FormReader._read_boundary
        return at

    def _read_boundary(self, data: bytes, at: int) -> int:
        """The boundary stands at `at`; after it, another part's headers or the end."""
        after = at + self._before + len(self._mark)
        follows = data[after : after + 2]
        if follows == b"--":
            self._check_epilogue(data[after + 2 :])
            return at
        if len(follows) < 2 and follows in (b"", b"-", b"\r"):
            return at
        if follows != b"\r\n":
            raise invalid("its boundary stands where no part begins")
        end = data.find(b"\r\n\r\n", after, after + MAX_HEADERS)
        if end < 0:
            if len(data) - after >= MAX_HEADERS:
                raise invalid(f"the headers of a part are longer than {MAX_HEADERS} bytes")
            return at
        self._begin_part(data[after + 2 : end], self._passed + end + 4)
        if self._read is FormReader._read_model:
            self._headers = end + 4 - at
            return at
        return end + 4

    def _check_epilogue(self, rest: bytes) -> None:
        self.is_closed = True
        if len(rest) > _MAX_EPILOGUE or rest.strip(b"\r\n"):
            raise invalid("there is something after its last boundary")

    def _begin_part(self, block: bytes, begins: int) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise invalid(f"it has more than {MAX_PARTS} parts")
        if self._mark in block:
            raise invalid("its boundary stands where no part begins")
        headers = _headers_of(block)
        length = headers.get(b"content-length")
        if length is not None and not (length.isdigit() and len(length) < 16):
            raise invalid("a part's Content-Length is no number")
        self._ends = None if length is None else begins + int(length)
        name, more = _named(headers)
        self.in_file = self.in_file or b"filename" in more or b"filename*" in more
        if name != b"model":
            self._read = FormReader._read_body
        elif self.model is not None:
            raise _doubled()
        elif self._goes_on:
            raise too_late()
        else:
            self._in_ascii = _is_in_ascii(headers, more)
            self._read = FormReader._read_model

    def _read_body(self, data: bytes, at: int) -> int:
        found = data.find(self._mark, at)
        return self._clear(data, at) if found < 0 else self._end_part(data, at, found)

    def _clear(self, data: bytes, at: int) -> int:
        """How many bytes are no part of a boundary whose end has not come, nor of the line's end before it: most often all, uncopied."""
        size = len(data)
        begun = data.find(b"-", max(at, size - len(self._mark) + 1))
        while begun >= 0 and not self._mark.startswith(data[begun:]):
            begun = data.find(b"-", begun + 1)
        if begun < 0:
            begun = size - 1 if data.endswith(b"\r") else size
        return begun - 2 if data.endswith(b"\r\n", at, begun) else begun

    def _read_model(self, data: bytes, at: int) -> int:
        begins = at + self._headers
        found = data.find(self._mark, begins)
        if (found if found >= 0 else len(data) - len(self._mark)) - begins > _MAX_MODEL + 2:
            raise ClientError("'model' is no valid name.", param="model", code="invalid_value")
        if found < 0:
            return at
        end = self._end_part(data, begins, found)
        value = data[begins:end]
        if self._in_ascii and not value.isascii():
            raise invalid("its model is not in UTF-8")
        self.model, self.model_at = value, slice(begins, end)
        return end

    def _end_part(self, data: bytes, at: int, found: int) -> int:
        """The boundary after a part that begins at `at`, or before."""
        end = found - 2
        if end < at or not data.startswith(b"\r\n", end):
            raise invalid("its boundary stands where no part begins")
        if self._ends not in (None, self._passed + end):
            raise invalid("a part has another length than it says")
        self._before = 2
        self._read = FormReader._read_boundary
        return end


def _headers_of(block: bytes) -> dict[bytes, bytes]:
    """A part's headers, names in lower case. Raises ClientError (400) for lines that are folded, repeated, or no headers."""
    if block.lower().count(b"content-disposition") != 1:
        raise invalid("a part has no Content-Disposition, or more than one")
    headers: dict[bytes, bytes] = {}
    for line in block.split(b"\r\n"):
        match = _HEADER.fullmatch(line)
        if match is None or (name := match[1].lower()) in headers:
            raise invalid("a part has headers that are folded, repeated, or none")
        headers[name] = match[2].rstrip(b" \t")
    if headers.get(b"content-type", b"")[:10].lower() == b"multipart/":
        raise invalid("a part is a form itself")
    return headers


def _named(headers: dict[bytes, bytes]) -> tuple[bytes, dict[bytes, bytes]]:
    """A part's name, and what else its `Content-Disposition` says. Raises ClientError (400) where the name is not one for everybody."""
    disposition = headers.get(b"content-disposition", b"")
    found = _parameters(disposition[9:]) if disposition[:9].lower() == b"form-data" else None
    more = dict(found or ())
    name = more.pop(b"name", None)
    if (
        name is None
        or found is None
        or len(found) != len(more) + 1
        or len(_NAMING.findall(disposition.lower())) != 1
        or _SPLITS.search(name)
    ):
        raise invalid("a part has no Content-Disposition with one plain name")
    if name != b"model" and (name.startswith(b"=?") or name == b"_charset_" or _seems_model(name)):
        raise invalid("a part has a name that some would take for 'model'")
    return name, more


def _seems_model(name: bytes) -> bool:
    """Whether a name is `model` but for its case, escapes, spaces, other signs around it, or an index."""
    plain = unquote_to_bytes(name).lower().partition(b"[")[0]
    return _NOT_LETTERS.sub(b"", plain) == b"model"


def _is_in_ascii(headers: dict[bytes, bytes], more: dict[bytes, bytes]) -> bool:
    """Whether the part that holds the model is not in UTF-8. Raises ClientError (400) where its bytes may be read in another way."""
    if more or not all(name in _PLAIN and _PLAIN[name].fullmatch(value) for name, value in headers.items()):
        raise invalid("its model is a file, or not plain text")
    kind = _PLAIN[b"content-type"].fullmatch(headers.get(b"content-type", b""))
    return kind is not None and b"charset" in kind[0].lower() and kind[1] is None
