"""Several workers under one supervisor: it starts them, starts them again when they end, adds up their numbers, and serves no request."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, TypeAlias

from proxy.backoff import Backoff
from proxy.channel import Channel
from proxy.core import events
from proxy.core.metrics import Registry
from proxy.core.protocols import Services
from proxy.findings import Findings
from proxy.http.certificate import context_for
from proxy.recollection import Recollections
from proxy.settings import Settings, dump
from proxy.snapshot import Snapshot
from proxy.sockets import bind

#: How long a worker may take: to start, to tell its numbers, to take a new configuration, and to end beyond the grace time; in seconds.
_TO_START = 30.0
_TO_TELL = 1.0
_TO_STAND = 3.0
_TO_RELOAD = 10.0
_TO_END = 5.0

#: How a worker ends that somebody has told to, alone, before it has served: nothing is wrong with it.
_TOLD = (0, -signal.SIGTERM)

#: What a worker that has ended or hangs says to a step of a reload.
_SILENT = "no answer"

#: The numbers are asked for this often, in seconds: what a crashed worker had counted since is lost.
_EVERY = 1.0

#: A worker that stays away for longer gives its listening socket up, so that connections go to the others; in seconds.
_AWAY = 1.0


class Silence:
    """For how many seconds of being asked a worker has said nothing. A turn counts whole or not at all.

    It counts for no more than a turn can take: after a pause of the whole machine nobody is late.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._has_spoken = False

    def heard(self) -> None:
        self._has_spoken = True

    def turn(self, seconds: float) -> None:
        """A turn of `seconds` has ended."""
        self.seconds = 0.0 if self._has_spoken else self.seconds + min(seconds, _EVERY + _TO_TELL)
        self._has_spoken = False


#: Told of each message of a worker: whose, its name and its value.
Heard: TypeAlias = Callable[["Slot", str, Any], None]


class Slot:
    """The place of one worker: who is in it may change, its number and its address do not."""

    def __init__(self, number: int, listening: socket.socket, *, given: bool, heard: Heard) -> None:
        self.number = number
        self._told = heard
        self.state = "starting"
        #: What a worker that is ready says of itself: `ready`, or why no client should come.
        self.says = "ready"
        self.pid: int | None = None
        self.has_served = False
        self.numbers: dict[str, Any] | None = None
        self.described: tuple[list[str], list[str]] = ([], [])
        self.ready = asyncio.Event()
        self.backoff = Backoff()
        self.silence = Silence()
        self._address = listening.getsockname()[:2]
        self._listening: socket.socket | None = listening
        self._given = given
        self._process: asyncio.subprocess.Process | None = None
        self.channel: Channel | None = None
        self._answers: dict[str, asyncio.Future[Any]] = {}
        self._asked: set[str] = set()
        self._orders: list[str] = []
        self._steps = itertools.count()

    async def live(self, document: Callable[[], dict[str, Any]]) -> int:
        """Start a worker and stay with it to its end. Returns its exit status. Raises OSError where it cannot be started."""
        self.state = "starting"
        self.silence.heard()
        if self._listening is None:
            self._listening = bind(*self._address, shared=True)
        ours, theirs = socket.socketpair()
        with theirs:
            descriptors = (theirs.fileno(), self._listening.fileno())
            command = [sys.executable, "-P", "-m", "proxy", str(self.number), *map(str, descriptors)]
            # What this process can import, that one can too, and nothing else: its working directory is on no list that ours is not on.
            environ = {**os.environ, "PYTHONPATH": os.pathsep.join(part for part in sys.path if part)}
            self._process = await asyncio.create_subprocess_exec(
                *command, env=environ, pass_fds=descriptors, stdin=asyncio.subprocess.DEVNULL
            )
        self.pid = self._process.pid
        self.channel = channel = await Channel.over(ours)
        channel.send("settings", document())
        for name in self._orders:
            channel.send(name)
        while (message := await channel.receive()) is not None:
            self._heard(*message)
        self.channel = None
        await channel.close()
        status = await self._process.wait()
        self.state, self.pid = "away", None
        self.ready.clear()
        for future in self._answers.values():
            future.cancel()
        self._answers, self._asked = {}, set()
        return status

    def _heard(self, name: str, value: Any) -> None:
        self.silence.heard()
        if name == "ready":
            self.described = value
            self.state = "ready"
            self.has_served = True
            self.ready.set()
        elif name == "state":
            self.says = value
        elif name == "numbers":
            self.numbers = value
        self._told(self, name, value)
        self._asked.discard(name)
        waiting = self._answers.pop(name, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(value)

    async def ask(self, name: str, value: Any, answer: str, patience: float) -> Any:
        """Ask the worker, and wait for its answer. Raises TimeoutError, or CancelledError when it ends meanwhile."""
        if self.channel is None:
            raise TimeoutError
        future = self._answers.setdefault(answer, asyncio.get_running_loop().create_future())
        if answer not in self._asked:
            self._asked.add(answer)
            self.channel.send(name, value)
        done, _ = await asyncio.wait([future], timeout=patience)
        if not done or future.cancelled():
            self._asked.discard(answer)  # It may never come: whoever asks next asks the worker, beside those who still wait.
            raise TimeoutError
        return future.result()

    async def step(self, name: str, document: Any = None) -> str | None:
        """Have the worker do one step of a reload. The reason why it could not, or None; an answer that comes too late is nobody's."""
        answer = f"{name} {next(self._steps)}"
        try:
            found: str | None = await self.ask(name, [answer, document], answer, _TO_RELOAD)
        except TimeoutError:
            return _SILENT
        finally:
            self.forget(answer)
        return found

    def forget(self, answer: str) -> None:
        """An answer that comes now is nobody's."""
        self._asked.discard(answer)
        self._answers.pop(answer, None)

    def tell(self, name: str, value: Any = None, *, always: bool = False) -> None:
        """Tell the worker; `always`: also one that is only being started."""
        if always:
            self._orders.append(name)
        if self.channel is not None:
            self.channel.send(name, value)

    def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    def away(self, seconds: float) -> None:
        """Nobody accepts here for `seconds`. For so long no client should wait."""
        if seconds > _AWAY and not self._given:
            self.close()

    def close(self) -> None:
        if self._listening is not None:
            self._listening.close()
            self._listening = None


class Supervisor:
    """`start`, `reload` and `stop` it in an event loop; `stop` it once."""

    def __init__(self, settings: Settings, listening: list[socket.socket], services: Services, *, given: bool = False) -> None:
        self.metrics = services.metrics
        self._services = services
        self._settings = settings
        self._buried = Registry()
        self._slots: list[Slot] = []
        findings = Findings(self._slots, services.whereabouts, services.unpaid)
        self._slots += [Slot(number, each, given=given, heard=findings.heard) for number, each in enumerate(listening)]
        self.recollection = Recollections(self._slots)
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()
        self._restarts = self.metrics.counter("comporta_worker_restarts_total", "Workers that were started again.").labels()
        self._silent = self.metrics.counter(
            "comporta_worker_silent_total", "Times that a worker did not tell its numbers in time; the last ones were shown."
        ).labels()
        self._hung = self.metrics.counter("comporta_worker_hung_total", "Workers killed because their event loop did not move.").labels()
        self._up = self.metrics.gauge("comporta_workers_ready", "Workers that serve.").labels()

    # -- what it tells --

    @property
    def settings(self) -> Settings:
        return self._settings

    @property
    def state(self) -> str:
        if self._stopping.is_set():
            return "draining"
        said = [slot.says for slot in self._slots if slot.state == "ready"]
        return "ready" if "ready" in said else said[0] if said else "starting"

    @property
    def workers(self) -> list[dict[str, Any]]:
        return [
            {"worker": slot.number, "pid": slot.pid, "state": slot.says if slot.state == "ready" else slot.state} for slot in self._slots
        ]

    @property
    def described(self) -> tuple[list[str], list[str]]:
        return self._slots[0].described

    async def numbers(self) -> Registry:
        """Everything that was counted, by workers that have ended too."""
        await self._collect()
        self._up.set(sum(slot.state == "ready" for slot in self._slots))
        found = Registry()
        found.absorb(self.metrics.dump())
        found.absorb(self._buried.dump(), gauges=False)
        for slot in self._slots:
            if slot.numbers is not None:
                found.absorb(slot.numbers)
        return found

    async def standings(self) -> list[dict[str, Any]]:
        """How each worker stands that says so in time; see `proxy.http.providers`."""
        slots = [slot for slot in self._slots if slot.state == "ready"]
        found = await asyncio.gather(*(slot.ask("standing", None, "standing", _TO_STAND) for slot in slots), return_exceptions=True)
        return [{"worker": slot.number, **each} for slot, each in zip(slots, found, strict=True) if isinstance(each, dict)]

    async def _collect(self) -> None:
        await asyncio.gather(*(self._ask_numbers(slot) for slot in self._slots if slot.state == "ready"))

    async def _ask_numbers(self, slot: Slot) -> None:
        try:
            await slot.ask("numbers", None, "numbers", _TO_TELL)
        except TimeoutError:
            self._silent.value += 1

    # -- life --

    async def start(self, stopped: asyncio.Event) -> None:
        """Start all workers. Raises RuntimeError if one of them does not come up; not where `stopped` is set, by then or meanwhile.

        Then they are told to stop, and have ended.
        """
        self._tasks = [asyncio.create_task(self._keep(slot)) for slot in self._slots]
        ready, told = asyncio.create_task(self._all_ready()), asyncio.create_task(stopped.wait())
        await asyncio.wait({ready, told, *self._tasks}, timeout=_TO_START, return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        if ready.done() and not stopped.is_set():
            self._tasks.append(asyncio.create_task(self._watch()))
            return
        ready.cancel()
        await self.stop()
        if not stopped.is_set():
            raise RuntimeError("a worker did not start; what it says is above")

    async def _all_ready(self) -> None:
        for slot in self._slots:
            await slot.ready.wait()

    async def _watch(self) -> None:
        """Ask every worker for its numbers; one that does not answer any more is killed, and then started again like any that ends."""
        while True:
            began = time.monotonic()
            await asyncio.sleep(_EVERY)
            await self._collect()
            for slot in self._slots:
                self._kill_hung(slot, time.monotonic() - began)

    def _kill_hung(self, slot: Slot, passed: float) -> None:
        if slot.pid is None:
            return
        slot.silence.turn(passed)
        patience = self._settings.server.worker_timeout
        if slot.silence.seconds < (max(patience, _TO_START) if slot.state == "starting" else patience):
            return
        events.error("worker_hung", worker=slot.number, pid=slot.pid, silent=round(slot.silence.seconds, 1))
        self._hung.value += 1
        slot.silence.heard()
        slot.kill()

    async def _keep(self, slot: Slot) -> None:
        """Have a worker in `slot`, always."""
        while not self._stopping.is_set():
            started = time.monotonic()
            try:
                status: int | str = await slot.live(self._document)
            except OSError as error:
                status = f"not started: {error.strerror}"
            if slot.numbers is not None:
                self._buried.absorb(slot.numbers, gauges=False)
                slot.numbers = None
            if self._stopping.is_set():
                break
            if not slot.has_served and status not in _TOLD:
                return
            wait = slot.backoff.after(time.monotonic() - started)
            events.error("worker_ended", worker=slot.number, status=status, restart_in=wait)
            self._restarts.value += 1
            slot.away(wait)
            await self._pause(wait)

    def _document(self) -> dict[str, Any]:
        """The configuration in force, as a worker takes it."""
        return dump(self._settings)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass

    async def reload(self, settings: Settings) -> None:
        """Have every worker serve by `settings`, or none of them.

        It is tried here first; then every worker builds it and says whether it can; then all take it. Raises RuntimeError where one of them
        refuses it; whatever this raises, nothing has changed.
        """
        tried = Snapshot(settings, os.environ, Services(self._services.clock, Registry(), self._services.emit))
        await tried.close()
        context_for(settings.server.tls)
        document = dump(settings)
        asked = {slot: (slot.channel, slot.state) for slot in self._slots if slot.channel is not None}
        try:
            answers = await asyncio.gather(*(slot.step("prepare", document) for slot in asked))
            for (slot, (_, state)), reason in zip(asked.items(), answers, strict=True):
                # One that is starting serves nobody yet: it may be the old configuration that it cannot start by.
                if reason is not None and not (reason is _SILENT and state == "starting"):
                    raise RuntimeError(f"worker {slot.number} refused it: {reason}")
        except BaseException:
            for one in asked:
                one.tell("abort", ["", None])
            raise
        self._settings = settings
        # All are told, also where nobody waits for it any more: a worker that is told neither to commit nor to abort changes nothing else.
        await asyncio.shield(asyncio.gather(*(self._commit(slot, document, asked.get(slot, (None, ""))[0]) for slot in self._slots)))

    async def _commit(self, slot: Slot, document: dict[str, Any], asked: Channel | None) -> None:
        if slot.channel is None:
            return  # Whoever starts there gets the new one.
        if slot.channel is not asked:
            slot.tell("prepare", ["", document])
        if slot.state == "starting":
            slot.tell("commit", ["", None])
            return
        reason = await slot.step("commit")
        if reason is not None:
            events.error("worker_refused_configuration", worker=slot.number, reason=reason)
            slot.tell("stop")

    def hurry(self) -> None:
        for slot in self._slots:
            slot.tell("end")

    async def stop(self) -> None:
        """Have every worker stop, and wait for them."""
        self._stopping.set()
        server = self._settings.server
        for slot in self._slots:
            slot.close()
            slot.tell("stop", always=True)
        keeping = self._tasks[: len(self._slots)]
        _, left = await asyncio.wait(keeping, timeout=server.drain_delay + server.grace + _TO_END)
        for slot in self._slots if left else ():
            slot.kill()
        await asyncio.gather(*keeping, return_exceptions=True)
        for task in self._tasks:
            task.cancel()
