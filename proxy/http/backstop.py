"""The last resort of an aiohttp application: whatever goes wrong in it is answered in our shape, and logged without a client's bytes."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable

from aiohttp import web

from proxy.core import events
from proxy.core.errors import GatewayError
from proxy.http import errors

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def backstop(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Errors of ours are shown as they are, what no route takes is 404 or 405, everything else is an opaque 500 and a line of the log."""
    try:
        return await handler(request)
    except GatewayError as error:
        return answer(error)
    except web.HTTPNotFound:
        return answer(errors.unknown_route(request.path, ()))
    except web.HTTPMethodNotAllowed as error:
        return answer(errors.unknown_route(request.path, tuple(sorted(error.allowed_methods))))
    except web.HTTPException:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer and the log a line
        id = new_id()
        report(error, id)
        return answer(errors.shown(error), id)


def new_id() -> str:
    """For an answer that a line of the log tells of."""
    return f"adm_{secrets.token_hex(12)}"


def answer(error: GatewayError, id: str | None = None) -> web.Response:
    """The error as `proxy.http.errors` has it."""
    named = {} if id is None else {"x-request-id": id}
    return web.Response(status=error.status, body=errors.body(error), headers={**errors.headers(error), **named})


def report(error: BaseException, id: str) -> None:
    """Log a bug: where it is and of what type, without its text, which may hold a client's bytes."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}" if trace is not None else "?"
    events.error("unforeseen", id=id, error=type(error).__name__, place=place)
