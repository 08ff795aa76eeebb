"""What both databases say in a dialect of their own."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from spine.tables.base import Base

T = TypeVar("T")

# SQLite and PostgreSQL both limit the values of one statement.
_AT_ONCE = 500


def upsert(session: AsyncSession, table: type[Base]) -> postgresql.Insert | sqlite.Insert:
    """An INSERT that can say what to do about a row that is there."""
    is_sqlite = session.get_bind().dialect.name == "sqlite"
    return sqlite.insert(table) if is_sqlite else postgresql.insert(table)


def batches(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """The same values in parts that one statement can take."""
    for first in range(0, len(values), _AT_ONCE):
        yield values[first : first + _AT_ONCE]
