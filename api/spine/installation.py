"""The row that says what belongs to this database: see `spine.tables.installation`."""

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from spine.database import SessionFactory, reading
from spine.tables.base import new_id
from spine.tables.installation import ONLY, Installation


async def read_installation(sessions: SessionFactory) -> Installation | None:
    """The row, if there is one. Raises `DatabaseUnavailable`."""
    async with reading(sessions) as session:
        return await session.get(Installation, ONLY)


async def lock_installation(session: AsyncSession) -> Installation:
    """The row, locked until the end of the transaction, and inserted if it is missing."""
    is_sqlite = session.get_bind().dialect.name == "sqlite"
    inserting = (sqlite.insert if is_sqlite else postgresql.insert)(Installation)
    await session.execute(
        inserting.values(name=ONLY, store_marker=new_id(), store_is_in_home=False).on_conflict_do_nothing()
    )
    return (await session.scalars(select(Installation).where(Installation.name == ONLY).with_for_update())).one()
