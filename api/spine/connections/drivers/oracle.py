"""Oracle with python-oracledb in thin mode, which connects in Python, so that the guard checks every address."""

from collections.abc import Sequence
from contextlib import suppress
from math import isfinite
from typing import Any

import pyarrow as pa

from spine.connections.drivers.base import SECONDS_TO_CONNECT, Column, Rows, Session, missing_package, tls_context
from spine.connections.resolved_connection import ResolvedConnection
from spine.egress.fetch_failure import FetchFailure
from spine.schemas import ErrorCategory

try:
    import oracledb
except ModuleNotFoundError:
    raise missing_package("oracle", "oracledb") from None

_LOGIN = {1017, 28000, 28001, 1045, 1031}
_QUERY = {900, 923, 933, 936, 1456}
_RIGHTS = {
    "SYSDBA": "is an administrator of the server (SYSDBA)",
    "DBA": "is an administrator of the database (DBA)",
    "CREATE ANY DIRECTORY": "may read and write files of the server (CREATE ANY DIRECTORY)",
    "READ ANY FILE GROUP": "may read files of the server (READ ANY FILE GROUP)",
}
_TYPES = {
    oracledb.DB_TYPE_BINARY_DOUBLE: pa.float64(),
    oracledb.DB_TYPE_BINARY_FLOAT: pa.float32(),
    oracledb.DB_TYPE_DATE: pa.timestamp("s"),
    oracledb.DB_TYPE_TIMESTAMP: pa.timestamp("us"),
    oracledb.DB_TYPE_RAW: pa.binary(),
    oracledb.DB_TYPE_LONG_RAW: pa.binary(),
    oracledb.DB_TYPE_BLOB: pa.binary(),
}


class _Driver:
    def connect(self, target: ResolvedConnection, seconds: float) -> Session:
        # Contents instead of LOB handles, and exact numbers instead of floats.
        oracledb.defaults.fetch_lobs = False
        oracledb.defaults.fetch_decimals = True
        tls: dict[str, Any] = {}
        if target.ssl_mode != "disable":
            verifies = target.ssl_mode == "verify-full"
            tls = {"protocol": "tcps", "ssl_context": tls_context(target), "ssl_server_dn_match": verifies}
        connection = oracledb.connect(
            host=target.host,
            port=target.port,
            service_name=target.database,
            user=target.username,
            password=target.password,
            tcp_connect_timeout=min(seconds, SECONDS_TO_CONNECT),
            **tls,
        )
        if isfinite(seconds):
            connection.call_timeout = int(min(seconds, 2_000_000) * 1000)
        return _Session(connection)

    def translate(self, target: ResolvedConnection, error: Exception) -> FetchFailure | None:
        if not isinstance(error, oracledb.Error):
            return None
        details = error.args[0] if error.args else None
        code = getattr(details, "code", 0)
        message = target.scrubbed(str(getattr(details, "message", "") or error))
        if code in _LOGIN:
            category = ErrorCategory.AUTH
        elif code in _QUERY:
            category = ErrorCategory.CONFIG
        elif "DPY-4011" in message or "DPY-6" in message or "DPY-4024" in message:
            category = ErrorCategory.NETWORK
        else:
            category = ErrorCategory.SOURCE
        sentence = f"The database {target.name} reported: {message}"
        return FetchFailure(category, sentence, transient=category is ErrorCategory.NETWORK)


class _Session:
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def probe(self) -> str:
        with self._connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM DUAL")
            cursor.fetchone()
        return f"Oracle {self._connection.version}"

    def excess_rights(self) -> list[str]:
        with self._connection.cursor() as cursor:
            cursor.execute("SELECT role FROM session_roles UNION ALL SELECT privilege FROM session_privs")
            held = {str(row[0]).upper() for row in cursor.fetchall()}
        return [text for name, text in _RIGHTS.items() if name in held]

    def select(self, query: str) -> Rows:
        with self._connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION READ ONLY")
        cursor = self._connection.cursor()
        cursor.execute(query)
        return _Rows(cursor)

    def abort(self) -> None:
        with suppress(oracledb.Error):
            self._connection.cancel()

    def close(self) -> None:
        with suppress(oracledb.Error):
            self._connection.close()


class _Rows:
    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor
        self.columns: Sequence[Column] = [_column(one) for one in cursor.description or ()]

    def fetch(self, count: int) -> Sequence[Sequence[Any]]:
        # The number of rows in one response of the server.
        self._cursor.arraysize = count
        rows: Sequence[Sequence[Any]] = self._cursor.fetchmany()
        return rows


def _column(described: Any) -> Column:
    """A column by its description. Raises `FetchFailure` for one whose time zone the driver would drop."""
    name, kind, precision, scale = described[0], described[1], described[4], described[5]
    if kind is oracledb.DB_TYPE_TIMESTAMP_TZ:
        sentence = (
            f"The column {name!r} has times with a zone, which the driver drops; use SYS_EXTRACT_UTC in the query."
        )
        raise FetchFailure(ErrorCategory.CONFIG, sentence)
    if kind is oracledb.DB_TYPE_NUMBER and precision and scale is not None and 0 <= scale <= precision <= 38:
        return Column(name, pa.decimal128(precision, scale))
    return Column(name, _TYPES.get(kind, pa.string()))


DRIVER = _Driver()
