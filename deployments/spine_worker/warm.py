"""The fork servers of a worker: started when they are needed, kept while they are used, replaced when code changes."""

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from weakref import WeakValueDictionary

from prefect.logging import get_logger

from spine_worker.fork_servers import EngineServer, FlowServer, ServerGone
from spine_worker.forking.files import Signatures, signature

# So long is what could not be imported left alone, and so long is kept what no deployment wants any more.
_SECONDS_UNTIL_NEXT_TRY = 60.0
_SECONDS_UNWANTED = 60.0
_logger = get_logger("worker.spine")


class CannotFork(Exception):
    """Runs of this code cannot be forked; the message says why."""


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
        """Code with what is each run's own taken out: Prefect marks those variables with two underscores."""
        shared = frozenset((name, value) for name, value in environment.items() if not name.startswith("PREFECT__"))
        return cls(directory, shared, entrypoint, version)

    @property
    def interpreter(self) -> "Code":
        """What is common to all flows of one directory and environment."""
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
    engine: EngineServer
    flow: FlowServer
    last_used: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class _Failure:
    reason: str
    source: Signatures
    until: float


@dataclass
class WarmServers:
    """Fork servers by the code that they have imported, at most `limit` of them.

    Those that nobody has wanted for `seconds_unwanted` end; where there are too many, those that are used last stay.
    """

    limit: int
    seconds_unwanted: float = _SECONDS_UNWANTED
    _wanted: frozenset[Code] | None = None
    _engines: dict[Code, EngineServer] = field(default_factory=dict)
    _flows: OrderedDict[Code, _Warm] = field(default_factory=OrderedDict)
    _failures: dict[Code, _Failure] = field(default_factory=dict)
    # How many flows are about to be imported by an interpreter.
    _loading: Counter[Code] = field(default_factory=Counter)
    # They last as long as somebody holds one or waits for it.
    _locks: WeakValueDictionary[Code, asyncio.Lock] = field(default_factory=WeakValueDictionary)

    async def server(self, code: Code) -> FlowServer:
        """A server that has imported what is on disk now. Raises `CannotFork`."""
        async with self._lock(code):
            self._raise_if_it_failed(code)
            source = code.source()
            try:
                warm = await self._warm(code)
            except (ServerGone, OSError) as error:
                reason = f"its fork server could not be started: {error}"
                engine = self._engines.get(code.interpreter)
                if engine is None or engine.outdated() is None:
                    self._failures[code] = _Failure(reason, source, time.monotonic() + _SECONDS_UNTIL_NEXT_TRY)
                self._drop(code)
                raise CannotFork(reason) from error
        return warm.flow

    def want(self, wanted: frozenset[Code]) -> None:
        """Keep servers of this code ready."""
        self._wanted = wanted

    async def renew(self) -> None:
        """Replace the servers whose code has changed, before somebody waits for it, and let unwanted ones end."""
        for code, warm in list(self._flows.items()):
            if not self._is_wanted(code):
                if time.monotonic() - warm.last_used >= self.seconds_unwanted:
                    self._drop(code)
            elif warm.engine.outdated() or warm.flow.outdated():
                try:
                    await self.server(code)
                except CannotFork as refusal:
                    _logger.info("Runs of %s are started in a new interpreter: %s.", code.entrypoint, refusal)
        self._drop_unused_engines()

    def knows(self, code: Code) -> bool:
        """Whether there is a server for this code."""
        return code in self._flows

    @property
    def is_full(self) -> bool:
        """Whether another server would take the place of one that is wanted."""
        return sum(map(self._is_wanted, self._flows)) >= self.limit

    def close(self) -> None:
        """Let all servers end as soon as their runs have."""
        for warm in self._flows.values():
            warm.flow.retire()
        for engine in self._engines.values():
            engine.retire()
        self._flows.clear()
        self._engines.clear()

    def _lock(self, code: Code) -> asyncio.Lock:
        return self._locks.setdefault(code, asyncio.Lock())

    def _is_wanted(self, code: Code) -> bool:
        return self._wanted is None or code in self._wanted

    def _raise_if_it_failed(self, code: Code) -> None:
        """Spare the runs of code that cannot be imported the time that it takes to find that out."""
        if failure := self._failures.get(code):
            if time.monotonic() < failure.until and code.source() == failure.source:
                raise CannotFork(failure.reason)
            del self._failures[code]

    async def _warm(self, code: Code) -> _Warm:
        self._loading[code.interpreter] += 1
        try:
            engine = await self._engine(code.interpreter)
            if known := self._flows.get(code):
                reason = "its interpreter" if known.engine is not engine else known.flow.outdated()
                if reason is None:
                    self._flows.move_to_end(code)
                    known.last_used = time.monotonic()
                    return known
                _logger.info("Importing %s again: %s has changed.", code.entrypoint, reason)
                self._drop(code)
            warm = self._flows[code] = _Warm(engine, await engine.load(code.entrypoint))
        finally:
            self._loading[code.interpreter] -= 1
        if refusal := warm.flow.refusal:
            _logger.info("Each run of %s imports its code, which %s when it is imported.", code.entrypoint, refusal)
        self._drop_what_is_too_much()
        return warm

    async def _engine(self, code: Code) -> EngineServer:
        async with self._lock(code):
            if known := self._engines.get(code):
                reason = known.outdated()
                if reason is None:
                    return known
                _logger.info("Starting a new interpreter in %s: %s has changed.", code.directory, reason)
                self._engines.pop(code).retire()
            engine = self._engines[code] = await EngineServer.begin(code.directory, dict(code.environment))
            return engine

    def _drop(self, code: Code) -> None:
        if warm := self._flows.pop(code, None):
            warm.flow.retire()

    def _drop_what_is_too_much(self) -> None:
        while len(self._flows) > self.limit:
            unwanted = (code for code in self._flows if not self._is_wanted(code))
            self._drop(next(unwanted, next(iter(self._flows))))
        self._drop_unused_engines()

    def _drop_unused_engines(self) -> None:
        self._loading = +self._loading
        used = {code.interpreter for code in self._flows} | set(self._loading)
        for code in [code for code in self._engines if code not in used]:
            self._engines.pop(code).retire()
