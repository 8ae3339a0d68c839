"""Another configuration while the server runs: read, checked, tried; and only then put in the old one's place."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from proxy.core import events
from proxy.core.errors import CapacityError
from proxy.core.metrics import Registry
from proxy.settings import KEPT, Loaded, Mark, Problem, Settings, SettingsError, mark_of

#: Seconds between two looks at the configuration's file.
_LOOK = 1.0

#: What a process decides when it starts, of `server`.
FIXED = ("listen", "admin_listen", "watch", "workers")


class Reload:
    """Called for each SIGHUP: one after the other, each ends in a line of the log and in the metrics, and none in an exception.

    `load` reads everything again; `put` serves by it from then on, or raises and has changed nothing. `loaded` is what is in force. Where
    one fails once `is_over` says that nothing is served any more, that need not be the configuration's fault.
    """

    def __init__(
        self,
        loaded: Loaded,
        *,
        load: Callable[[], Loaded],
        put: Callable[[Settings], Awaitable[None]],
        metrics: Registry,
        is_over: Callable[[], bool] = bool,
    ) -> None:
        self._load = load
        self._put = put
        self._is_over = is_over
        self._lock = asyncio.Lock()
        self._generation = 0
        self._reloads = metrics.counter("comporta_config_reloads_total", "Configurations read again.", "outcome")
        self._info = metrics.gauge("comporta_config_info", "The configuration in force, by a digest of its values.", "digest")
        self._applied = metrics.gauge(
            "comporta_config_last_reload_success_timestamp_seconds", "When the configuration in force was read."
        ).labels()
        self._succeeded = metrics.gauge("comporta_config_last_reload_successful", "Whether the last one was good.").labels()
        for outcome in ("applied", "refused"):
            self._reloads.labels(outcome)
        self._note(loaded, digest(loaded.settings))

    async def __call__(self) -> bool:
        """Whether what was read is now in force."""
        async with self._lock:
            try:
                loaded, kept, made = await asyncio.to_thread(self._read)
                await self._put(loaded.settings)
            except SettingsError as error:
                self._refused(problems=[asdict(problem) for problem in error.problems])
                return False
            except Exception as error:  # noqa: BLE001 - plug-ins build themselves from it: whatever they raise, the old one stays
                if self._is_over() or (isinstance(error, CapacityError) and error.code == "shutting_down"):
                    events.info("configuration_dropped", reason="the gateway is shutting down")
                else:
                    self._refused(reason=f"{type(error).__name__}: {error}"[:500])
                return False
            for problem in loaded.warnings:
                events.warning("configuration_warning", **asdict(problem))
            if kept:
                events.warning("configuration_needs_restart", kept=kept)
            self._note(loaded, made)
            self._reloads.labels("applied").value += 1
            events.info("configuration_applied", digest=made)
            return True

    def _read(self) -> tuple[Loaded, list[str], str]:
        """What is there to be put in force, what of it only a restart can change, and its digest. A thread's work."""
        file = self.loaded.file
        if file is not None and file.is_fifo():
            raise SettingsError([Problem(str(file), None, "", "is a pipe, which is read once: what it said holds until a restart")])
        loaded, kept = held(self.loaded, self._load())
        return loaded, kept, digest(loaded.settings)

    @property
    def described(self) -> dict[str, Any]:
        """Which configuration is in force: the digest of its values, and the how many-th it is since the start."""
        return {"digest": self._digest, "generation": self._generation}

    def _note(self, loaded: Loaded, made: str) -> None:
        """`loaded`, whose digest is `made`, is in force."""
        self.loaded = loaded
        self._digest = made
        self._generation += 1
        self._info.children.clear()
        self._info.labels(made).set(1)
        self._applied.set(time.time())
        self._succeeded.set(1)

    def _refused(self, **why: object) -> None:
        self._reloads.labels("refused").value += 1
        self._succeeded.set(0)
        events.error("configuration_refused", **why)


class FileWatch:
    """Calls `reload` when a file is another one than before, and has been so for a look: who writes it slowly is given the time.

    `known`: the file's mark when it was last read, or from before that.
    """

    def __init__(self, path: Path, known: Mark, reload: Callable[[], Awaitable[bool]], *, every: float = _LOOK) -> None:
        self._path = path
        self._known = known
        self._reload = reload
        self._every = every
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        known = seen = self._known
        while True:
            await asyncio.sleep(self._every)
            now = await asyncio.to_thread(mark_of, self._path)
            if now is not None and now == seen and now != known:
                known = now
                await self._reload()
            seen = now


def held(old: Loaded, new: Loaded) -> tuple[Loaded, list[str]]:
    """`new` with what only a restart can change as `old` has it, and the names of what was asked for in vain."""
    was, server = old.settings.server, new.settings.server
    names = [name for name in FIXED if getattr(was, name) != getattr(server, name)]
    if (was.tls is None) != (server.tls is None):
        names.append("tls")
    if not names:
        return new, []
    kept = {name: getattr(was, name) for name in names}
    settings = new.settings.model_copy(update={"server": server.model_copy(update=kept)})
    paths = [f"server.{name}" for name in names]
    sources = {path: KEPT for path in old.sources if path.startswith(tuple(paths))}
    return replace(new, settings=settings, sources={**new.sources, **sources}), paths


def digest(settings: Settings) -> str:
    """Twelve hexadecimal digits that change with any value. Secrets are references here, so it gives none away."""
    text = json.dumps(settings.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
