"""Queries: typed, streamed, read-only, and the same bytes for the same rows."""

import gc
import io
import pickle
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from importlib import import_module
from math import inf
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from spine.connections.drivers import base, driver_of
from spine.connections.drivers.base import translated_errors
from spine.connections.resolved_connection import ResolvedConnection
from spine.egress.fetch_failure import FetchFailure

from tests.connections.misbehaving import postgresql_that_stalls
from tests.connections.servers import silent_server
from tests.connections.support import failure, read, target
from tests.support.processes import PROJECT
from tests.support.variants import one_by_default

MANY_ROWS = {
    "postgresql": "SELECT g AS id, 'venue ' || g AS venue FROM generate_series(1, {count}) g",
    "mysql": "SELECT seq AS id, CONCAT('venue ', seq) AS venue FROM seq_1_to_{count}",
    "sqlite": "WITH RECURSIVE g(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM g WHERE id < {count}) "
    "SELECT id, 'venue ' || id AS venue FROM g",
}
SLEEP = {
    "postgresql": "SELECT pg_sleep(60)",
    "mysql": "SELECT SLEEP(60)",
    "sqlite": "WITH RECURSIVE g(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM g) SELECT count(*) FROM g",
}


def table_of(content: bytes) -> Any:
    return pq.read_table(io.BytesIO(content))


def test_equal_rows_become_equal_parquet_files(database: ResolvedConnection) -> None:
    query = "SELECT id, venue, price FROM trades ORDER BY id"
    content = read(database, query)
    price = float if database.db_type == "sqlite" else Decimal
    assert table_of(content).to_pylist() == [
        {"id": 1, "venue": "AAA", "price": price("12.50")},
        {"id": 2, "venue": "BBB", "price": price("0.25")},
        {"id": 3, "venue": None, "price": None},
    ]
    assert read(database, query) == content


def test_a_result_without_rows_has_its_columns(database: ResolvedConnection) -> None:
    found = table_of(read(database, "SELECT id, venue FROM trades WHERE id > 99"))
    assert (found.num_rows, found.column_names) == (0, ["id", "venue"])


def test_a_large_result_is_complete(database: ResolvedConnection) -> None:
    found = table_of(read(database, MANY_ROWS[database.db_type].format(count=120_000)))
    assert found.num_rows == 120_000
    assert found.column("venue")[-1].as_py() == "venue 120000"


@pytest.mark.parametrize(
    "query",
    [
        "INSERT INTO trades VALUES (9, 'X', 1)",
        "DELETE FROM trades",
        "DROP TABLE trades",
        "SELECT 1; DELETE FROM trades",
        "SELECT 1; COMMIT; DELETE FROM trades",
    ],
)
def test_a_query_that_writes_is_refused_and_changes_nothing(database: ResolvedConnection, query: str) -> None:
    assert failure(database, query).category in ("CONFIG", "SOURCE")
    assert table_of(read(database, "SELECT id FROM trades")).num_rows == 3


def test_functions_and_ctes_in_postgresql_cannot_write(postgresql: ResolvedConnection) -> None:
    with psycopg.connect(
        host=postgresql.host,
        port=postgresql.port,
        dbname=postgresql.database,
        user=postgresql.username,
        autocommit=True,
    ) as connection:
        connection.execute("CREATE FUNCTION sneak() RETURNS int LANGUAGE sql AS $$ DELETE FROM trades; SELECT 1 $$")
    for query in ("SELECT sneak()", "WITH gone AS (DELETE FROM trades RETURNING id) SELECT * FROM gone"):
        assert failure(postgresql, query).category in ("CONFIG", "SOURCE")
    assert table_of(read(postgresql, "SELECT id FROM trades")).num_rows == 3


def test_a_query_that_a_read_only_transaction_does_not_stop_is_never_sent() -> None:
    failed = failure(target(db_type="mysql"), "SELECT 1 INTO OUTFILE '/srv/x'")
    assert (failed.category, failed.sentence.startswith("The query must not write")) == ("CONFIG", True)


def test_the_time_limit_applies_while_the_server_computes(database: ResolvedConnection) -> None:
    failed = failure(database, SLEEP[database.db_type], seconds=1)
    assert "timeout_seconds" in failed.sentence
    assert failed.transient


@pytest.mark.slow
def test_the_time_limit_includes_connecting() -> None:
    with postgresql_that_stalls(seconds=2) as port:
        began = time.monotonic()
        failed = failure(target(port=port), "SELECT 1", seconds=3)
    assert (failed.category, "timeout_seconds" in failed.sentence) == ("NETWORK", True), failed.sentence
    assert time.monotonic() - began < 4


@pytest.mark.parametrize("db_type", one_by_default(["postgresql", "mysql", "oracle"]))
def test_a_silent_server_fails_even_without_a_time_limit(db_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (base, import_module(f"spine.connections.drivers.{db_type}")):
        monkeypatch.setattr(module, "SECONDS_TO_CONNECT", 2.0)
    with silent_server() as port:
        failed = failure(target(db_type=db_type, port=port, username="u", password="p"), "SELECT 1", seconds=inf)
    assert (failed.category, failed.transient) == ("NETWORK", True)
    assert "within 2 s" in failed.sentence


def test_a_query_may_be_abandoned_at_the_byte_limit(
    database: ResolvedConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", errors.append)
    failed = failure(database, MANY_ROWS[database.db_type].format(count=300_000), max_bytes=50_000)
    assert (failed.category, "max_bytes" in failed.sentence) == ("SOURCE", True)
    del failed
    gc.collect()
    assert errors == []


def test_a_wrong_query_is_explained_in_the_words_of_the_server(database: ResolvedConnection) -> None:
    assert (gone := failure(database, "SELECT * FROM nowhere")).category == "SOURCE"
    assert "nowhere" in gone.sentence
    assert failure(database, "SELECT FROM WHERE").category == "CONFIG"
    assert not gone.transient
    twice = failure(database, "SELECT id, id FROM trades")
    assert (twice.category, "AS" in twice.sentence) == ("CONFIG", True)


def test_a_refused_login_has_category_auth_and_does_not_show_the_password(mariadb: ResolvedConnection) -> None:
    failed = failure(replace(mariadb, username="nobody", password="s3cr3t-pw"), "SELECT 1")
    assert (failed.category, "s3cr3t-pw" in failed.sentence) == ("AUTH", False)


def test_the_types_of_postgresql_are_kept(postgresql: ResolvedConnection) -> None:
    query = """
        SELECT 1::bigint AS big, 2::smallint AS small, true AS yes, 1.5::float8 AS real, 2.50::numeric(6, 2) AS money,
        3.14159::numeric AS exact, '2026-01-05'::date AS day, '2026-01-05 10:00'::timestamp AS local,
        '2026-01-05 10:00+02'::timestamptz AS moment, '{"a": 1}'::jsonb AS json, ARRAY[1, 2] AS list,
        'ab'::bytea AS raw, '5f0e4f2e-9a3f-4a5f-8f0d-8a115f0e4f2e'::uuid AS uuid, NULL AS nothing
    """
    found = table_of(read(postgresql, query))
    (row,) = found.to_pylist()
    assert row == {
        "big": 1,
        "small": 2,
        "yes": True,
        "real": 1.5,
        "money": Decimal("2.50"),
        "exact": "3.14159",
        "day": date(2026, 1, 5),
        "local": datetime(2026, 1, 5, 10),
        "moment": datetime(2026, 1, 5, 8, tzinfo=UTC),
        "json": '{"a": 1}',
        "list": "[1, 2]",
        "raw": b"ab",
        "uuid": "5f0e4f2e-9a3f-4a5f-8f0d-8a115f0e4f2e",
        "nothing": None,
    }
    assert found.schema.field("money").type == pa.decimal128(6, 2)


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1", "UTF8"])
def test_text_works_in_any_database_encoding(postgresql: ResolvedConnection, encoding: str) -> None:
    name = f"{postgresql.database}_{encoding.lower()}"
    login: dict[str, Any] = {"host": postgresql.host, "port": postgresql.port, "user": postgresql.username}
    with psycopg.connect(**login, dbname=postgresql.database, autocommit=True) as owner:
        making = f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
        owner.execute(making.encode())
        try:
            with psycopg.connect(**login, dbname=name, client_encoding="UTF8", autocommit=True) as inside:
                inside.execute("CREATE TABLE cities (city text, börse text)")
                inside.execute("INSERT INTO cities VALUES ('Zürich', 'SIX')")
            kept = replace(postgresql, database=name)
            found = table_of(read(kept, "SELECT city, börse FROM cities WHERE city ~ 'ü'"))
            assert found.to_pylist() == [{"city": "Zürich", "börse": "SIX"}]
            if encoding == "SQL_ASCII":
                failed = failure(kept, "SELECT convert_from('\\xff', 'SQL_ASCII') AS text")
                assert (failed.category, "UTF8" in failed.sentence) == ("SOURCE", True), failed.sentence
        finally:
            owner.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def test_invalid_utf8_from_a_server_is_reported() -> None:
    with pytest.raises(FetchFailure, match="not valid UTF-8"), translated_errors(driver_of("postgresql"), target()):
        b"\xff".decode()


def test_a_column_that_begins_with_null_takes_the_type_of_later_values(database: ResolvedConnection) -> None:
    found = table_of(read(database, "SELECT price, id FROM trades ORDER BY id DESC"))
    assert found.num_rows == 3


@pytest.mark.parametrize(
    ("early", "late", "found"),
    [
        ("7", "12.75", None),
        ("7", "'seven'", None),
        ("0.5", "12", 12.0),
        ("0.5", "9007199254740993", None),
        ("'a'", "12.75", "12.75"),
        ("x'00'", "'a'", None),
    ],
)
def test_a_late_value_of_another_type_is_kept_exactly_or_refused(
    sqlite: ResolvedConnection, early: str, late: str, found: Any
) -> None:
    rows = MANY_ROWS["sqlite"].format(count=6_001)
    query = f"SELECT CASE WHEN id <= 6000 THEN {early} ELSE {late} END AS number FROM ({rows})"  # noqa: S608
    if found is not None:
        assert table_of(read(sqlite, query)).column("number")[-1].as_py() == found
        return
    failed = failure(sqlite, query)
    assert (failed.category, "'number'" in failed.sentence) == ("SOURCE", True), failed.sentence


MEMORY = """
import pickle, resource, sys, time
from spine.connections.drivers import driver_of
from spine.egress.limits import Limits
from spine.sources.readers.database import open_query_reader
import pyarrow.parquet
target = pickle.loads(bytes.fromhex(sys.argv[1]))
driver_of(target.db_type)
reader = open_query_reader(target, sys.argv[2], Limits(None, time.monotonic() + 120, 120))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for item in reader.items({}, False):
    size = sum(len(part) for part in item.chunks)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(size, (after - before) // 1024)
"""
# 400 MB as text, in rows of 2 kB and of 1 MB.
LARGE = {
    "postgresql": "SELECT g AS id, repeat(md5(g::text), {times}) AS text FROM generate_series(1, {count}) g",
    "mysql": "SELECT seq AS id, repeat(md5(seq), {times}) AS text FROM seq_1_to_{count}",
    "sqlite": "WITH RECURSIVE g(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM g WHERE id < {count}) "
    "SELECT id, printf('%.*c', 32 * {times}, 'x') || id AS text FROM g",
}


@pytest.mark.slow
@pytest.mark.parametrize(("times", "count"), [(60, 200_000), (32_768, 400)])
def test_memory_does_not_grow_with_the_result(database: ResolvedConnection, times: int, count: int) -> None:
    query = LARGE[database.db_type].format(times=times, count=count)
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, pickle.dumps(database).hex(), query],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    size, megabytes = map(int, done.stdout.split())
    assert size > 5_000
    assert megabytes < 150, megabytes
