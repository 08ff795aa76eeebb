"""The databases of `spine up --database`: one for Spine and one for Prefect, on a PostgreSQL server of the operator."""

import os
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import errors, sql
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from spine.up.waiting import UpError

SPINE_URL, PREFECT_URL = "SPINE_DATABASE_URL", "PREFECT_SERVER_DATABASE_CONNECTION_URL"
SPINE, PREFECT = "spine", "prefect"
_OLD_PREFECT_URL = "PREFECT_API_DATABASE_CONNECTION_URL"
_SECONDS_TO_CONNECT = 5
_FORM = "--database takes postgresql://user:password@host:port"
# Prefect's driver takes the others from the PG* variables only, or not at all.
_OPTIONS = {"host", "sslmode"}
# A database to which to connect in order to create others; template1 exists even where somebody has dropped the first.
_MAINTENANCE = ("postgres", "template1")


@dataclass(frozen=True)
class PostgresqlServer:
    """The server that `--database` names, and the databases that this start needs on it."""

    url: URL
    names: Sequence[str]

    @property
    def place(self) -> str:
        """Where the server is, without user and password."""
        host = self.url.host or str(self.url.query.get("host", "localhost"))
        return host if self.url.port is None else f"{host}:{self.url.port}"

    def set_variables(self, environ: MutableMapping[str, str]) -> None:
        """Set the variables that Spine and Prefect read. `PGPASSWORD` goes into them, because flows do not need it."""
        url = self.url
        if url.password is None and (password := environ.pop("PGPASSWORD", None)):
            url = url.set(password=password)
        urls = {SPINE: (SPINE_URL, url), PREFECT: (PREFECT_URL, _for_asyncpg(url))}
        for name in self.names:
            variable, found = urls[name]
            environ[variable] = found.set(database=name).render_as_string(hide_password=False)
        # Prefect makes each connection beyond its pool again, which takes the server and PostgreSQL some 30 ms.
        environ.setdefault("PREFECT_SERVER_DATABASE_SQLALCHEMY_POOL_SIZE", "15")

    def create_missing(self) -> list[str]:
        """Create the databases that are missing, and return their names.

        Raises `UpError` that names the right which the role lacks.
        """
        with self._connect(*_MAINTENANCE) as connection:
            found = connection.execute("SELECT datname FROM pg_database WHERE NOT datistemplate").fetchall()
            missing = [name for name in self.names if (name,) not in found]
            for name in missing:
                self._create(connection, name)
        for name in self.names:
            with self._connect(name) as connection:
                self._check(connection, name)
        return missing

    def _connect(self, *databases: str) -> psycopg.Connection[tuple[str, ...]]:
        """A connection to the first of these databases that lets the role in."""
        reason = ""
        for database in databases:
            url = self.url.set(drivername="postgresql", database=database)
            try:
                return psycopg.connect(
                    url.render_as_string(hide_password=False), autocommit=True, connect_timeout=_SECONDS_TO_CONNECT
                )
            except psycopg.OperationalError as error:
                reason = " ".join(str(error).partition("\n")[0].split())
        raise UpError(f"PostgreSQL at {self.place} (--database) cannot be used: {reason.rstrip('.')}.")

    def _create(self, connection: psycopg.Connection[tuple[str, ...]], name: str) -> None:
        # template0 allows UTF-8 whatever encoding the administrator chose for others.
        statement = sql.SQL("CREATE DATABASE {} ENCODING 'UTF8' TEMPLATE template0").format(sql.Identifier(name))
        try:
            connection.execute(statement)
        except (errors.DuplicateDatabase, errors.UniqueViolation):
            # Another start has created it in the meantime.
            return
        except errors.InsufficientPrivilege:
            role = connection.info.user
            raise UpError(
                f"The role {role!r} may not create the database {name!r} at {self.place}: give it CREATEDB, or create "
                f"{' and '.join(repr(one) for one in self.names)} with {role!r} as owner."
            ) from None
        except psycopg.Error as error:
            raise UpError(f"The database {name!r} could not be created at {self.place}: {_reason(error)}.") from None

    def _check(self, connection: psycopg.Connection[tuple[str, ...]], name: str) -> None:
        role = connection.info.user
        query = "SELECT coalesce(has_schema_privilege(current_schema(), 'CREATE'), false)"
        (may_create,) = connection.execute(query).fetchone() or (False,)
        if not may_create:
            raise UpError(
                f"The role {role!r} may not create tables in the database {name!r} at {self.place}: make it the owner "
                "of the database, or give it CREATE on the schema public."
            )
        if name != PREFECT:
            return
        try:
            connection.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
        except errors.InsufficientPrivilege:
            raise UpError(
                f"The role {role!r} may not create the extension pg_trgm in the database {name!r} at {self.place}: "
                "give it CREATE on the database, or create the extension there as an administrator."
            ) from None
        except psycopg.Error as error:
            raise UpError(
                f"PostgreSQL at {self.place} has no pg_trgm, which Prefect needs: {_reason(error)}."
            ) from None


def postgresql_server(
    given: str, has_prefect: bool, environ: MutableMapping[str, str] = os.environ
) -> PostgresqlServer:
    """What `--database` names; `has_prefect` says whether Prefect's server is started here. Raises `UpError`."""
    try:
        url = make_url(given)
        backend, known = url.get_backend_name(), set(url.query)
    except (ArgumentError, ValueError):
        raise UpError(f"{_FORM}; what was given is not a URL.") from None
    if backend not in ("postgresql", "postgres"):
        raise UpError(f"{_FORM}, not {backend}.")
    if url.database:
        raise UpError(
            f"{_FORM} without a database: spine up creates {SPINE!r} and {PREFECT!r} there. "
            f"To choose other names, set {SPINE_URL} and {PREFECT_URL} instead."
        )
    if unknown := sorted(known - _OPTIONS):
        raise UpError(f"{_FORM} and the options {', '.join(sorted(_OPTIONS))}, not {unknown[0]}.")
    variables = [SPINE_URL, *([PREFECT_URL, _OLD_PREFECT_URL] if has_prefect else [])]
    if chosen := [name for name in variables if environ.get(name)]:
        raise UpError(f"--database and {chosen[0]} both name a database; use one of them.")
    return PostgresqlServer(url, (SPINE, PREFECT) if has_prefect else (SPINE,))


def _for_asyncpg(url: URL) -> URL:
    """The URL for Prefect's driver, which has another name for `sslmode`."""
    query = {"ssl" if name == "sslmode" else name: value for name, value in url.query.items()}
    return url.set(drivername="postgresql+asyncpg", query=query)


def _reason(error: psycopg.Error) -> str:
    return (error.diag.message_primary or type(error).__name__).rstrip(".")
