"""Values that cannot be kept exactly fail a query once, by their column, and settings of a role change none."""

import io
from collections.abc import Mapping
from datetime import UTC, date, datetime

import oracledb
import pyarrow.parquet as pq
import pytest
from spine.connections.drivers import oracle
from spine.connections.resolved_connection import ResolvedConnection
from spine.egress.fetch_failure import FetchFailure

from tests.connections.support import failure, owner_of, read

REFUSED = {
    "postgresql": [
        *("'infinity'::date", "'-infinity'::timestamp", "'infinity'::timestamptz", "'0044-03-15 BC'::date"),
        *("'0044-03-15 BC'::timestamp", "'10000-01-01'::timestamptz", "'24:00:00'::time", "'NaN'::numeric(5,2)"),
        "ARRAY['infinity'::date]",
    ],
    "mysql": [
        *("CAST('0000-00-00' AS DATE)", "CAST('2026-00-10' AS DATE)", "CAST('0000-00-00 00:00:00' AS DATETIME)"),
        "CAST('0000-05-01' AS DATE)",
    ],
    "sqlite": ["CASE WHEN id = 1 THEN 9007199254740993 ELSE 0.5 END", "CASE WHEN id = 1 THEN x'00' ELSE 'a' END"],
}


def test_a_value_that_cannot_be_kept_is_refused_once_with_its_column(database: ResolvedConnection) -> None:
    for value in REFUSED[database.db_type]:
        failed = failure(database, f"SELECT id, {value} AS odd FROM trades")  # noqa: S608
        assert (failed.category, failed.transient) == ("SOURCE", False), failed.sentence
        assert failed.sentence.startswith("The column 'odd' has "), failed.sentence
        assert failed.sentence.endswith("in the query."), failed.sentence


def test_a_late_value_is_refused_with_its_column(postgresql: ResolvedConnection) -> None:
    days = "SELECT id, CASE WHEN id = 7000 THEN 'infinity' ELSE '2026-01-05' END::date AS day FROM ({rows}) r"
    failed = failure(postgresql, days.format(rows="SELECT g AS id FROM generate_series(1, 8000) g"))
    assert failed.sentence == "The column 'day' has the value 'infinity', which cannot be stored; cast it in the query."


def test_text_of_sqlite_that_is_not_utf_8_is_refused_with_its_column(sqlite: ResolvedConnection) -> None:
    failed = failure(sqlite, "SELECT CAST(x'ff' AS TEXT) AS odd FROM trades")
    assert (failed.category, failed.transient, "'odd'" in failed.sentence) == ("SOURCE", False, True), failed.sentence


def test_a_time_of_oracle_does_not_lose_its_zone() -> None:
    with pytest.raises(FetchFailure, match="column 'AT' has times with a zone"):
        oracle._column(("AT", oracledb.DB_TYPE_TIMESTAMP_TZ, None, None, 0, 6, True))


def test_settings_of_the_role_change_no_value(postgresql: ResolvedConnection) -> None:
    role = f"{postgresql.database}_odd"
    settings: Mapping[str, str] = {"datestyle": "German", "timezone": "Europe/Zurich", "bytea_output": "escape"}
    with owner_of(postgresql) as owner:
        owner.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{role}'")
        for name, value in {**settings, "extra_float_digits": "-3"}.items():
            owner.execute(f"ALTER ROLE {role} SET {name} TO '{value}'")
        try:
            odd = ResolvedConnection(**{**vars(postgresql), "username": role, "password": role})
            query = (
                r"SELECT '05.02.2026'::date d, '2026-10-25 01:30+00'::timestamptz t, 1::float8/3 f, '\xff00'::bytea b"
            )
            (row,) = pq.read_table(io.BytesIO(read(odd, query))).to_pylist()
        finally:
            owner.execute(f"DROP ROLE {role}")
    moment = datetime(2026, 10, 25, 1, 30, tzinfo=UTC)
    assert row == {"d": date(2026, 2, 5), "t": moment, "f": 1 / 3, "b": b"\xff\0"}
