"""Each type of a column of PostgreSQL, MariaDB and SQLite: the value that goes in is read as it is, or refused."""

import io
import sqlite3
from contextlib import closing
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from math import inf, isnan
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from spine.connections.resolved_connection import ResolvedConnection
from spine.sources.parsers import FileToParse, ParserConfig, ParserType

from tests.connections.support import failure, owner_of, read, sqlite_target
from tests.sources.parsers.support import read_table

WIDE = 2**53 + 1
LONG = "12345678901234567890123456789012345.123456789012345678901234567890"


def read_as_a_flow(source: ResolvedConnection, query: str, folder: Path) -> pa.Table:
    """The table that a flow reads: through the file in the cache, and not only that of the query."""
    content = folder / "query.parquet"
    content.write_bytes(read(source, query))
    found = [read_table([FileToParse(content, content.name, ParserType.PARQUET, ParserConfig())]) for _ in range(2)]
    # As text, in which NaN equals itself.
    assert str(found[0].to_pydict()) == str(found[1].to_pydict())
    return found[0]


# The type, the literal, and the value and type in Arrow.
Row = tuple[str, str, Any, pa.DataType]
POSTGRESQL: list[Row] = [
    ("smallint", "-32768", -32768, pa.int16()),
    ("integer", "2147483647", 2147483647, pa.int32()),
    ("bigint", str(WIDE), WIDE, pa.int64()),
    ("oid", "4294967295", 4294967295, pa.int64()),
    ("numeric(38,10)", "1234567890123456789012345678.0123456789", ..., pa.decimal128(38, 10)),
    ("numeric(3,-2)", "12345", Decimal(12300), pa.decimal128(5, 0)),
    ("numeric(2,5)", "0.00012", Decimal("0.00012"), pa.decimal128(5, 5)),
    ("numeric(65,30)", LONG, LONG, pa.string()),
    ("numeric", LONG, LONG, pa.string()),
    ("numeric", "NaN", "NaN", pa.string()),
    ("numeric", "-Infinity", "-Infinity", pa.string()),
    ("money", "12.34", "$12.34", pa.string()),
    ("real", "16777215", 16777215.0, pa.float32()),
    ("real", "Infinity", inf, pa.float32()),
    ("double precision", "0.1", 0.1, pa.float64()),
    ("double precision", "NaN", "nan", pa.float64()),
    ("text", "2026-01-05", "2026-01-05", pa.string()),
    ("text", "007", "007", pa.string()),
    ("char(4)", "ab", "ab  ", pa.string()),
    ("varchar(9)", "ü", "ü", pa.string()),
    ("bytea", r"\xff00", b"\xff\0", pa.binary()),
    ("date", "0001-01-01", date(1, 1, 1), pa.date32()),
    ("time", "23:59:59.999999", time(23, 59, 59, 999999), pa.time64("us")),
    ("timetz", "10:00:00+05:30", "10:00:00+05:30", pa.string()),
    ("timestamp", "9999-12-31 23:59:59.999999", datetime(9999, 12, 31, 23, 59, 59, 999999), pa.timestamp("us")),
    ("timestamptz", "2026-10-25 02:30+02", datetime(2026, 10, 25, 0, 30, tzinfo=UTC), pa.timestamp("us", "UTC")),
    ("timestamptz", "2026-10-25 02:30+01", datetime(2026, 10, 25, 1, 30, tzinfo=UTC), pa.timestamp("us", "UTC")),
    ("interval", "1 year 2 mons 3 days 04:05:06.789", "1 year 2 mons 3 days 04:05:06.789", pa.string()),
    ("boolean", "true", True, pa.bool_()),
    ("uuid", "5f0e4f2e-9a3f-4a5f-8f0d-8a115f0e4f2e", ..., pa.string()),
    ("json", '{"a": 12345678901234567890.10}', ..., pa.string()),
    ("jsonb", '{"a": 12345678901234567890.10}', ..., pa.string()),
    ("integer[]", "{{1,2},{3,NULL}}", "[[1, 2], [3, null]]", pa.string()),
    ("bigint[]", f"{{{WIDE}}}", f"[{WIDE}]", pa.string()),
    ("numeric[]", "{1.10,NULL,NaN}", '["1.10", null, "NaN"]', pa.string()),
    ("float8[]", "{0.1,NaN,-Infinity}", '[0.1, "NaN", "-Infinity"]', pa.string()),
    ("text[]", '{"a,b",NULL,"NULL","ü"}', '["a,b", null, "NULL", "ü"]', pa.string()),
    ("bytea[]", r'{"\\xff00"}', '["ff00"]', pa.string()),
    ("interval[]", "{1 mon,2 days}", '["1 mon", "2 days"]', pa.string()),
    ("date[]", "{2026-01-05}", '["2026-01-05"]', pa.string()),
    ("mood", "b", "b", pa.string()),
    ("mood[]", "{a,b}", '["a", "b"]', pa.string()),
    ("pair", '(1,"x,y")', '(1,"x,y")', pa.string()),
    ("positive", "5", 5, pa.int32()),
    ("price", "1.5", Decimal("1.50"), pa.decimal128(10, 2)),
    ("int4range", "[1,10)", "[1,10)", pa.string()),
    ("int4multirange", "{[1,2),[5,6)}", "{[1,2),[5,6)}", pa.string()),
    ("inet", "10.0.0.1/8", "10.0.0.1/8", pa.string()),
    ("cidr", "10.0.0.0/8", "10.0.0.0/8", pa.string()),
    ("macaddr", "08:00:2b:01:02:03", ..., pa.string()),
    ("bit(3)", "101", "101", pa.string()),
    ("xml", "<a/>", "<a/>", pa.string()),
    ("tsvector", "a cat", "'a' 'cat'", pa.string()),
    ("point", "(1,2)", "(1,2)", pa.string()),
    ("box[]", "{(1,1,0,0);(2,2,1,1)}", '["(1,1),(0,0)", "(2,2),(1,1)"]', pa.string()),
    ("text", "", "", pa.string()),
]
POSTGRESQL_TYPES = [
    "CREATE TYPE mood AS ENUM ('a', 'b')",
    "CREATE TYPE pair AS (n int, t text)",
    "CREATE DOMAIN positive AS int",
    "CREATE DOMAIN price AS numeric(10, 2)",
]
MARIADB: list[Row] = [
    ("TINYINT(1)", "2", 2, pa.int16()),
    ("TINYINT UNSIGNED", "255", 255, pa.int16()),
    ("SMALLINT UNSIGNED", "65535", 65535, pa.int32()),
    ("MEDIUMINT", "-8388608", -8388608, pa.int32()),
    ("MEDIUMINT UNSIGNED", "16777215", 16777215, pa.int32()),
    ("INT UNSIGNED ZEROFILL", "42", 42, pa.int64()),
    ("BIGINT", "-9223372036854775808", -(2**63), pa.int64()),
    ("BIGINT UNSIGNED", "18446744073709551615", 2**64 - 1, pa.uint64()),
    ("DECIMAL(38,10)", "-1234567890123456789012345678.0123456789", ..., pa.decimal128(38, 10)),
    ("DECIMAL(10,2) UNSIGNED", "12345678.25", Decimal("12345678.25"), pa.decimal128(10, 2)),
    ("DECIMAL(65,30)", LONG, LONG, pa.string()),
    ("FLOAT", "16777215", 16777215.0, pa.float32()),
    ("FLOAT", "1234567.75", 1234567.75, pa.float32()),
    ("DOUBLE", "0.1", 0.1, pa.float64()),
    ("DOUBLE", "-1.7976931348623157e308", -1.7976931348623157e308, pa.float64()),
    ("BIT(12)", "b'101010101010'", b"\n\xaa", pa.binary()),
    ("YEAR", "2155", 2155, pa.int16()),
    ("DATE", "'9999-12-31'", date(9999, 12, 31), pa.date32()),
    ("TIME(6)", "'-838:59:59.999999'", -timedelta(hours=838, minutes=59, seconds=59.999999), pa.duration("us")),
    ("TIME", "'00:00:00'", timedelta(0), pa.duration("us")),
    ("DATETIME(6)", "'2026-01-05 10:00:00.123456'", datetime(2026, 1, 5, 10, 0, 0, 123456), pa.timestamp("us")),
    ("DATETIME", "'2026-01-05'", datetime(2026, 1, 5), pa.timestamp("us")),
    ("TIMESTAMP NULL", "'2026-01-05 10:00:00'", datetime(2026, 1, 5, 10), pa.timestamp("us")),
    ("ENUM('a','ü')", "'ü'", "ü", pa.string()),
    ("SET('x','y')", "'x,y'", "x,y", pa.string()),
    ("JSON", """'{"a": 12345678901234567890.10}'""", '{"a": 12345678901234567890.10}', pa.string()),
    ("BLOB", "x'ff00'", b"\xff\0", pa.binary()),
    ("BINARY(3)", "x'61'", b"a\0\0", pa.binary()),
    ("VARBINARY(3)", "''", b"", pa.binary()),
    ("TEXT CHARACTER SET latin1", "'Zürich'", "Zürich", pa.string()),
    ("VARCHAR(10)", "'2026-01-05'", "2026-01-05", pa.string()),
    ("CHAR(10) CHARACTER SET utf8mb4", "'🏦'", "🏦", pa.string()),
    ("POINT", "POINT(1, 2)", bytes(4) + b"\1\1\0\0\0" + bytes(6) + b"\xf0\x3f" + bytes(7) + b"\x40", pa.binary()),
]


def expected(row: Row, literal: str) -> Any:
    _, _, value, type_ = row
    if value is ...:
        return Decimal(literal) if pa.types.is_decimal(type_) else literal
    return value


def check(found: pa.Table, table: list[Row]) -> None:
    """Compare the columns of a row with values, and one of nulls, with a table."""
    assert found.num_rows == 2
    for field, row in zip(found.schema, table, strict=True):
        assert field.type == row[3], (row, field)
        value, nothing = found[field.name].to_pylist()
        if row[2] == "nan" and isinstance(value, float):
            assert isnan(value), row
        else:
            assert value == expected(row, row[1]), row
        assert nothing is None, row


def test_postgresql(postgresql: ResolvedConnection, tmp_path: Path) -> None:
    columns = ", ".join(f"c{at} {row[0]}" for at, row in enumerate(POSTGRESQL))
    with owner_of(postgresql) as owner:
        for statement in [*POSTGRESQL_TYPES, f"CREATE TABLE many ({columns})", "INSERT INTO many DEFAULT VALUES"]:
            owner.execute(statement)
        marks = ", ".join("%s" for _ in POSTGRESQL)
        owner.execute(f"INSERT INTO many VALUES ({marks})".encode(), [row[1] for row in POSTGRESQL])  # noqa: S608
    query = "SELECT * FROM many ORDER BY c0"
    check(read_as_a_flow(postgresql, query, tmp_path), POSTGRESQL)
    empty = read_as_a_flow(postgresql, "SELECT * FROM many WHERE c0 > 0", tmp_path)
    assert (empty.schema.types, empty.num_rows) == ([row[3] for row in POSTGRESQL], 0)


def test_mariadb(mariadb: ResolvedConnection, tmp_path: Path) -> None:
    columns = ", ".join(f"c{at} {row[0]}" for at, row in enumerate(MARIADB))
    with owner_of(mariadb) as owner:
        owner.execute(f"CREATE TABLE many ({columns}) CHARACTER SET utf8mb4")
        owner.execute(f"INSERT INTO many VALUES ({', '.join(row[1] for row in MARIADB)})")  # noqa: S608
        owner.execute("INSERT INTO many () VALUES ()")
    check(read_as_a_flow(mariadb, "SELECT * FROM many ORDER BY c0 DESC", tmp_path), MARIADB)
    empty = read_as_a_flow(mariadb, "SELECT * FROM many WHERE c0 > 9", tmp_path)
    assert (empty.schema.types, empty.num_rows) == ([row[3] for row in MARIADB], 0)


@pytest.fixture
def dynamic(tmp_path: Path) -> ResolvedConnection:
    """A SQLite file whose columns have values of several types."""
    with closing(sqlite3.connect(tmp_path / "dynamic.db")) as connection:
        connection.execute(
            "CREATE TABLE t (i INTEGER, r REAL, x TEXT, b BLOB, n NUMERIC, d DECIMAL(10, 2), a, day DATE)"
        )
        rows = [
            (2**63 - 1, float(2**53), "007", b"\xff\0", "1.50", 7, 1, "2026-01-05"),
            (-(2**63), 7, "1.10", b"", 2, "0.1", "a", "2026-01-06"),
        ]
        connection.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
        connection.commit()
    return sqlite_target(tmp_path / "dynamic.db")


def test_sqlite(dynamic: ResolvedConnection, tmp_path: Path) -> None:
    found = read_as_a_flow(dynamic, "SELECT * FROM t", tmp_path)
    assert found.to_pydict() == {
        "i": [2**63 - 1, -(2**63)],
        "r": [float(2**53), 7.0],
        "x": ["007", "1.10"],
        "b": [b"\xff\0", b""],
        "n": [1.5, 2.0],
        "d": [7.0, 0.1],
        # One column of several types has the text of each.
        "a": ["1", "a"],
        "day": ["2026-01-05", "2026-01-06"],
    }
    assert found.schema.field("day").type == pa.string()
    empty = read_as_a_flow(dynamic, "SELECT i, r, x, b, a FROM t WHERE i = 0 -- none", tmp_path)
    assert empty.schema.types == [pa.int64(), pa.float64(), pa.string(), pa.binary(), pa.null()]


@pytest.mark.parametrize(("column", "is_kept"), [("i", True), ("a", False)])
def test_a_value_of_sqlite_after_thousands_of_nulls_is_kept_or_refused(
    dynamic: ResolvedConnection, column: str, is_kept: bool
) -> None:
    numbers = "WITH RECURSIVE g(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM g WHERE n < 6000)"
    parts = [f"SELECT {column} AS v FROM t WHERE 0", "SELECT NULL FROM g", f"SELECT {column} FROM t LIMIT 6001"]  # noqa: S608
    query = f"{numbers} {' UNION ALL '.join(parts)}"
    if is_kept:
        assert pq.read_table(io.BytesIO(read(dynamic, query)))["v"][-1].as_py() == 2**63 - 1
    else:
        assert "The column 'v' has values" in failure(dynamic, query).sentence
