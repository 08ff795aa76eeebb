"""Databases with a table of trades."""

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pymysql
import pytest
from spine.connections.resolved_connection import ResolvedConnection
from spine.settings import Settings
from sqlalchemy import make_url

from tests.connections.servers import PASSWORD, USER, postgresql_with_tls
from tests.connections.support import sqlite_target, target
from tests.support.postgres import fresh_database

TRADES = [(1, "AAA", "12.50"), (2, "BBB", "0.25"), (3, None, None)]


@pytest.fixture(scope="session")
def postgresql_with_port(postgresql_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a PostgreSQL that listens on a port, which the embedded one does not."""
    url = make_url(postgresql_url)
    if url.host and not url.host.startswith("/") and "host" not in url.query:
        yield postgresql_url
        return
    with postgresql_with_tls(tmp_path_factory.mktemp("postgresql")) as server:
        yield f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{server.port}/postgres"


@pytest.fixture
def postgresql(postgresql_with_port: str) -> Iterator[ResolvedConnection]:
    """A PostgreSQL with a table of three trades."""
    with fresh_database(postgresql_with_port) as database, psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE trades (id int, venue text, price numeric(10, 2))")
        with connection.cursor() as cursor:
            cursor.executemany("INSERT INTO trades VALUES (%s, %s, %s)", TRADES)
        url = make_url(database)
        yield target(port=url.port, database=url.database, username=url.username, password=url.password)


@pytest.fixture
def mariadb() -> Iterator[ResolvedConnection]:
    """A MariaDB with the same table, if this machine has one."""
    try:
        connection = pymysql.connect(host="127.0.0.1", port=3306, user="root", password="", autocommit=True)
    except pymysql.Error:
        pytest.skip("this machine has no MariaDB")
    with connection, connection.cursor() as cursor:
        name = f"spine_test_{uuid4().hex[:12]}"  # unique, because a killed test leaves its database behind
        cursor.execute(f"CREATE DATABASE {name}")
        try:
            cursor.execute(f"USE {name}")
            cursor.execute("CREATE TABLE trades (id int, venue varchar(10), price decimal(10, 2)) ENGINE=InnoDB")
            cursor.executemany("INSERT INTO trades VALUES (%s, %s, %s)", TRADES)
            yield target(db_type="mysql", port=3306, database=name, username="root")
        finally:
            cursor.execute(f"DROP DATABASE {name}")


@pytest.fixture
def secrets(settings: Settings) -> Iterator[Path]:
    """The folder of secrets that references may name, empty."""
    folder = settings.home / "secrets"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def sqlite(tmp_path: Path) -> ResolvedConnection:
    """A SQLite file with the same table."""
    with sqlite3.connect(tmp_path / "desk.db") as connection:
        connection.execute("CREATE TABLE trades (id int, venue text, price real)")
        connection.executemany("INSERT INTO trades VALUES (?, ?, ?)", TRADES)
    connection.close()
    return sqlite_target(tmp_path / "desk.db")


@pytest.fixture(params=["postgresql", "mariadb", "sqlite"])
def database(request: pytest.FixtureRequest) -> ResolvedConnection:
    """Each type of database."""
    found: ResolvedConnection = request.getfixturevalue(request.param)
    return found
