"""MySQL and MariaDB with PyMySQL, which connects in Python, so that the guard checks every address."""

import re
from contextlib import suppress
from math import isfinite
from typing import Any, NoReturn

from spine.connections.drivers.base import SECONDS_TO_CONNECT, Rows, Session, missing_package, tls_context
from spine.connections.resolved_connection import ResolvedConnection
from spine.egress.fetch_failure import FetchFailure
from spine.schemas import ErrorCategory

try:
    import pymysql
    from pymysql.constants import CR, ER

    from spine.connections.drivers.mysql_rows import BinaryRows
except ModuleNotFoundError:
    raise missing_package("mysql", "PyMySQL") from None

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
# What PyMySQL says of a server of another protocol, and OpenSSL of a server that closed the connection.
_NOT_MYSQL, _CLOSED = "Packet sequence number wrong", "UNEXPECTED_EOF_WHILE_READING"
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
            **tls,
        )
        return _Session(connection)

    def translate(self, target: ResolvedConnection, error: Exception) -> FetchFailure | None:
        if not isinstance(error, pymysql.Error):
            return None
        code, text = error.args[:2] if len(error.args) > 1 else (None, *error.args, type(error).__name__)[:2]
        if code == _READ_ONLY or _NOT_MYSQL in str(text):
            category = ErrorCategory.CONFIG
        elif _CLOSED in str(text):
            category = ErrorCategory.NETWORK
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
        return BinaryRows(self._connection, query)

    def abort(self) -> None:
        with suppress(Exception):
            self._connection._force_close()

    def close(self) -> None:
        # Without closing the protocol, which would read the remaining rows first.
        self.abort()


DRIVER = _Driver()
