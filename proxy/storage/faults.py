"""Foreign exceptions made ours, once. What the database said goes into the log's detail, without the values of the statement.

Codes: https://www.sqlite.org/rescode.html and https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from proxy.core.errors import CapacityError, ClientError, GatewayError

_SQLITE_FULL = 13
_SQLITE_READONLY = 8
_SQLITE_NOT_A_DATABASE = 26
#: A trigger of ours refused (the audit log is append-only): nothing in this room asks for that.
_SQLITE_TRIGGER = 1811
#: PERM, BUSY, LOCKED, INTERRUPT, IOERR, CORRUPT, CANTOPEN, PROTOCOL, NOTADB
_SQLITE_UNAVAILABLE = frozenset({3, 5, 6, 9, 10, 11, 14, 15, _SQLITE_NOT_A_DATABASE})
_POSTGRESQL_FULL = frozenset({"53100"})
#: Connection lost; rolled back by a conflict; out of resources; lock not available, read only; cancelled or shutting down; I/O error.
_POSTGRESQL_UNAVAILABLE = ("08", "40", "53", "55", "57", "58", "25006", "28")

#: What the place of the file has against it, which no waiting mends.
_WRONG_PLACE = frozenset({errno.EACCES, errno.EEXIST, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP})

#: What a broken constraint means to who asked: status, code, message. By SQLite's extended code and PostgreSQL's SQLSTATE.
_TAKEN = (409, "already_exists", "there is one of that name already")
_DANGLING = (404, "not_found", "what it refers to does not exist")
_OUT_OF_BOUNDS = (400, "invalid_value", "a value is outside its bounds")
_BROKEN = {1555: _TAKEN, 2067: _TAKEN, "23505": _TAKEN, 787: _DANGLING, "23503": _DANGLING}


def unavailable(detail: str) -> CapacityError:
    """The storage cannot be asked now."""
    return CapacityError(
        "The gateway's storage cannot be reached. Try again shortly.",
        status=503,
        code="storage_unavailable",
        retry_after=1.0,
        detail=detail,
    )


def full(detail: str) -> CapacityError:
    """The storage has no room left."""
    return CapacityError("The gateway's storage is full.", status=507, code="insufficient_storage", detail=detail)


def read_only(detail: str) -> CapacityError:
    """The storage can be read and not written: its file system has failed, or somebody has put another file in its place."""
    return CapacityError("The gateway's storage takes no changes.", status=507, code="storage_read_only", detail=detail)


def is_lasting(error: GatewayError) -> bool:
    """Whether waiting will not mend what `translated` made `error` of: the place is wrong, or what is there is no database."""
    cause = error.__cause__
    if isinstance(cause, OSError):
        return cause.errno in _WRONG_PLACE
    return isinstance(cause, DBAPIError) and _code(cause) == _SQLITE_NOT_A_DATABASE


def missing(what: str) -> ClientError:
    """There is no such thing; `what` is shown."""
    return ClientError(f"There is no {what}.", status=404, code="not_found")


@contextmanager
def translated() -> Iterator[None]:
    """Raises CapacityError (503 `storage_unavailable`, 507 `insufficient_storage` and `storage_read_only`) and ClientError.

    What is left is a mistake in this room, and is raised as it is.
    """
    try:
        yield
    except (SQLAlchemyError, OSError) as error:
        ours = _translate(error)
        if ours is None:
            raise
        raise ours from error


def _translate(error: SQLAlchemyError | OSError) -> GatewayError | None:
    detail = _first_line(error)
    if isinstance(error, OSError):
        if error.errno == errno.EROFS:
            return read_only(detail)
        return full(detail) if error.errno in (errno.ENOSPC, errno.EDQUOT) else unavailable(detail)
    if isinstance(error, PoolTimeoutError):
        return unavailable(detail)
    if not isinstance(error, DBAPIError):
        return None
    code = _code(error)
    if code == _SQLITE_TRIGGER:
        return None
    # 22: too long, a NUL, a number that does not fit.
    if isinstance(error, IntegrityError | DataError) or (isinstance(code, str) and code.startswith("22")):
        status, name, message = _BROKEN.get(code, _OUT_OF_BOUNDS)
        return ClientError(f"Refused: {message}.", status=status, code=name, detail=detail)
    if code in _POSTGRESQL_FULL or (isinstance(code, int) and code & 0xFF == _SQLITE_FULL):
        return full(detail)
    if isinstance(code, int) and code & 0xFF == _SQLITE_READONLY:
        return read_only(detail)
    if error.connection_invalidated or _is_unavailable(code):
        return unavailable(detail)
    return None


def _code(error: DBAPIError) -> int | str:
    """SQLite's extended result code, PostgreSQL's SQLSTATE, or "" for a driver that gave none."""
    found = getattr(error.orig, "sqlite_errorcode", None) or getattr(error.orig, "sqlstate", None)
    return found if isinstance(found, int | str) else ""


def _is_unavailable(code: int | str) -> bool:
    if isinstance(code, int):
        return code & 0xFF in _SQLITE_UNAVAILABLE
    return code.startswith(_POSTGRESQL_UNAVAILABLE)


def _first_line(error: SQLAlchemyError | OSError) -> str:
    """PostgreSQL's later lines (DETAIL) repeat the row's values."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return f"{type(cause).__name__}: {cause}".split("\n", 1)[0]
