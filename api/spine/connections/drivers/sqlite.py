"""SQLite files below SPINE_FILE_ROOTS, opened read-only."""

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from spine.connections.drivers.base import Column, Rows, Session
from spine.connections.resolved_connection import ResolvedConnection
from spine.egress.fetch_failure import FetchFailure
from spine.schemas import ErrorCategory

_FORBIDDEN = {sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH, sqlite3.SQLITE_PRAGMA}


class _Driver:
    def connect(self, target: ResolvedConnection, seconds: float) -> Session:
        path = _real_path(target)
        uri = f"file:{quote(path)}?mode=ro"
        connection = sqlite3.connect(uri, uri=True, timeout=min(seconds, 30), check_same_thread=False)
        connection.execute("PRAGMA query_only=ON")
        # Attached files would bypass the check of the path.
        connection.set_authorizer(lambda action, *_: sqlite3.SQLITE_DENY if action in _FORBIDDEN else sqlite3.SQLITE_OK)
        return _Session(connection, uri)

    def translate(self, target: ResolvedConnection, error: Exception) -> FetchFailure | None:
        if not isinstance(error, sqlite3.Error):
            return None
        message = target.scrubbed(str(error))
        name = error.sqlite_errorname if hasattr(error, "sqlite_errorname") else ""
        if name in ("SQLITE_READONLY", "SQLITE_AUTH") or "syntax error" in message:
            category = ErrorCategory.CONFIG
        elif name in ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_INTERRUPT"):
            return FetchFailure(ErrorCategory.SOURCE, f"The database {target.name} reported: {message}", transient=True)
        else:
            category = ErrorCategory.SOURCE
        return FetchFailure(category, f"The database {target.name} reported: {message}")


def _real_path(target: ResolvedConnection) -> str:
    """The path of the file, with all links resolved. Raises `FetchFailure` outside of the roots."""
    path = target.file_roots.absolute(target.database)
    real = Path(os.path.realpath(path))
    target.file_roots.root_of(real, path)
    if not real.is_file():
        raise FetchFailure(ErrorCategory.SOURCE, f"{path} was not found, or is not a file.")
    return str(real)


class _Session:
    def __init__(self, connection: sqlite3.Connection, uri: str) -> None:
        self._connection = connection
        self._uri = uri

    def probe(self) -> str:
        # Reads the file; opening it does not.
        self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        return f"SQLite {sqlite3.sqlite_version}"

    def excess_rights(self) -> list[str]:
        # A file has no users.
        return []

    def select(self, query: str) -> Rows:
        return _Rows(self._connection.execute(query), self._affinities(query))

    def _affinities(self, query: str) -> Sequence[str]:
        """The affinities of the columns, which SQLite shows of a view; it is created outside of the file."""
        with closing(sqlite3.connect(self._uri, uri=True)) as beside, suppress(sqlite3.Error):
            # On a line of its own, because the query may end in a comment.
            beside.execute(f"CREATE TEMP VIEW spine_columns AS {query}\n")
            return [str(row[2]).upper() for row in beside.execute("PRAGMA temp.table_info(spine_columns)")]
        return ()

    def abort(self) -> None:
        with suppress(sqlite3.Error):
            self._connection.interrupt()

    def close(self) -> None:
        with suppress(sqlite3.Error):
            self._connection.close()


class _Rows:
    def __init__(self, cursor: sqlite3.Cursor, affinities: Sequence[str]) -> None:
        self._cursor = cursor
        # In SQLite values have types and columns do not, so the first rows determine them.
        names = [str(one[0]) for one in cursor.description or ()]
        known = affinities if len(affinities) == len(names) else [""] * len(names)
        self.columns: Sequence[Column] = [
            Column(name, None, _type_of(affinity)) for name, affinity in zip(names, known, strict=True)
        ]

    def fetch(self, count: int) -> Sequence[Sequence[Any]]:
        return self._cursor.fetchmany(count)


def _type_of(declared: str) -> pa.DataType:
    """The type of most values of a column that is declared so, by the rules of SQLite; null for one of any values."""
    if "INT" in declared:
        return pa.int64()
    if any(word in declared for word in ("CHAR", "CLOB", "TEXT")):
        return pa.string()
    if "BLOB" in declared:
        return pa.binary()
    return pa.float64() if any(word in declared for word in ("REAL", "FLOA", "DOUB")) else pa.null()


DRIVER = _Driver()
