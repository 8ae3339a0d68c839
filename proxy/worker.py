"""One of several processes that serve. It is started by the supervisor, is told what to do over a channel, and tells its numbers there."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

import uvloop

from proxy import log
from proxy.channel import Channel
from proxy.core import events
from proxy.core.protocols import Emit
from proxy.gateway import Gateway, Prepared
from proxy.settings import restore
from proxy.settings.storage import is_there
from proxy.sockets import is_exposed


class Worker:
    """Serves on `listening` until it is told to stop, gets SIGTERM, or its supervisor has gone."""

    def __init__(self, number: int, channel: Channel, listening: socket.socket, emit: Emit) -> None:
        self._number = number
        self._channel = channel
        self._listening = listening
        self._emit = emit
        self._stopped = asyncio.Event()
        self._gateway: Gateway
        self._prepared: Prepared | None = None
        self._turn = asyncio.Lock()
        self._turns: set[asyncio.Task[None]] = set()
        self._reloading: dict[str, Callable[[Any], Awaitable[str | None]]] = {
            "prepare": self._prepare,
            "commit": self._commit,
            "abort": self._abort,
        }

    async def run(self) -> int:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stop)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])  # it has waited since `proxy.__main__`
        first = await self._channel.receive()
        if first is None or self._stopped.is_set():
            return 0
        self._gateway = Gateway(restore(first[1]), environ=os.environ, emit=self._emit, exposed=is_exposed(self._listening))
        # However many workers there are, one of them asks the providers how they are.
        self._gateway.standing.checker.asks = self._number == 0
        self._gateway.standing.checker.tell = partial(self._channel.send, "health")
        self._gateway.whereabouts.tell = partial(self._channel.send, "whereabouts")
        self._gateway.unpaid.tell = partial(self._channel.send, "unpaid")
        await self._gateway.start(self._listening, stored=is_there(os.environ))
        self._channel.send("state", self._gateway.state)
        self._channel.send("ready", self._gateway.described)
        listening = asyncio.create_task(self._obey())
        await self._stopped.wait()
        await self._gateway.stop()
        await self._abort()
        self._tell_numbers()
        listening.cancel()
        await self._channel.close()
        return 0

    async def _obey(self) -> None:
        while (message := await self._channel.receive()) is not None:
            name, value = message
            if name == "numbers":
                self._tell_numbers()
            elif name == "health":
                self._gateway.standing.checker.take(value)
            elif name in ("whereabouts", "unpaid"):
                getattr(self._gateway, name).take(value)
            elif name == "recent":
                self._begin(self._tell_recent(*value))
            elif name == "standing":
                self._begin(self._tell_standing())
            elif name in self._reloading:
                self._begin(self._reload(name, *value))
            elif name == "stop":
                self._stop()
            elif name == "end":
                self._stop()
                self._gateway.hurry()
        events.error("supervisor_gone")
        self._stop()

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._turns.add(task)
        task.add_done_callback(self._turns.discard)

    def _stop(self) -> None:
        self._stopped.set()

    def _tell_numbers(self) -> None:
        self._channel.send("state", self._gateway.state)
        self._channel.send("numbers", self._gateway.numbers().dump())

    async def _tell_standing(self) -> None:
        self._channel.send("standing", await self._gateway.standing.now())

    async def _tell_recent(self, answer: str, id: str | None, most: int) -> None:
        self._channel.send(answer, await self._gateway.recollection.answer(id, most))

    async def _reload(self, name: str, answer: str, document: Any) -> None:
        """One step of a reload, after those that came before it; `answer` is sent with the reason why not, or None."""
        async with self._turn:
            try:
                reason = await self._reloading[name](document)
            except Exception as error:  # noqa: BLE001 - the supervisor has tried it: whatever is wrong here, it decides what to do
                reason = f"{type(error).__name__}: {error}"[:500]
        self._channel.send(answer, reason)
        if name == "commit" and reason is not None:
            # It must not go on with what the others have left: it ends when its requests have, and another starts with the new one.
            self._stop()

    async def _prepare(self, document: Any) -> None:
        await self._abort()
        # A thousand models take a tenth of a second.
        self._prepared = await self._gateway.prepare(await asyncio.to_thread(restore, document))

    async def _commit(self, _document: Any) -> str | None:
        prepared, self._prepared = self._prepared, None
        if prepared is None:
            return "nothing was prepared"
        self._gateway.take(prepared)
        return None

    async def _abort(self, _document: Any = None) -> None:
        prepared, self._prepared = self._prepared, None
        if prepared is not None:
            await self._gateway.drop(prepared)


async def _run(number: int, control: int, listening: int, emit: Emit) -> int:
    channel = await Channel.over(socket.socket(fileno=control))
    data = socket.socket(fileno=listening)
    data.setblocking(False)
    return await Worker(number, channel, data, emit).run()


def main() -> int:
    """`python -m proxy NUMBER CONTROL LISTENING`: its number, and the file descriptors of its channel and its listening socket."""
    number, control, listening = map(int, sys.argv[1:])
    writer = log.writer_for(worker=number)
    log.configure(writer)
    writer.start()
    try:
        return uvloop.run(_run(number, control, listening, writer))
    finally:
        writer.stop()
