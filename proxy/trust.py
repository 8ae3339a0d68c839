"""aiohttp, imported without the system's certificates: it makes two TLS contexts as it is imported, and reads them all for each.

That is a tenth of a start. What the gateway speaks TLS with are contexts of its own; these two are filled when somebody first uses them.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator
from typing import Any


class _FilledLate(ssl.SSLContext):
    """A client's context that trusts whom the system trusts, and reads who that is when a connection is first made with it."""

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        self._fill()
        return self.wrap_bio(*args, **options)

    def wrap_socket(self, *args: Any, **options: Any) -> ssl.SSLSocket:
        self._fill()
        return self.wrap_socket(*args, **options)

    def _fill(self) -> None:
        self.__class__ = ssl.SSLContext  # type: ignore[assignment]  # it was one before `_filled_late`
        self.set_default_verify_paths()


@contextlib.contextmanager
def _filled_late() -> Iterator[None]:
    """So are the contexts that are made meanwhile."""
    made: list[ssl.SSLContext] = []

    def put_off(context: ssl.SSLContext) -> None:
        made.append(context)

    ssl.SSLContext.set_default_verify_paths = put_off  # type: ignore[assignment, method-assign]  # until the block's end
    try:
        yield
    finally:
        del ssl.SSLContext.set_default_verify_paths  # it inherits the real one
        for context in made:
            context.__class__ = _FilledLate


with _filled_late():
    import aiohttp  # noqa: F401 - for what its import does
