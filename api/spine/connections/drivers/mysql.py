"""MySQL and MariaDB with PyMySQL, which connects in Python, so that the guard checks every address."""

import re
from collections.abc import Sequence
from contextlib import suppress
from math import isfinite
from typing import Any, NoReturn

import pyarrow as pa

from spine.connections.drivers.base import SECONDS_TO_CONNECT, Column, Rows, Session, missing_package, tls_context
from spine.connections.resolved_connection import ResolvedConnection
from spine.egress.fetch_failure import FetchFailure
from spine.schemas import ErrorCategory

try:
    import pymysql
    from pymysql.constants import CR, ER, FIELD_TYPE, FLAG
    from pymysql.cursors import SSCursor
except ModuleNotFoundError:
    raise missing_package("mysql", "PyMySQL") from None

_BINARY = 63
_TYPES: dict[int, pa.DataType] = {
    FIELD_TYPE.TINY: pa.int16(),
    FIELD_TYPE.SHORT: pa.int32(),
    FIELD_TYPE.INT24: pa.int32(),
    FIELD_TYPE.LONG: pa.int64(),
    FIELD_TYPE.LONGLONG: pa.int64(),
    FIELD_TYPE.YEAR: pa.int16(),
    FIELD_TYPE.FLOAT: pa.float32(),
    FIELD_TYPE.DOUBLE: pa.float64(),
    FIELD_TYPE.DATE: pa.date32(),
    FIELD_TYPE.DATETIME: pa.timestamp("us"),
    FIELD_TYPE.TIMESTAMP: pa.timestamp("us"),
    FIELD_TYPE.TIME: pa.duration("us"),
    FIELD_TYPE.BIT: pa.binary(),
}
_BYTES_OR_TEXT = {
    *(FIELD_TYPE.TINY_BLOB, FIELD_TYPE.MEDIUM_BLOB, FIELD_TYPE.LONG_BLOB, FIELD_TYPE.BLOB),
    *(FIELD_TYPE.STRING, FIELD_TYPE.VAR_STRING, FIELD_TYPE.VARCHAR),
}
_GLOBAL_GRANT = re.compile(r"GRANT (.*?) ON \*\.\* TO ")
_RIGHTS = {
    "SUPER": "is an administrator of the server (SUPER)",
    "FILE": "may read and write files of the server (FILE)",
    "PROCESS": "may see the queries of all users (PROCESS)",
}
_LOGIN = {ER.ACCESS_DENIED_ERROR, ER.DBACCESS_DENIED_ERROR, ER.TABLEACCESS_DENIED_ERROR, ER.COLUMNACCESS_DENIED_ERROR}
_READ_ONLY = 1792
_QUERY = {ER.PARSE_ERROR, ER.SYNTAX_ERROR, ER.EMPTY_QUERY, _READ_ONLY}
_LOST = {CR.CR_SERVER_GONE_ERROR, CR.CR_SERVER_LOST, CR.CR_CONN_HOST_ERROR, CR.CR_CONNECTION_ERROR, 0}
_TLS = {CR.CR_SSL_CONNECTION_ERROR}
# The login methods that send the password in plain text.
_PLAIN_LOGINS = ("mysql_clear_password", "dialog")


class _Driver:
    def connect(self, target: ResolvedConnection, seconds: float) -> Session:
        tls: dict[str, Any] = {"ssl_disabled": True, "auth_plugin_map": dict.fromkeys(_PLAIN_LOGINS, _NoPlainLogin)}
        if target.ssl_mode != "disable":
            tls = {"ssl": tls_context(target)}
        wait = int(min(seconds, 31_536_000)) + 1 if isfinite(seconds) else None
        connection = pymysql.connect(
            host=target.host,
            port=target.port,
            user=target.username or "",
            # As bytes, because PyMySQL encodes text as Latin-1.
            password=(target.password or "").encode(),
            database=target.database,
            charset="utf8mb4",
            connect_timeout=min(seconds, SECONDS_TO_CONNECT),
            read_timeout=wait,
            write_timeout=wait,
            local_infile=False,
            cursorclass=SSCursor,
            **tls,
        )
        return _Session(connection)

    def translate(self, target: ResolvedConnection, error: Exception) -> FetchFailure | None:
        if not isinstance(error, pymysql.Error):
            return None
        code, text = (*error.args, 0, "")[:2] if error.args else (0, type(error).__name__)
        if code == _READ_ONLY:
            category = ErrorCategory.CONFIG
        elif code in _LOGIN or "Access denied" in str(text):
            category = ErrorCategory.AUTH
        elif code in _QUERY or code in _TLS or "SSL" in str(text) or "certificate" in str(text):
            category = ErrorCategory.CONFIG
        elif code in _LOST:
            category = ErrorCategory.NETWORK
        else:
            category = ErrorCategory.SOURCE
        sentence = f"The database {target.name} reported: {target.scrubbed(str(text))}"
        return FetchFailure(category, sentence, transient=category is ErrorCategory.NETWORK)


class _NoPlainLogin:
    """The handler that PyMySQL calls when a server requests the password in plain text."""

    def __init__(self, connection: Any) -> None:
        pass

    def authenticate(self, packet: Any) -> NoReturn:
        """Refuse, without sending anything."""
        raise pymysql.OperationalError(
            CR.CR_SSL_CONNECTION_ERROR,
            "the server requests the password in plain text, which is refused with ssl_mode disable",
        )


class _Session:
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def probe(self) -> str:
        with self._connection.cursor() as cursor:
            cursor.execute("SELECT VERSION()")
            version = str(cursor.fetchall()[0][0])
        return f"{'MariaDB' if 'MariaDB' in version else 'MySQL'} {version.partition('-')[0]}"

    def excess_rights(self) -> list[str]:
        with self._connection.cursor() as cursor:
            cursor.execute("SHOW GRANTS FOR CURRENT_USER()")
            grants = [str(row[0]).upper() for row in cursor.fetchall()]
        # Rights on everything (*.*); those on single databases are no concern of the server.
        found = [match[1] for grant in grants if (match := _GLOBAL_GRANT.match(grant))]
        held = {right.strip() for rights in found for right in rights.split(",")}
        if held & {"ALL PRIVILEGES", "ALL"}:
            return ["has all privileges on the server (ALL ON *.*), which include FILE and SUPER"]
        return [text for name, text in _RIGHTS.items() if name in held]

    def select(self, query: str) -> Rows:
        with self._connection.cursor() as cursor:
            cursor.execute("SET SESSION TRANSACTION READ ONLY")
            cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
        # The server keeps the rows until they are fetched.
        cursor = self._connection.cursor()
        cursor.execute(query)
        return _Rows(cursor)

    def abort(self) -> None:
        with suppress(Exception):
            self._connection._force_close()

    def close(self) -> None:
        # Without closing the protocol, which would read the remaining rows first; the result is detached for the same
        # reason.
        self.abort()
        if (unread := self._connection._result) is not None:
            unread.unbuffered_active = False
            self._connection._result = None


class _Rows:
    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor
        self.columns: Sequence[Column] = [_column(field) for field in cursor._result.fields]

    def fetch(self, count: int) -> Sequence[Sequence[Any]]:
        rows: Sequence[Sequence[Any]] = self._cursor.fetchmany(count)
        return rows


def _column(field: Any) -> Column:
    if field.type_code == FIELD_TYPE.LONGLONG and field.flags & FLAG.UNSIGNED:
        return Column(field.name, pa.uint64())
    if field.type_code == FIELD_TYPE.NEWDECIMAL:
        # The length includes the sign and the decimal point.
        digits = field.length - (1 if field.scale else 0) - (0 if field.flags & FLAG.UNSIGNED else 1)
        fits = 0 < digits <= 38
        return Column(field.name, pa.decimal128(digits, field.scale) if fits else pa.string())
    if field.type_code in _BYTES_OR_TEXT and field.charsetnr == _BINARY:
        return Column(field.name, pa.binary())
    return Column(field.name, _TYPES.get(field.type_code, pa.string()))


DRIVER = _Driver()
