"""SQL that SQLite and PostgreSQL write differently, and the batches that one statement can take."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from spine.tables.base import Base

T = TypeVar("T")

# SQLite and PostgreSQL both limit the number of values in one statement.
_BATCH_SIZE = 500


def upsert(session: AsyncSession, table: type[Base]) -> postgresql.Insert | sqlite.Insert:
    """An INSERT that takes an ON CONFLICT clause."""
    is_sqlite = session.get_bind().dialect.name == "sqlite"
    return sqlite.insert(table) if is_sqlite else postgresql.insert(table)


def batches(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """The values in batches that fit into one statement."""
    for first in range(0, len(values), _BATCH_SIZE):
        yield values[first : first + _BATCH_SIZE]
