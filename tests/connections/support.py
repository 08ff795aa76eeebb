"""Resolved connections, and reading a query over them."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import pytest
from spine.connections.resolved_connection import ResolvedConnection
from spine.egress.fetch_failure import FetchFailure
from spine.egress.limits import Limits
from spine.egress.paths import FileRoots
from spine.sources.readers.base import Item
from spine.sources.readers.database import open_query_reader


def target(**fields: Any) -> ResolvedConnection:
    """A resolved connection to this machine."""
    given: dict[str, Any] = {
        "id": "01J00000000000000000000001",
        "name": "warehouse",
        "db_type": "postgresql",
        "host": "127.0.0.1",
        "port": 5432,
        "database": "postgres",
        "username": None,
        "ssl_mode": "disable",
        "allow_private": True,
        "file_roots": FileRoots(()),
    }
    return ResolvedConnection(**{**given, **fields})


def sqlite_target(file: Path) -> ResolvedConnection:
    """A SQLite file below an allowed root."""
    return target(db_type="sqlite", database=file.name, file_roots=FileRoots((file.parent,)), host="", port=0)


@contextmanager
def owner_of(database: ResolvedConnection) -> Iterator[Any]:
    """The cursor of an owner of a database."""
    login: dict[str, Any] = {"host": database.host, "port": database.port, "user": database.username}
    if database.db_type == "postgresql":
        with psycopg.connect(**login, password=database.password, dbname=database.database, autocommit=True) as owner:
            yield owner.cursor()
    else:
        with pymysql.connect(**login, database=database.database, autocommit=True) as connection:
            yield connection.cursor()


def read(source: ResolvedConnection, query: str, seconds: float = 30, max_bytes: int | None = None) -> bytes:
    """The Parquet file of a query."""
    reader = open_query_reader(source, query, Limits(max_bytes, time.monotonic() + seconds, seconds))
    try:
        (item,) = reader.items({}, False)
        assert isinstance(item, Item)
        return b"".join(item.chunks)
    finally:
        reader.close()
        reader.close()


def failure(source: ResolvedConnection, query: str, seconds: float = 30, max_bytes: int | None = None) -> FetchFailure:
    """The failure of a query."""
    with pytest.raises(FetchFailure) as caught:
        read(source, query, seconds, max_bytes)
    return caught.value
