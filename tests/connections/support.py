"""Connections as drivers see them."""

import time
from pathlib import Path
from typing import Any

import pytest
from spine.connections.resolved_connection import ConnectionTarget
from spine.egress.fetch_failure import FetchFailure
from spine.egress.limits import Limits
from spine.sources.readers.base import Item
from spine.sources.readers.database import open_query_reader


def target(**fields: Any) -> ConnectionTarget:
    """A target on this machine."""
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
        "file_roots": (),
    }
    return ConnectionTarget(**{**given, **fields})


def sqlite_target(file: Path) -> ConnectionTarget:
    """A file whose folder is open."""
    return target(db_type="sqlite", database=file.name, file_roots=(file.parent,), host="", port=0)


def read(source: ConnectionTarget, query: str, seconds: float = 30, max_bytes: int | None = None) -> bytes:
    """The Parquet file of a query."""
    reader = open_query_reader(source, query, Limits(max_bytes, time.monotonic() + seconds, seconds))
    try:
        (item,) = reader.items({}, False)
        assert isinstance(item, Item)
        return b"".join(item.chunks)
    finally:
        reader.close()
        reader.close()


def failure(source: ConnectionTarget, query: str, seconds: float = 30, max_bytes: int | None = None) -> FetchFailure:
    """Why a query cannot be read."""
    with pytest.raises(FetchFailure) as caught:
        read(source, query, seconds, max_bytes)
    return caught.value
