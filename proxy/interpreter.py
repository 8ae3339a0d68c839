"""What a process that serves must find installed, and how its garbage collector is set."""

from __future__ import annotations

import contextlib
import gc
import re
from collections.abc import Iterator

import aiohttp
from aiohttp import http, http_parser

#: Older ones have faults that a server must not have.
_OLDEST = (3, 14, 4)


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Without the collector: large imports make many objects and hardly any garbage, and it goes through them again and again.

    What they have made is there for good, so that no later collection goes through it either.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was:
            gc.enable()


def settle_garbage() -> None:
    """What the start made stays for good: the collector need not look at it again. It also looks less often: requests make few cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def require_extensions() -> None:
    """aiohttp without its C parser costs many times more, and is another parser than the one that was tested; so is an older one.

    Raises RuntimeError.
    """
    if tuple(int(part) for part in re.findall(r"\d+", aiohttp.__version__)[:3]) < _OLDEST:
        raise RuntimeError(f"aiohttp {aiohttp.__version__} is too old; {'.'.join(map(str, _OLDEST))} is the oldest that will do")
    if http.HttpRequestParser is http_parser.HttpRequestParserPy:
        raise RuntimeError("aiohttp was installed without its C extensions; install a binary wheel of it, or build one with a C compiler")
