"""The members of a request's object that every request is asked for.

The object itself is made when somebody wants it (`Call.body`): making objects of a long conversation is dear, and mostly nobody looks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Protocol


class _Absent:
    __slots__ = ()

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "ABSENT"


#: A member that is not there; null is there.
ABSENT: Final = _Absent()


class Members(Protocol):
    """As they came, whatever was made of them since. Of `n` and `prompt` only that they are there is told."""

    @property
    def model(self) -> Any: ...
    @property
    def stream_options(self) -> Any: ...
    @property
    def user(self) -> Any: ...
    @property
    def metadata(self) -> Any: ...
    @property
    def comporta(self) -> Any: ...
    @property
    def n(self) -> Any: ...
    @property
    def prompt(self) -> Any: ...

    def read(self, raw: bytes) -> dict[str, Any]:
        """The object whose members they are. Raises ClientError (400 `invalid_json`)."""


@dataclass(frozen=True, slots=True)
class MadeMembers:
    """Of an object that was made; or of none."""

    model: Any = ABSENT
    stream_options: Any = ABSENT
    user: Any = ABSENT
    metadata: Any = ABSENT
    comporta: Any = ABSENT
    n: Any = ABSENT
    prompt: Any = ABSENT

    def read(self, _raw: bytes) -> dict[str, Any]:
        return {}


NAMES: Final = tuple(field.name for field in fields(MadeMembers))
NO_MEMBERS: Final = MadeMembers()


def members_of(body: Mapping[str, Any]) -> Members:
    return MadeMembers(**{name: body[name] for name in NAMES if name in body})
