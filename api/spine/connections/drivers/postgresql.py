"""PostgreSQL with psycopg, over libpq.

libpq connects in C, so it is given addresses that are checked here. The personal configuration of the user that runs
Spine has no effect: no password file, client certificate or certificate authority from a home directory is used.
"""

import os
import socket
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from uuid import uuid4

import psycopg
import pyarrow as pa
from psycopg.adapt import Transformer
from psycopg.pq import Format
from psycopg.types import TypeInfo
from psycopg.types.string import TextLoader

from spine.connections.drivers.base import (
    SECONDS_TO_CONNECT,
    Column,
    Rows,
    Session,
    allowed_addresses,
    not_representable,
    system_ca_file,
    tls_context,
)
from spine.connections.resolved_connection import ResolvedConnection
from spine.egress.fetch_failure import FetchFailure
from spine.schemas import ErrorCategory

# libpq ignores a file that does not exist.
_NO_FILE = "/dev/null/none"
_TYPES: dict[int, pa.DataType] = {
    16: pa.bool_(),
    17: pa.binary(),
    20: pa.int64(),
    21: pa.int16(),
    23: pa.int32(),
    26: pa.int64(),
    700: pa.float32(),
    701: pa.float64(),
    1082: pa.date32(),
    1083: pa.time64("us"),
    1114: pa.timestamp("us"),
    1184: pa.timestamp("us", "UTC"),
}
_NUMERIC = 1700
# The most digits of a decimal that all readers of Arrow and Parquet have.
_MOST_DIGITS = 38
# The shortest timeout that libpq supports for one address.
_LEAST_SECONDS = 2
# Error categories by SQLSTATE, or by its class.
_CATEGORIES = {
    "28": ErrorCategory.AUTH,
    "42501": ErrorCategory.AUTH,
    "42601": ErrorCategory.CONFIG,
    "0A000": ErrorCategory.CONFIG,
    "25": ErrorCategory.CONFIG,
    "08": ErrorCategory.NETWORK,
    "53": ErrorCategory.NETWORK,
    "57": ErrorCategory.NETWORK,
    "58": ErrorCategory.NETWORK,
}
# What a role may do beyond reading tables, by its attribute or by a role that it is a member of.
_RIGHTS = {
    "superuser": "is a superuser",
    "pg_read_server_files": "may read files of the server",
    "pg_write_server_files": "may write files of the server",
    "pg_execute_server_program": "may run programs on the server",
    "replication": "may copy the whole server by replication",
}
_READ_FILES = ("pg_read_file", "pg_read_binary_file", "lo_import")
# Errors of psycopg itself about a query or a value; its others are about the connection.
_OF_THE_CLIENT = (psycopg.DataError, psycopg.NotSupportedError, psycopg.ProgrammingError)
_REFUSED_LOGIN = ("authentication failed", "no pg_hba.conf entry", "no password supplied", "does not exist")
_TLS = ("SSL", "certificate", "TLS")
# What libpq says, which may mention SSL, too.
_CLOSED = ("server closed the connection unexpectedly", "unexpected eof while reading", "SSL SYSCALL error")
_NOT_POSTGRESQL = ("expected authentication request from server",)


class _Driver:
    def connect(self, target: ResolvedConnection, seconds: float) -> Session:
        seconds_to_connect = min(seconds, SECONDS_TO_CONNECT)
        addresses = allowed_addresses(target)[: max(1, int(seconds_to_connect // _LEAST_SECONDS))]
        with tempfile.TemporaryDirectory(prefix="spine-") as folder:
            connection = psycopg.connect(
                host=",".join([target.host] * len(addresses)),
                hostaddr=",".join(addresses),
                port=target.port,
                dbname=target.database,
                user=target.username or "",
                password=target.password or "",
                passfile=_NO_FILE,
                sslmode=target.ssl_mode,
                sslrootcert=_authorities(target, folder),
                sslcert=_NO_FILE,
                sslkey=_NO_FILE,
                gssencmode="disable",
                # The timeout for each address.
                connect_timeout=max(_LEAST_SECONDS, int(seconds_to_connect / len(addresses))),
                application_name="spine",
                # Independent of the encoding of the database: queries are sent in it, and for SQL_ASCII psycopg would
                # return text as bytes.
                client_encoding="UTF8",
                # Floats in full, also where the role or the database shortens them.
                options="-c default_transaction_read_only=on -c extra_float_digits=3 "
                f"-c statement_timeout={int(min(seconds, 1e6) * 1000)}",
            )
        _set_exact_texts(connection)
        return _Session(connection)

    def translate(self, target: ResolvedConnection, error: Exception) -> FetchFailure | None:
        if not isinstance(error, psycopg.Error):
            return None
        message = target.scrubbed(error.diag.message_primary or str(error)) or type(error).__name__
        category = _category(error, message)
        transient = category is ErrorCategory.NETWORK
        return FetchFailure(category, f"The database {target.name} reported: {message}", transient=transient)


def _set_exact_texts(connection: psycopg.Connection[Any]) -> None:
    """Receive values of all types that have no equal in Arrow as the server writes them, also as elements of arrays."""
    for info in connection.adapters.types:
        if info.oid not in _TYPES and info.oid != _NUMERIC:
            connection.adapters.register_loader(info.oid, TextLoader)


def _authorities(target: ResolvedConnection, folder: str) -> str:
    """The file of the trusted authorities; none with `require`, because libpq verifies whenever it finds one."""
    if target.ssl_mode not in ("verify-ca", "verify-full"):
        return _NO_FILE
    if target.ca is None:
        return system_ca_file()
    tls_context(target)  # Raises a clear error for an invalid certificate, which libpq does not report.
    path = os.path.join(folder, "ca.pem")
    with open(path, "w") as file:
        file.write(target.ca)
    return path


def _category(error: psycopg.Error, message: str) -> ErrorCategory:
    if isinstance(error, _OF_THE_CLIENT) and not error.sqlstate:
        return ErrorCategory.SOURCE
    if error.sqlstate:
        return _CATEGORIES.get(error.sqlstate, _CATEGORIES.get(error.sqlstate[:2], ErrorCategory.SOURCE))
    if any(text in message for text in _REFUSED_LOGIN):
        return ErrorCategory.AUTH
    if any(text in message for text in _CLOSED):
        return ErrorCategory.NETWORK
    if any(text in message for text in (*_TLS, *_NOT_POSTGRESQL)):
        return ErrorCategory.CONFIG
    return ErrorCategory.NETWORK


class _Session:
    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def probe(self) -> str:
        self._connection.execute("SELECT 1").fetchone()
        version = self._connection.info.parameter_status("server_version") or ""
        return f"PostgreSQL {version.partition(' ')[0]}"

    def excess_rights(self) -> list[str]:
        # Rights of a role that it is a member of count, because a session can take them with SET ROLE.
        held = {
            row[0]
            for row in self._connection.execute(
                "SELECT rolname FROM pg_roles WHERE rolname = ANY(%s) AND pg_has_role(oid, 'MEMBER') "
                "UNION SELECT 'superuser' FROM pg_roles WHERE rolsuper AND pg_has_role(oid, 'MEMBER') "
                "UNION SELECT 'superuser' FROM pg_roles WHERE rolname = current_user AND rolsuper "
                "UNION SELECT 'replication' FROM pg_roles WHERE rolname = current_user AND rolreplication",
                [list(_RIGHTS)],
            )
        }
        if "superuser" in held:
            return [_RIGHTS["superuser"]]
        reads = "SELECT bool_or(has_function_privilege(oid, 'EXECUTE')) FROM pg_proc WHERE proname = ANY(%s)"
        may_read = self._connection.execute(reads, [list(_READ_FILES)]).fetchone()
        if may_read is not None and may_read[0]:
            held.add("pg_read_server_files")
        return [text for name, text in _RIGHTS.items() if name in held]

    def select(self, query: str) -> Rows:
        self._connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        style, _, order = (self._connection.info.parameter_status("DateStyle") or "").partition(", ")
        if style != "ISO":
            # The other styles are ambiguous, or have no zone. The order of day and month in queries stays.
            self._connection.execute(f"SET LOCAL datestyle TO ISO, {order}".encode())
        cursor = self._connection.cursor(name=f"spine_{uuid4().hex[:12]}")
        # The extended protocol allows only one statement.
        cursor.execute(query.encode())
        self._know_arrays(cursor)
        return _Rows(cursor)

    def _know_arrays(self, cursor: psycopg.ServerCursor[Any]) -> None:
        """Let the cursor read the arrays of types that the database defines, such as enums."""
        known = cursor.adapters.types
        unknown = [one.type_code for one in cursor.description or () if known.get(one.type_code) is None]
        if not unknown:
            return
        arrays = "SELECT a.oid, a.typelem, e.typdelim FROM pg_type a JOIN pg_type e ON e.oid = a.typelem "
        arrays += "WHERE a.typcategory = 'A' AND a.oid = ANY(%s)"
        for oid, element, delimiter in self._connection.execute(arrays.encode(), [unknown]):
            TypeInfo(f"type {element}", element, oid, delimiter=delimiter).register(cursor)

    def abort(self) -> None:
        with suppress(OSError, psycopg.Error):
            descriptor = os.dup(self._connection.fileno())
            with socket.socket(fileno=descriptor) as connection:
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with suppress(psycopg.Error):
            self._connection.close()


class _Rows:
    def __init__(self, cursor: psycopg.ServerCursor[Any]) -> None:
        self._cursor = cursor
        self.columns: Sequence[Column] = [_column(cursor, at) for at in range(len(cursor.description or ()))]

    def fetch(self, count: int) -> Sequence[Sequence[Any]]:
        try:
            return self._cursor.fetchmany(count)
        except psycopg.DataError as error:
            if error.sqlstate is None:
                self._explain()
            raise

    def _explain(self) -> None:
        """Raise `FetchFailure` for the first value of the rows just received that Python does not have."""
        received = self._cursor.pgresult
        loaders = Transformer(self._cursor)
        for at, column in enumerate(self.columns if received is not None else ()):
            loader = loaders.get_loader(received.ftype(at), Format.TEXT)  # type: ignore[union-attr]
            for row in range(received.ntuples):  # type: ignore[union-attr]
                value = received.get_value(row, at)  # type: ignore[union-attr]
                try:
                    loader.load(value or b"") if value is not None else None
                except psycopg.DataError:
                    raise not_representable(column, bytes(value or b"").decode(errors="replace")) from None


def _column(cursor: psycopg.ServerCursor[Any], at: int) -> Column:
    described = (cursor.description or ())[at]
    if described.type_code != _NUMERIC or cursor.pgresult is None:
        return Column(described.name, _TYPES.get(described.type_code, pa.string()))
    modifier = cursor.pgresult.fmod(at)
    if modifier < 0:
        # A numeric without limits has NaN and infinity, and more digits than a decimal of Arrow.
        return Column(described.name, pa.string())
    # The precision, and the scale as a signed number of 11 bits, after the 4 bytes of a header.
    precision, scale = (modifier - 4) >> 16 & 0xFFFF, (((modifier - 4) & 0x7FF) ^ 0x400) - 0x400
    digits = max(precision, scale) - min(scale, 0)
    if digits > _MOST_DIGITS:
        return Column(described.name, pa.string())
    return Column(described.name, pa.decimal128(digits, max(scale, 0)))


DRIVER = _Driver()
