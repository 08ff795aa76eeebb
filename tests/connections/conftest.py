"""Databases with a table of trades."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pymysql
import pytest
from spine.connections.resolved_connection import ResolvedConnection
from sqlalchemy import make_url

from tests.connections.support import sqlite_target, target
from tests.support.postgres import fresh_database

TRADES = [(1, "AAA", "12.50"), (2, "BBB", "0.25"), (3, None, None)]


@pytest.fixture
def postgresql(postgresql_url: str) -> Iterator[ResolvedConnection]:
    """A PostgreSQL with a table of three trades."""
    with fresh_database(postgresql_url) as database, psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE trades (id int, venue text, price numeric(10, 2))")
        with connection.cursor() as cursor:
            cursor.executemany("INSERT INTO trades VALUES (%s, %s, %s)", TRADES)
        url = make_url(database)
        if not url.host or url.host.startswith("/") or "host" in url.query:
            pytest.skip("the embedded PostgreSQL has no port")
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
