"""Registering and fetching sources on one database, without an API or a worker."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from spine.auth.callers import Caller, Scope
from spine.auth.domains import EVERY_DOMAIN
from spine.cache.entries import NewEntry, current_entries
from spine.egress.fetch_failure import FetchFailure
from spine.prefect.client import Prefect
from spine.sources.configs import SourceConfigs
from spine.sources.fetch_queries import read_fetch
from spine.sources.fetch_results import FetchResult
from spine.sources.fetch_state import FetchRun, OpenFetch, claim_source, start_fetch
from spine.sources.fetching.context import FetchContext
from spine.sources.fetching.fetcher import record_failure, run_fetch
from spine.sources.queries import find_source
from spine.sources.schedule import SourceSchedules
from spine.sources.schemas import FetchDetail, FetchTrigger, SourceCreate, SourceUpdate
from spine.sources.service import Registry
from spine.tables.alerts import Alert
from spine.tables.sources import Source
from sqlalchemy import select

# The mark of modules whose promises depend on how a database locks.
ON_EACH_DATABASE = pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)
CALLER = Caller(id="tests", name="tests", scopes=frozenset(Scope))


@dataclass
class Desk:
    """Registers sources as the API does, and fetches them as a worker does."""

    context: FetchContext
    root: Path

    @property
    def registry(self) -> Registry:
        """The registry, for sources without a schedule: it does not reach Prefect."""
        schedules = SourceSchedules(self.context.prefect, self.context.sessions, cast(Any, None), CALLER)
        return Registry(self.context.sessions, SourceConfigs(self.context.settings), schedules, EVERY_DOMAIN)

    async def register(self, source_type: str, config: dict[str, Any], **fields: Any) -> str:
        """Register a source and return its name."""
        name = f"source-{uuid4().hex[:10]}"
        body = {"name": name, "source_type": source_type, "config": config, **fields}
        await self.registry.create(CALLER, SourceCreate.model_validate(body))
        return name

    async def update(self, source: str, **fields: Any) -> None:
        """Change a source."""
        await self.registry.update(source, SourceUpdate.model_validate(fields))

    def file(self, name: str, content: bytes) -> Path:
        """A file that sources may read, old enough to be read at once."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    async def start(self, name: str, *, force: bool = False, run_id: UUID | None = None) -> OpenFetch:
        """Set a fetch to RUNNING."""
        run = FetchRun(run_id or uuid4(), FetchTrigger.MANUAL, "tests", force, "here:1")
        return await start_fetch(self.context.sessions, name, None, run)

    async def fetch(self, name: str, *, force: bool = False) -> FetchDetail:
        """Fetch once, and return the fetch as clients see it."""
        started = await self.start(name, force=force)
        try:
            await self.run(started)
        except FetchFailure as failure:
            await self.fail(started, failure)
        return await self.read_fetch(started.fetch_id)

    async def run(self, fetch: OpenFetch) -> FetchResult:
        """What a flow run does after it has started the fetch."""
        return await run_fetch(self.context, fetch, lambda _: None)

    async def fail(self, fetch: OpenFetch, failure: Exception) -> None:
        """What a flow run does after its last attempt has failed."""
        await record_failure(self.context, fetch, failure)

    async def claim_source_of(self, fetch: OpenFetch) -> None:
        """What a flow run has done when it is killed right after it has claimed its source."""
        assert await claim_source(self.context.sessions, fetch.source_id, fetch.fetch_id) is None

    async def read_fetch(self, fetch_id: str) -> FetchDetail:
        """A fetch as clients see it."""
        async with self.context.sessions() as session:
            return await read_fetch(session, self.context.prefect, EVERY_DOMAIN, fetch_id)

    async def source(self, name: str) -> Source:
        """The row of a source."""
        async with self.context.sessions() as session:
            return await find_source(session, EVERY_DOMAIN, name)

    async def entries(self, name: str) -> list[NewEntry]:
        """The entries of a source in the cache."""
        async with self.context.sessions() as session:
            source = await find_source(session, EVERY_DOMAIN, name)
            return [NewEntry.from_row(row) for row in await current_entries(session, source.id)]

    async def content(self, name: str) -> list[bytes]:
        """The content of a source in the cache."""
        found = []
        for entry in await self.entries(name):
            with self.context.store.open(entry.content_hash) as blob:
                found.append(blob.read())
        return found

    async def alerts(self, name: str) -> list[Alert]:
        """The alerts of a source, oldest first."""
        async with self.context.sessions() as session:
            return list(await session.scalars(select(Alert).where(Alert.source == name).order_by(Alert.id)))

    def stray_files(self) -> list[Path]:
        """Staging files that were left behind."""
        return [path for path in (self.context.settings.home / "cache" / "parts").glob("*") if path.is_file()]


NO_PREFECT = cast(Prefect, None)
