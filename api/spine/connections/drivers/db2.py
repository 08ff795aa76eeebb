"""Db2 with ibm_db, whose client library connects in C: it is given an address that is checked here."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from spine.connections.drivers.base import SECONDS_TO_CONNECT, Column, Rows, Session, allowed_addresses, missing_package
from spine.connections.resolved_connection import ResolvedConnection
from spine.egress.fetch_failure import FetchFailure
from spine.schemas import ErrorCategory

try:
    import ibm_db  # type: ignore[import-not-found,unused-ignore]
    import ibm_db_dbi  # type: ignore[import-not-found,unused-ignore]
except ModuleNotFoundError:
    raise missing_package("db2", "ibm_db") from None

_LOGIN = ("SQL30082N", "SQL1060N", "SQL0551N")
_QUERY = ("SQL0104N", "SQL0817N")
_ADMINISTRATORS = ("SYSADM", "SYSCTRL", "SECADM", "DBADM", "ACCESSCTRL", "DATAACCESS")
_NETWORK = ("SQL30081N", "SQL1224N", "SQL30108N", "SQL0952N")


class _Driver:
    def connect(self, target: ResolvedConnection, seconds: float) -> Session:
        wait = int(min(seconds, SECONDS_TO_CONNECT))
        parts = {
            "DATABASE": target.database,
            "HOSTNAME": allowed_addresses(target)[0],
            "PORT": str(target.port),
            "PROTOCOL": "TCPIP",
            "UID": target.username or "",
            "PWD": target.password or "",
            "CONNECTTIMEOUT": str(max(1, wait)),
            "QUERYTIMEOUTINTERVAL": "1",
        }
        if target.ssl_mode in ("verify-ca", "verify-full"):
            sentence = "Spine cannot verify the certificate of a Db2 server; use ssl_mode require or disable."
            raise FetchFailure(ErrorCategory.CONFIG, sentence)
        if target.ssl_mode == "require":
            parts["SECURITY"] = "SSL"
        if any(";" in part for part in parts.values()):
            sentence = "A value of this connection contains a semicolon, which the client of Db2 does not support."
            raise FetchFailure(ErrorCategory.CONFIG, sentence)
        text = "".join(f"{name}={value};" for name, value in parts.items())
        connection = ibm_db.connect(text, "", "", {ibm_db.SQL_ATTR_AUTOCOMMIT: ibm_db.SQL_AUTOCOMMIT_OFF})
        return _Session(ibm_db_dbi.Connection(connection))

    def translate(self, target: ResolvedConnection, error: Exception) -> FetchFailure | None:
        # `ibm_db.connect` raises a bare Exception with the message of the server.
        if type(error) is not Exception and not isinstance(error, ibm_db_dbi.Error):
            return None
        message = target.scrubbed(str(error))
        if any(code in message for code in _LOGIN):
            category = ErrorCategory.AUTH
        elif any(code in message for code in _QUERY):
            category = ErrorCategory.CONFIG
        elif any(code in message for code in _NETWORK):
            category = ErrorCategory.NETWORK
        else:
            category = ErrorCategory.SOURCE
        sentence = f"The database {target.name} reported: {message}"
        return FetchFailure(category, sentence, transient=category is ErrorCategory.NETWORK)


class _Session:
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def probe(self) -> str:
        cursor = self._connection.cursor()
        cursor.execute("SELECT 1 FROM SYSIBM.SYSDUMMY1")
        cursor.fetchone()
        return f"{self._connection.dbms_name} {self._connection.dbms_ver}"

    def excess_rights(self) -> list[str]:
        cursor = self._connection.cursor()
        cursor.execute(
            "SELECT AUTHORITY FROM TABLE(SYSPROC.AUTH_LIST_AUTHORITIES_FOR_AUTHID(SESSION_USER, 'U')) AS held "
            "WHERE 'Y' IN (D_USER, D_GROUP, D_PUBLIC, ROLE_USER, ROLE_GROUP, ROLE_PUBLIC)"
        )
        held = {str(row[0]).strip().upper() for row in cursor.fetchall()}
        return [f"is an administrator ({name})" for name in _ADMINISTRATORS if name in held]

    def select(self, query: str) -> Rows:
        cursor = self._connection.cursor()
        # On a line of its own, because the query may end in a comment.
        cursor.execute(f"{query}\nFOR READ ONLY")
        return _Rows(cursor)

    def abort(self) -> None:
        with suppress(Exception):
            self._connection.close()

    def close(self) -> None:
        # Undoes any change, as nothing is ever committed.
        with suppress(Exception):
            self._connection.rollback()
        self.abort()


class _Rows:
    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor
        self.columns: Sequence[Column] = [Column(str(one[0]), None) for one in cursor.description or ()]

    def fetch(self, count: int) -> Sequence[Sequence[Any]]:
        rows: Sequence[Sequence[Any]] = self._cursor.fetchmany(count)
        return rows


DRIVER = _Driver()
