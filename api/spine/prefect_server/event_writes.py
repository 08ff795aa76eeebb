"""Writes events on SQLite with the statements that Prefect has for PostgreSQL, in one transaction.

For SQLite Prefect puts all values of a batch into one statement, which SQLAlchemy compiles with hundreds of
parameters for each batch: an event costs 2.0 ms of CPU time, and a run of three steps has 15. Of the statements for
PostgreSQL only one row is compiled, and SQLite understands them: 0.6 ms. They insert row by row, so they need a
transaction: Prefect has none here, and each row would be stored on its own, or be refused on its own.
"""

import inspect
from typing import Any

from prefect.server.database import provide_database_interface
from prefect.server.events.storage import database
from sqlalchemy.ext.asyncio import AsyncSession

_PARAMETERS = ("session", "events")
_ON_SQLITE, _ON_POSTGRESQL = "_write_sqlite_events", "_write_postgres_events"


def install_event_writes() -> list[str]:
    """Replace a function of Prefect in this process; the names that this version lacks, if it does."""
    module: Any = database
    missing = [name for name in (_ON_SQLITE, _ON_POSTGRESQL) if not _is_usable(getattr(module, name, None))]
    if missing:
        return missing
    write = getattr(module, _ON_POSTGRESQL)

    async def write_in_a_transaction(session: AsyncSession, events: list[Any]) -> None:
        async with provide_database_interface().database_config.begin_transaction(session):
            await write(session=session, events=events)

    setattr(module, _ON_SQLITE, write_in_a_transaction)
    return []


def _is_usable(function: Any) -> bool:
    return function is not None and tuple(inspect.signature(function).parameters)[-2:] == _PARAMETERS
