"""The engine of the migrations: without asyncio; on SQLite, too, its transactions contain the changes of tables."""

from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event

from spine.database import SECONDS_TO_CONNECT

SECONDS_TO_WAIT_FOR_ANOTHER = 60


def engine_for(url: URL) -> Engine:
    """An engine whose transactions contain the changes of tables, too."""
    if url.get_backend_name() != "sqlite":
        return create_engine(url.update_query_dict({"connect_timeout": str(SECONDS_TO_CONNECT)}))
    engine = create_engine(url.set(drivername="sqlite"), connect_args={"timeout": SECONDS_TO_WAIT_FOR_ANOTHER})
    event.listen(engine, "connect", _begin_nothing_by_itself)
    event.listen(engine, "begin", _take_write_lock)
    return engine


def _begin_nothing_by_itself(connection: Any, _record: Any) -> None:
    # Python's driver would commit before a change of tables, and begin only before a change of rows.
    connection.isolation_level = None


def _take_write_lock(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
