"""Prefect's own database in the tests: the machine's PostgreSQL, as past one machine, or SQLite where there is none.

The quiet server and the tests of `spine up` use SQLite in any case, as `spine up` does. Measured, the server takes as
much processor time on either (60 runs of four states: 7.9 s on SQLite, 8.9 s with PostgreSQL's own); its start takes
3.5 s more on SQLite, for the migrations.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
from sqlalchemy import JSON, Connection, String, Table, bindparam, cast, create_engine, insert, make_url, select, update
from sqlalchemy.schema import MetaData

from tests.support.postgres import MACHINE_URL, fresh_database

VARIABLE = "PREFECT_API_DATABASE_CONNECTION_URL"


@contextmanager
def prefect_database() -> Iterator[dict[str, str]]:
    """The variables that give a Prefect server a new database."""
    if not is_fit_for_prefect():
        yield {}
        return
    with fresh_database(MACHINE_URL) as url:
        # Each connection beyond the pool is made again, which takes the server and PostgreSQL some 30 ms.
        yield {
            VARIABLE: make_url(url).set(drivername="postgresql+asyncpg").render_as_string(hide_password=False),
            "PREFECT_SERVER_DATABASE_SQLALCHEMY_POOL_SIZE": "15",
        }


def is_fit_for_prefect() -> bool:
    """Whether there is a server, with the extension that Prefect needs."""
    try:
        with psycopg.connect(MACHINE_URL, connect_timeout=2) as connection:
            found = connection.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'pg_trgm'").fetchone()
            return found is not None
    except psycopg.OperationalError:
        return False


class PrefectTables:
    """Prefect's tables, for what its API does not let anyone store."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._metadata = MetaData()

    def __getitem__(self, name: str) -> Table:
        """A table by its name."""
        found = self._metadata.tables.get(name)
        if found is None:
            found = Table(name, self._metadata, autoload_with=self.connection)
            for column in found.columns:
                if isinstance(column.type, JSON):
                    # Prefect filters by NULL, which the null of JSON is not.
                    column.type.none_as_null = True
        return found

    def row(self, table: str, row_id: str) -> dict[str, Any]:
        """A row by its id."""
        found = self.connection.execute(select(self[table]).where(cast(self[table].c.id, String) == row_id))
        return dict(found.mappings().one())

    def change(self, table: str, row_id: str, **values: Any) -> None:
        """Change a row."""
        found = cast(self[table].c.id, String) == row_id
        assert self.connection.execute(update(self[table]).where(found).values(values)).rowcount == 1

    def copy(self, table: str, row_id: str, copies: Sequence[dict[str, Any]]) -> list[str]:
        """Store copies of a row, each with these values, and give their ids."""
        row, ids = self.row(table, row_id), [str(uuid4()) for _ in copies]
        rows = [{**row, **values, "id": copy_id} for copy_id, values in zip(ids, copies, strict=True)]
        self.connection.execute(insert(self[table]), rows)
        return ids

    def copy_runs(self, run_id: str, copies: Sequence[dict[str, Any]]) -> list[str]:
        """Store copies of a run and its state, each with these values, and give their ids."""
        state = self.row("flow_run_state", str(self.row("flow_run", run_id)["state_id"]))
        ids = self.copy("flow_run", run_id, [{**values, "state_id": None} for values in copies])
        times = [values.get("state_timestamp", state["timestamp"]) for values in copies]
        of_states = [{"flow_run_id": one, "timestamp": time} for one, time in zip(ids, times, strict=True)]
        states = self.copy("flow_run_state", str(state["id"]), of_states)
        # A run and its state refer to each other.
        table = self["flow_run"]
        pointing = update(table).where(table.c.id == bindparam("one")).values(state_id=bindparam("its_state"))
        pairs = [{"one": one, "its_state": its_state} for one, its_state in zip(ids, states, strict=True)]
        self.connection.execute(pointing, pairs)
        return ids

    def time(self, when: datetime) -> datetime:
        """A time as the database takes it: SQLite knows no zones, and Prefect has UTC in it."""
        return when if self.connection.dialect.name == "postgresql" else when.astimezone(UTC).replace(tzinfo=None)


@contextmanager
def prefect_tables(environment: dict[str, str], home: Path) -> Iterator[PrefectTables]:
    """The tables of a running server, in a transaction."""
    if url := environment.get(VARIABLE):
        engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
    else:
        engine = create_engine(f"sqlite:///{home / 'prefect.db'}", connect_args={"timeout": 60})
    with engine.begin() as connection:
        yield PrefectTables(connection)
    engine.dispose()
