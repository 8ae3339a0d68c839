"""The configuration's file, as administrators change it while the gateway runs: tried, kept as a version, put in place, taken back."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import policies
from policies.resolve import Levels
from proxy.catalogue import table_of
from proxy.core.errors import CapacityError, ClientError
from proxy.core.hierarchy import Asked, Hierarchy, described
from proxy.core.protocols import Clock
from proxy.core.resolved import Preferences
from proxy.http.administration import Records
from proxy.http.configuration import Applied, Checked, Chosen, Current, Previewed, Trouble, Value
from proxy.pipeline import PER_ATTEMPT, PER_REQUEST, acting
from proxy.replacement import Changed, probe, replace
from proxy.settings import Loaded, Problem, Settings, SettingsError
from proxy.settings.messages import masked

#: Changes in a minute: who makes more is a program that has lost its way.
_MOST = 10
_WINDOW = 60.0


class Kept(Protocol):
    """A version of the text, as `proxy.storage.versions` has it."""

    @property
    def id(self) -> int: ...
    @property
    def digest(self) -> str: ...
    @property
    def text(self) -> str | None: ...


class History(Protocol):
    """Where versions are kept; each `add` is audited, or does not happen."""

    async def add(self, actor: str, text: str, comment: str | None = None) -> Kept: ...
    async def get(self, id: int) -> Kept | None: ...
    async def latest(self) -> Kept | None: ...


class ConfigurationFile:
    """What the endpoints of the configuration do.

    `load` reads a file as the start does; `reload` puts into force what the file says, and `in_force` says what that is.
    `path` is None for a gateway that was started without a file: it can be looked at, and not changed.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        load: Callable[[Path | None], Loaded],
        reload: Callable[[], Awaitable[bool]],
        in_force: Callable[[], Loaded],
        history: Callable[[], Awaitable[History]],
        clock: Clock,
    ) -> None:
        self._path = path
        self._load = load
        self._reload = reload
        self._in_force = in_force
        self._history = history
        self._clock = clock
        self._lock = asyncio.Lock()
        self._change: asyncio.Task[Applied] | None = None
        self._changes: list[float] = []

    async def current(self) -> Current:
        text, problems = None, []
        try:
            text = await asyncio.to_thread(self._text)
            await asyncio.to_thread(self._load, self._path)
        except SettingsError as error:
            problems = _troubles(error.problems)
        except ClientError as error:
            problems = [Trouble(path="", message=error.message)]
        return Current(
            file=None if self._path is None else self._path.name,
            digest=None if text is None else digest(text),
            text=masked(text) if problems and text is not None else text,
            problems=problems,
            values=await asyncio.to_thread(_values, self._in_force()),
        )

    async def check(self, text: str) -> Checked:
        try:
            loaded = await asyncio.to_thread(self._tried, text)
        except SettingsError as error:
            return Checked(valid=False, problems=_troubles(error.problems), warnings=[])
        return Checked(valid=True, problems=[], warnings=_troubles(loaded.warnings), values=await asyncio.to_thread(_values, loaded))

    async def apply(self, actor: str, text: str, comment: str | None, *, digest_before: str | None = None) -> Applied:
        """Put `text` in the file's place and into force, or change nothing; once it has begun, also for a caller who is cancelled.

        Raises ClientError: 400 with what is wrong, 409 without a file or with one that cannot be read or replaced, 412 where the file is no
        longer that of `digest_before`, or somebody else has changed it meanwhile (that change stays); CapacityError: 429 for too many
        changes, 503 and 507 where the version cannot be kept.
        """
        path = self._path
        if path is None:
            raise ClientError("The gateway was started without a configuration file.", status=409, code="no_configuration_file")
        await self._lock.acquire()
        # A task of its own, which holds the lock to its end: given up half-way, the file would say what is not in force.
        self._change = asyncio.create_task(self._applied(path, actor, text, comment, digest_before))
        self._change.add_done_callback(self._ended)
        return await asyncio.shield(self._change)

    async def _applied(self, path: Path, actor: str, text: str, comment: str | None, digest_before: str | None) -> Applied:
        self._spare()
        found = await asyncio.to_thread(self._bytes, path)
        before, data = _decoded(found), text.encode()
        if digest_before is not None and digest_before != digest(before):
            raise ClientError("The file has changed since you read it; read it again.", status=412, code="precondition_failed")
        checked = await self.check(text)
        if not checked.valid:
            message = "\n".join(map(_told, checked.problems))
            raise ClientError(message, param=checked.problems[0].path or None, code="invalid_configuration")
        await _put(probe, path, data, found)  # before a version is kept
        history = await self._history()
        newest = await history.latest()
        if newest is None or newest.digest != digest(before):
            # Somebody edited the file by hand: that too must be there to go back to.
            await history.add(actor, await self._keepable(before), "as it was found")
        version = await history.add(actor, text, comment)
        try:
            await _put(replace, path, data, found)
        except ClientError:
            # The newest version is what the file holds, whoever wrote it.
            holds = await self._holding(before)
            why = "put back: the file could not be replaced" if holds == before else "as it was found"
            await history.add(actor, await self._keepable(holds), why)
            raise
        if not await self._reload():
            await _put(replace, path, found, data, "The gateway refused it (its log says why), and the file cannot be put back: ")
            await history.add(actor, await self._keepable(before), "put back: the gateway refused its successor")
            raise ClientError("The gateway refused it; its log says why. The file is as it was.", code="invalid_configuration")
        return Applied.model_validate(version).model_copy(update={"needs_restart": self._in_force().kept})

    async def _keepable(self, text: str) -> str:
        """A good text holds no secret; another may have been refused for one, which is not for the database."""
        return text if (await self.check(text)).valid else masked(text)

    def _ended(self, change: asyncio.Task[Applied]) -> None:
        self._lock.release()
        if not change.cancelled():
            change.exception()  # It is nobody's where the caller has gone; a reload that was refused is in the log.

    async def roll_back(self, actor: str, id: int) -> Applied:
        """Apply the text of version `id` again. Raises ClientError: 404, and as `apply`."""
        kept = await (await self._history()).get(id)
        if kept is None or kept.text is None:
            raise ClientError(f"There is no version {id}.", status=404, code="not_found")
        return await self.apply(actor, kept.text, f"rolled back to version {id}")

    def _text(self) -> str | None:
        """None without a file. Raises ClientError (409) for one that cannot be read."""
        return None if self._path is None else _decoded(self._bytes(self._path))

    @staticmethod
    def _bytes(path: Path) -> bytes:
        try:
            if path.is_fifo():
                raise _unreadable("it is a pipe, which is read once")
            return path.read_bytes()
        except OSError as error:
            raise _unreadable(error.strerror or type(error).__name__) from None

    async def _holding(self, otherwise: str) -> str:
        """The file's text, if it can be read."""
        try:
            return await asyncio.to_thread(self._text) or ""
        except ClientError:
            return otherwise

    def _tried(self, text: str) -> Loaded:
        with tempfile.TemporaryDirectory() as folder:
            trial = Path(folder, "configuration.yaml")
            trial.touch(0o600)
            trial.write_text(text, "utf-8")
            return self._load(trial)

    def _spare(self) -> None:
        now = self._clock.monotonic()
        self._changes = [moment for moment in self._changes if now - moment < _WINDOW]
        if len(self._changes) >= _MOST:
            wait = _WINDOW - (now - self._changes[0])
            raise CapacityError("Too many changes of the configuration.", status=429, code="rate_limit_exceeded", retry_after=wait)
        self._changes.append(now)


def _troubles(problems: Sequence[Problem]) -> list[Trouble]:
    return [Trouble.model_validate(problem) for problem in problems]


def _told(problem: Trouble) -> str:
    told = f"{problem.path or 'The file'}: {problem.message}"
    return f"{told}; {problem.hint}" if problem.hint else told


def _values(loaded: Loaded) -> list[Value]:
    return [Value(path=path, value=value, source=source) for path, value, source in loaded.values()]


async def _put(change: Callable[[Path, bytes, bytes], None], path: Path, data: bytes, before: bytes, said: str = "") -> None:
    """`probe` or `replace` the configuration's file. Raises ClientError (409, 412), whose message begins with what is `said`."""
    try:
        await asyncio.to_thread(change, path, data, before)
    except Changed:
        message = f"{said}Somebody else has changed the file meanwhile; read it again."
        raise ClientError(message, status=412, code="precondition_failed") from None
    except OSError as error:
        why = error.strerror or type(error).__name__
        hint = (
            "The gateway writes a new file beside it and renames that: its folder must be writable, and it must not be a mount of its own"
        )
        raise ClientError(
            f"{said}{path} cannot be replaced: {why}. {hint}; or change it where it comes from, and send SIGHUP.",
            status=409,
            code="configuration_file_unwritable",
        ) from error


def _decoded(data: bytes) -> str:
    """Lines end as they do for whoever reads a file as text. Raises ClientError (409)."""
    try:
        return data.decode().replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError:
        raise _unreadable("it is no UTF-8") from None


def _unreadable(why: str) -> ClientError:
    return ClientError(f"The configuration's file cannot be read: {why}.", status=409, code="configuration_file_unreadable")


@dataclass(frozen=True, slots=True)
class Who:
    """On whose account a request is; of nobody nothing is known."""

    id: str | None = None
    tier: str | None = None
    preferences: Preferences = field(default_factory=Preferences)


async def who_is(records: Records, user: str) -> Who:
    """What is stored of a user. Raises ClientError (404), CapacityError."""
    found = await records.users.get(user)
    if found is None:
        raise ClientError(f"There is no user {user[:200]!r}.", status=404, param="user", code="not_found")
    return Who(user, found.tier, await records.preferences.find(user))


def previewed(settings: Settings, who: Who, task_type: str | None, model: str | None) -> Previewed:
    """What a chat completion of `who` would get by `settings`. Raises ClientError (403 `model_not_allowed`, 404 `model_not_found`)."""
    hierarchy = Hierarchy() if settings.llm is None else settings.llm.hierarchy()
    asked = Asked(None if model == hierarchy.alias else model)
    tier = None if who.id is None else who.tier or ""
    resolved = Levels(hierarchy).of((who.id, tier), task_type, who.preferences, asked)
    if resolved.model is not None:
        table_of(settings).find(resolved.model)
    kinds = policies.kinds(settings.policies)
    return Previewed(
        user=who.id,
        tier=who.tier,
        task_type=task_type,
        known_task_type=resolved.is_known_task_type,
        source=resolved.source,
        values={name: Chosen.model_validate(found) for name, found in described(resolved).items()},
        policies=[name for names in (PER_REQUEST, PER_ATTEMPT) for name in acting(names, settings.policies, kinds)],
    )


def digest(text: str) -> str:
    """SHA-256 in hexadecimal, as versions have it."""
    return hashlib.sha256(text.encode()).hexdigest()
