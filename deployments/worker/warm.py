"""The fork servers of a worker: started when they are needed, kept while they are used, replaced when code changes."""

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from prefect.logging import get_logger

from deployments.worker.fork_servers import EngineServer, FlowServer, ServerGone

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


@dataclass
class _Warm:
    engine: EngineServer
    flow: FlowServer


@dataclass
class WarmServers:
    """Fork servers by the code that they have imported, at most `limit` of them; those used last stay."""

    limit: int
    _engines: dict[Code, EngineServer] = field(default_factory=dict)
    _flows: OrderedDict[Code, _Warm] = field(default_factory=OrderedDict)
    _locks: defaultdict[Code, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    async def server(self, code: Code) -> FlowServer:
        """A server that has imported what is on disk now. Raises `CannotFork`."""
        async with self._locks[code]:
            try:
                warm = await self._warm(code)
            except (ServerGone, OSError) as error:
                raise CannotFork(f"its fork server could not be started: {error}") from error
        return warm.flow

    async def renew(self) -> None:
        """Replace the servers whose code has changed, before somebody waits for it."""
        for code in [code for code, warm in self._flows.items() if warm.engine.outdated() or warm.flow.outdated()]:
            try:
                await self.server(code)
            except CannotFork as refusal:
                _logger.info("Runs of %s are started in a new interpreter: %s.", code.entrypoint, refusal)

    def knows(self, code: Code) -> bool:
        """Whether there is a server for this code."""
        return code in self._flows

    @property
    def is_full(self) -> bool:
        """Whether another server would take the place of one."""
        return len(self._flows) >= self.limit

    def close(self) -> None:
        """Let all servers end as soon as their runs have."""
        for warm in self._flows.values():
            warm.flow.retire()
        for engine in self._engines.values():
            engine.retire()
        self._flows.clear()
        self._engines.clear()

    async def _warm(self, code: Code) -> _Warm:
        engine = await self._engine(code.interpreter)
        if known := self._flows.get(code):
            reason = "its interpreter" if known.engine is not engine else known.flow.outdated()
            if reason is None:
                self._flows.move_to_end(code)
                return known
            _logger.info("Importing %s again: %s has changed.", code.entrypoint, reason)
            self._flows.pop(code).flow.retire()
        warm = self._flows[code] = _Warm(engine, await engine.load(code.entrypoint))
        if refusal := warm.flow.refusal:
            _logger.info("Each run of %s imports its code, which %s when it is imported.", code.entrypoint, refusal)
        self._drop_what_is_too_much()
        return warm

    async def _engine(self, code: Code) -> EngineServer:
        async with self._locks[code]:
            if known := self._engines.get(code):
                reason = known.outdated()
                if reason is None:
                    return known
                _logger.info("Starting a new interpreter in %s: %s has changed.", code.directory, reason)
                self._engines.pop(code).retire()
            engine = self._engines[code] = await EngineServer.begin(code.directory, dict(code.environment))
            return engine

    def _drop_what_is_too_much(self) -> None:
        while len(self._flows) > self.limit:
            code, warm = self._flows.popitem(last=False)
            warm.flow.retire()
            self._locks.pop(code, None)
        used = {code.interpreter for code in self._flows}
        for code in [code for code in self._engines if code not in used]:
            self._engines.pop(code).retire()
            self._locks.pop(code, None)
