"""Databases with all tables, made once: migrating each test's own takes longer than most tests."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
from spine.migrations.migrate import upgrade
from spine.settings import Settings
from spine.tables import Base
from sqlalchemy import URL, Connection, Engine, create_engine, insert, make_url, select

from tests.support.postgres import fresh_database


@cache
def _migrated_sqlite() -> bytes:
    """The file of a SQLite database with all tables."""
    with TemporaryDirectory() as folder:
        url = Settings(home=Path(folder)).sqlalchemy_url
        upgrade(url)
        return Path(str(url.database)).read_bytes()


def migrate(url: URL) -> None:
    """Bring a database to the newest revision, as `upgrade` does; a new SQLite file is a copy of one that was."""
    if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).exists():
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
        Path(url.database).write_bytes(_migrated_sqlite())
        return
    upgrade(url)


@contextmanager
def in_database(url: URL) -> Iterator[Connection]:
    """A transaction on a database of Spine, past all that Spine does with it."""
    engine = create_engine(url.set(drivername=url.drivername.replace("+aiosqlite", "")))
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


class LentDatabases:
    """PostgreSQL databases with all tables that one test after the other uses, emptied in between."""

    def __init__(self, server_url: str) -> None:
        self._server_url = server_url
        self._free: list[_Lent] = []
        self._cleanup = ExitStack()

    @contextmanager
    def lend(self) -> Iterator[str]:
        """The URL of a database as the migrations leave it."""
        lent = self._free.pop() if self._free else self._make()
        try:
            yield lent.url
        finally:
            lent.disconnect_all()
            lent.empty()
            self._free.append(lent)

    def close(self) -> None:
        """Drop them all."""
        self._cleanup.close()

    def _make(self) -> "_Lent":
        url = self._cleanup.enter_context(fresh_database(self._server_url))
        settings = Settings.model_validate({"database_url": url})
        upgrade(settings.sqlalchemy_url)
        engine = create_engine(settings.sqlalchemy_url)
        self._cleanup.callback(engine.dispose)
        return _Lent(url, engine)


class _Lent:
    """One database, and the rows that the migrations have stored in it."""

    def __init__(self, url: str, engine: Engine) -> None:
        self.url = url
        self._engine = engine
        with engine.connect() as connection:
            found = {table: connection.execute(select(table)).mappings().all() for table in Base.metadata.sorted_tables}
        self._rows = {table: [dict(row) for row in rows] for table, rows in found.items() if rows}

    def disconnect_all(self) -> None:
        """End what a test has left behind, which might hold locks."""
        self._engine.dispose()
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(others, [make_url(self.url).database])

    def empty(self) -> None:
        """Delete every row but those of the migrations."""
        with self._engine.begin() as connection:
            for table in reversed(Base.metadata.sorted_tables):
                connection.execute(table.delete())
            for table, rows in self._rows.items():
                connection.execute(insert(table), rows)
