"""The fork servers of a worker: started on demand, kept while they are used, and replaced when code changes."""

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from weakref import WeakValueDictionary

from prefect.logging import get_logger

from spine_worker.fork_servers import EngineHandle, FlowHandle, ServerFailed, ServerGone
from spine_worker.forking.files import Signatures, signature

# The pause after a failed import, and how long a server is kept that no deployment needs any more.
_SECONDS_UNTIL_RETRY = 60.0
_SECONDS_UNNEEDED = 60.0
_logger = get_logger("worker.spine")


class CannotFork(Exception):
    """Runs of this code cannot be forked; the message says why."""


class UnexpectedFailure(CannotFork):
    """Something before the start of a run failed, probably because Prefect has changed."""

    @classmethod
    def of(cls, error: Exception) -> Self:
        """The failure with the class and the message of its first cause."""
        cause: BaseException = error
        while isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        return cls(f"{type(cause).__name__}: {cause}")


@dataclass(frozen=True)
class Code:
    """What a run executes, and where: runs of equal code can be forked from one server.

    `environment` has no variables of single runs. `version` is the deployment's.
    """

    directory: Path
    environment: frozenset[tuple[str, str]]
    entrypoint: str
    version: str | None = None

    @classmethod
    def of(cls, directory: Path, environment: Mapping[str, str], entrypoint: str, version: str | None) -> "Code":
        """Code without the variables of a single run, which Prefect marks with two underscores."""
        shared = frozenset((name, value) for name, value in environment.items() if not name.startswith("PREFECT__"))
        return cls(directory, shared, entrypoint, version)

    @property
    def interpreter(self) -> "Code":
        """What all flows of one directory and environment have in common."""
        return Code(self.directory, self.environment, "")

    def source(self) -> Signatures:
        """The signatures of the files in which the directory may have the entrypoint: a script or a module."""
        name, _, function = self.entrypoint.rpartition(":")
        if name.endswith(".py"):
            files = [str(self.directory / name)]
        else:
            module = self.directory.joinpath(*(name or function.rpartition(".")[0]).split("."))
            files = [f"{module}.py", f"{module}/__init__.py"]
        return {file: signature(file) for file in files}


@dataclass
class _Warm:
    engine: EngineHandle
    flow: FlowHandle
    last_used: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class _Failure:
    kind: type[CannotFork]
    reason: str
    source: Signatures
    until: float


@dataclass
class WarmServers:
    """Fork servers by the code that they have imported, at most `limit` of them.

    Servers that were not needed for `seconds_unneeded` end. If there are too many, the most recently used stay.
    """

    limit: int
    seconds_unneeded: float = _SECONDS_UNNEEDED
    _needed: frozenset[Code] | None = None
    # The code of runs since the list of needed code was read: it may be that of new deployments.
    _asked_for: set[Code] = field(default_factory=set)
    _engines: dict[Code, EngineHandle] = field(default_factory=dict)
    _flows: OrderedDict[Code, _Warm] = field(default_factory=OrderedDict)
    _failures: dict[Code, _Failure] = field(default_factory=dict)
    # How many flows each interpreter is about to import.
    _loading: Counter[Code] = field(default_factory=Counter)
    # A lock exists while a task owns it or waits for it.
    _locks: WeakValueDictionary[Code, asyncio.Lock] = field(default_factory=WeakValueDictionary)

    async def server(self, code: Code) -> FlowHandle:
        """A server that has imported the code as it is on disk now. Raises `CannotFork`."""
        self._asked_for.add(code)
        async with self._lock(code):
            self._raise_recent_failure(code)
            source = code.source()
            try:
                warm = await self._warm(code)
            except (ServerGone, OSError) as error:
                kind = UnexpectedFailure if isinstance(error, ServerFailed) else CannotFork
                reason = f"its fork server could not be started: {error}"
                engine = self._engines.get(code.interpreter)
                if engine is None or engine.outdated() is None:
                    self._failures[code] = _Failure(kind, reason, source, time.monotonic() + _SECONDS_UNTIL_RETRY)
                self._drop(code)
                raise kind(reason) from error
        return warm.flow

    def keep(self, needed: frozenset[Code]) -> None:
        """Keep the servers of this code, and let the others end."""
        self._needed = needed
        self._asked_for.clear()

    async def refresh(self) -> None:
        """Replace servers whose code has changed before a run needs them, and let servers end that are not needed."""
        for code, warm in list(self._flows.items()):
            if not self._is_needed(code):
                if time.monotonic() - warm.last_used >= self.seconds_unneeded:
                    self._drop(code)
            elif warm.engine.outdated() or warm.flow.outdated():
                try:
                    await self.server(code)
                except CannotFork as reason:
                    _logger.info("Runs of %s start in a new interpreter: %s.", code.entrypoint, reason)
        self._drop_unused_engines()

    def has(self, code: Code) -> bool:
        """Whether there is a server for this code."""
        return code in self._flows

    @property
    def is_full(self) -> bool:
        """Whether another server would replace one that is needed."""
        return sum(map(self._is_needed, self._flows)) >= self.limit

    def close(self) -> None:
        """Let each server end as soon as its runs have ended."""
        for warm in self._flows.values():
            warm.flow.retire()
        for engine in self._engines.values():
            engine.retire()
        self._flows.clear()
        self._engines.clear()

    def _lock(self, code: Code) -> asyncio.Lock:
        return self._locks.setdefault(code, asyncio.Lock())

    def _is_needed(self, code: Code) -> bool:
        return self._needed is None or code in self._needed

    def _raise_recent_failure(self, code: Code) -> None:
        """Raise a failed import again for a while, so that runs do not wait for the next failure."""
        if failure := self._failures.get(code):
            if time.monotonic() < failure.until and code.source() == failure.source:
                raise failure.kind(failure.reason)
            del self._failures[code]

    async def _warm(self, code: Code) -> _Warm:
        self._loading[code.interpreter] += 1
        try:
            engine = await self._engine(code.interpreter)
            if known := self._flows.get(code):
                changed = "its interpreter" if known.engine is not engine else known.flow.outdated()
                if changed is None:
                    self._flows.move_to_end(code)
                    known.last_used = time.monotonic()
                    return known
                _logger.info("Importing %s again: %s has changed.", code.entrypoint, changed)
                self._drop(code)
            warm = self._flows[code] = _Warm(engine, await engine.load(code.entrypoint))
        finally:
            self._loading[code.interpreter] -= 1
        if side_effect := warm.flow.side_effect:
            _logger.info("Each run of %s imports its code again, because the import %s.", code.entrypoint, side_effect)
        self._evict(code)
        return warm

    async def _engine(self, code: Code) -> EngineHandle:
        async with self._lock(code):
            if known := self._engines.get(code):
                changed = known.outdated()
                if changed is None:
                    return known
                _logger.info("Starting a new interpreter in %s: %s has changed.", code.directory, changed)
                self._engines.pop(code).retire()
            engine = self._engines[code] = await EngineHandle.start(code.directory, dict(code.environment))
            return engine

    def _drop(self, code: Code) -> None:
        if warm := self._flows.pop(code, None):
            warm.flow.retire()

    def _evict(self, newest: Code) -> None:
        """Let servers end until there are no more than the limit, but not the newest, which a run is about to use."""
        others = [code for code in self._flows if code != newest]
        # The sort keeps the least recently used first.
        others.sort(key=lambda code: self._is_needed(code) or code in self._asked_for)
        for code in others[: max(len(self._flows) - self.limit, 0)]:
            self._drop(code)
        self._drop_unused_engines()

    def _drop_unused_engines(self) -> None:
        self._loading = +self._loading
        used = {code.interpreter for code in self._flows} | set(self._loading)
        for code in [code for code in self._engines if code not in used]:
            self._engines.pop(code).retire()
