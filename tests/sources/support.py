"""A workshop of fetches on one database, and what tests ask of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

from spine.auth.callers import Caller, Scope
from spine.cache.entries import NewEntry, current_entries
from spine.egress.fetch_failure import FetchFailure
from spine.prefect.client import Prefect
from spine.sources.configs import SourceConfigs
from spine.sources.fetch_queries import read_fetch
from spine.sources.fetch_state import Beginning, Begun, begin, claim_source, find_source
from spine.sources.fetching.context import FetchContext
from spine.sources.fetching.fetcher import Outcome, fetch, record_failure
from spine.sources.schedule import SourceSchedules
from spine.sources.schemas import FetchDetail, FetchTrigger, SourceCreate, SourceUpdate
from spine.sources.service import Registry
from spine.tables.alerts import Alert
from spine.tables.sources import Source
from sqlalchemy import select

CALLER = Caller(id="tests", name="tests", scopes=frozenset(Scope))


@dataclass
class Desk:
    """Registers and fetches, as the API and a worker do, without either."""

    context: FetchContext
    root: Path

    @property
    def registry(self) -> Registry:
        """Sources without a clock, for which Prefect is not asked."""
        schedules = SourceSchedules(self.context.prefect, self.context.sessions, cast(Any, None), CALLER)
        return Registry(self.context.sessions, SourceConfigs(self.context.settings), schedules)

    async def register(self, source_type: str, config: dict[str, Any], **fields: Any) -> str:
        """Make a source and give its name."""
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

    async def begin(self, name: str, *, force: bool = False, run_id: UUID | None = None) -> Begun:
        """Set a fetch to RUNNING."""
        beginning = Beginning(run_id or uuid4(), FetchTrigger.MANUAL, "tests", force, "here:1")
        return await begin(self.context.sessions, name, None, beginning)

    async def fetch(self, name: str, *, force: bool = False) -> FetchDetail:
        """Fetch once, and give the fetch as clients see it."""
        begun = await self.begin(name, force=force)
        try:
            await self.go_on(begun, force=force)
        except FetchFailure as failure:
            await self.fail(begun, failure)
        return await self.read_fetch(begun.fetch_id)

    async def go_on(self, begun: Begun, *, force: bool = False) -> Outcome:
        """What a run does after it has begun."""
        return await fetch(self.context, begun, force=force, tell=lambda _: None)

    async def fail(self, begun: Begun, failure: Exception) -> None:
        """What a run does when it has failed for good."""
        await record_failure(self.context, begun, failure)

    async def claim_source_of(self, begun: Begun) -> None:
        """What a run has done when it is killed right after its turn has come."""
        assert await claim_source(self.context.sessions, begun.source_id, begun.fetch_id) is None

    async def read_fetch(self, fetch_id: str) -> FetchDetail:
        """A fetch as clients see it."""
        async with self.context.sessions() as session:
            return await read_fetch(session, fetch_id)

    async def source(self, name: str) -> Source:
        """The row of a source."""
        async with self.context.sessions() as session:
            return await find_source(session, name)

    async def entries(self, name: str) -> list[NewEntry]:
        """What the cache has of a source."""
        async with self.context.sessions() as session:
            source = await find_source(session, name)
            return [NewEntry.from_row(row) for row in await current_entries(session, source.id)]

    async def content(self, name: str) -> list[bytes]:
        """The bytes that the cache has of a source."""
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
        """Parts that nobody works on."""
        return [path for path in (self.context.settings.home / "cache" / "parts").glob("*") if path.is_file()]


NO_PREFECT = cast(Prefect, None)
