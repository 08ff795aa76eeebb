"""Who uses sources and fetches."""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from spine.tables.sources import Fetch, Source, SourceUse


async def sources_using(session: AsyncSession, connection_id: str) -> list[str]:
    """The names of the sources that read over a connection, in order."""
    mine = select(Source.name).where(Source.connection_id == connection_id).order_by(Source.name)
    return list(await session.scalars(mine))


async def capture_used(session: AsyncSession, run_id: UUID) -> str | None:
    """The name of the content of a source that a flow run used, of several the last; None for a run that used none."""
    mine = select(SourceUse.capture_id).where(SourceUse.run_id == run_id)
    return (await session.scalars(mine.order_by(SourceUse.used_at.desc(), SourceUse.fetch_id.desc()).limit(1))).first()


async def is_fetch(session: AsyncSession, run_id: UUID) -> bool:
    """Whether a flow run was a fetch, whose failure raises an alert of its source."""
    return (await session.scalars(select(Fetch.id).where(Fetch.run_id == run_id).limit(1))).first() is not None
