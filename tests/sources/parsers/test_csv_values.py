"""What a value of delimited text becomes in the table that a flow reads: the same value, or text, or a refusal."""

import csv
import io
import random
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from spine.sources.parsers import FileToParse, ParserConfig, ParserType

from tests.sources.parsers.support import Desk, read_table

INT, DOUBLE, BOOL, TEXT = pa.int64(), pa.float64(), pa.bool_(), pa.string()
DAY, MOMENT = pa.date32(), pa.timestamp("us", "UTC")


def scaled(scale: int) -> pa.DataType:
    return pa.decimal128(38, scale)


# The values of a column, the type that they get, and what a flow reads; without the last, the same text.
COLUMNS: list[tuple[list[str], pa.DataType, list[Any] | None]] = [
    (["1", "-2", "0"], INT, [1, -2, 0]),
    (["9223372036854775807", "-9223372036854775808"], INT, [2**63 - 1, -(2**63)]),
    (["9007199254740993", "1"], INT, [2**53 + 1, 1]),
    (["9223372036854775808", "1"], scaled(0), [Decimal(2**63), Decimal(1)]),
    (["12345678901234567891", "12345678901234567892"], scaled(0), None),
    (["9" * 38, ""], scaled(0), [Decimal("9" * 38), None]),
    (["9" * 39], TEXT, None),
    (["0.1", "1.005", "-2.50"], DOUBLE, [0.1, 1.005, -2.5]),
    (["12345678901234567.89", "0.1"], scaled(2), [Decimal("12345678901234567.89"), Decimal("0.1")]),
    (["9007199254740993", "0.5"], scaled(1), [Decimal(2**53 + 1), Decimal("0.5")]),
    (["0.1000000000000000000001"], scaled(22), None),
    (["12345678901234567890123456789.0123456789"], TEXT, None),
    # Shortest texts of doubles stay doubles.
    (["0.30000000000000004", "1.7976931348623157e+308", "5e-324"], DOUBLE, [0.1 + 0.2, 1.7976931348623157e308, 5e-324]),
    (["1.5E+3", "2"], DOUBLE, [1500.0, 2.0]),
    ([".5", "5.", "-.25"], DOUBLE, [0.5, 5.0, -0.25]),
    # Beyond the range of a double.
    (["1.0e400"], TEXT, None),
    (["1.0e-400"], TEXT, None),
    (["12345678901234567.89", "1.5e+3"], TEXT, None),
    # What a number would lose.
    (["007", "1"], TEXT, None),
    (["-01"], TEXT, None),
    (["00.5"], TEXT, None),
    (["+5"], TEXT, None),
    (["+15551234567"], TEXT, None),
    (["1e5"], TEXT, None),
    (["92343E102", "594918104"], TEXT, None),
    (["1,000", "2"], TEXT, None),
    (["5%"], TEXT, None),
    (["1 000"], TEXT, None),
    (["1_000"], TEXT, None),
    (["(5)"], TEXT, None),
    (["0x1F"], TEXT, None),
    (["\u0661"], TEXT, None),
    (["$5"], TEXT, None),
    (["NaN", "1.5"], TEXT, None),
    (["inf", "-inf", "1"], TEXT, None),
    (["NULL", "1"], TEXT, None),
    (["NA", "1"], TEXT, None),
    (["-", "1"], TEXT, None),
    ([" 1.5"], TEXT, None),
    (["true", "FALSE", ""], BOOL, [True, False, None]),
    (["true", "0"], TEXT, None),
    (["yes", "no"], TEXT, None),
    (["2024-02-29", "0001-01-01", "9999-12-31"], DAY, [date(2024, 2, 29), date(1, 1, 1), date(9999, 12, 31)]),
    (["2024-02-30"], TEXT, None),
    (["0000-01-01"], TEXT, None),
    (["10000-01-01"], TEXT, None),
    (["-0044-03-15"], TEXT, None),
    (["03/04/2024", "04/03/2024"], TEXT, None),
    (["20240304", "20240305"], INT, [20240304, 20240305]),
    (["27 November 2026"], TEXT, None),
    (["2025-12-15T10:00:00+02:00", "2025-12-15 10:00"], MOMENT,
     [datetime(2025, 12, 15, 8, tzinfo=UTC), datetime(2025, 12, 15, 10, tzinfo=UTC)]),
    (["2025-12-15T10:00:00.123456Z"], MOMENT, [datetime(2025, 12, 15, 10, 0, 0, 123456, UTC)]),
    (["2025-12-15T10:00:00.123456789Z"], TEXT, None),
    (["2025-12-15T24:00:00"], TEXT, None),
    (["2025-12-15T23:59:60Z"], TEXT, None),
    (["0001-01-01T00:00:00+05:00"], TEXT, None),
    (["9999-12-31T23:59:59-05:00"], TEXT, None),
    (["2025-12-15T10:00:00 Europe/Berlin"], TEXT, None),
    (["10:00", "11:30:00"], TEXT, None),
    (["", ""], TEXT, None),
    (["a\0b", "c"], TEXT, None),
    (['say "hi"', "two\nlines", "cr\rlf\r\n"], TEXT, None),
    (["ä\u00a0b", "\U0001f600"], TEXT, None),
]  # fmt: skip


def written(columns: list[str], rows: list[list[str]]) -> bytes:
    out = io.StringIO()
    csv.writer(out, quoting=csv.QUOTE_ALL).writerows([columns, *rows])
    return out.getvalue().encode()


@pytest.mark.parametrize(("values", "kind", "read"), COLUMNS, ids=lambda value: repr(value)[:40])
def test_a_value_is_read_exactly_or_as_its_text(
    desk: Desk, values: list[str], kind: pa.DataType, read: list[Any] | None
) -> None:
    content = written(["id", "v"], [[f"x{at}", value] for at, value in enumerate(values)])
    column = desk.table(content, "csv")["v"]
    assert column.type == kind
    if read is None and pa.types.is_decimal(kind):
        read = [Decimal(value) for value in values]
    assert column.to_pylist() == (values if read is None else read)
    # Polars, which most flows go on with, sees the same.
    assert pl.Series(pl.from_arrow(column)).to_list() == column.to_pylist()


def test_what_becomes_a_number_has_the_value_that_python_reads(desk: Desk) -> None:
    choose = random.Random(14)
    for _ in range(150):
        digits = "".join(choose.choices("0123456789", k=choose.randrange(1, 24)))
        at = choose.randrange(len(digits) + 1)
        texts = [f"{choose.choice(['', '-'])}{digits[:at]}.{digits[at:]}", str(choose.randrange(100))]
        got = desk.table(written(["v"], [[text] for text in texts]), "csv")["v"].to_pylist()
        for text, value in zip(texts, got, strict=True):
            assert value == text or Decimal(repr(value) if isinstance(value, float) else value) == Decimal(text)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("number", "12345678901234567.89"), ("number", "9007199254740993"), ("number", "1e400"), ("number", "1e-400"),
        ("number", "NaN"), ("number", "inf"), ("number", "NULL"), ("number", "1,000"), ("number", "5%"),
        ("integer", "12345678901234567891"), ("integer", "1.0"), ("integer", "1e5"), ("integer", " 1"),
        ("decimal", "0.12345678901"), ("decimal", "1e30"), ("decimal", "5e33"), ("decimal", "1e99"),
        ("decimal", "9" * 29), ("date", "2024-02-30"), ("date", "0000-01-01"), ("date", "03/04/2024"),
        ("timestamp", "0001-01-01T00:00:00+05:00"), ("timestamp", "2025-12-15T10:00:00.123456789Z"),
        ("timestamp", "2025-12-15T24:00"), ("boolean", "yes"),
    ],
)  # fmt: skip
def test_a_value_that_a_configured_type_does_not_hold_exactly_is_refused_with_its_column(
    desk: Desk, kind: str, value: str
) -> None:
    content = written(["id", "px"], [["1", ""], ["2", value]])
    parsed = desk.parse(content, "csv", columns={"px": kind})
    assert (parsed.rows, [row.line for row in parsed.examples]) == (1, [3])
    assert parsed.examples[0].reason.startswith(f"column px: '{value[:30]}")
    assert desk.table(content, "csv", columns={"px": kind}).to_pydict() == {"id": [1], "px": [None]}


@pytest.mark.parametrize(
    ("kind", "value", "read"),
    [
        ("number", "+5", 5.0), ("number", "1e5", 100_000.0), ("number", "0.30000000000000004", 0.1 + 0.2),
        ("decimal", "12345678901234567.89", Decimal("12345678901234567.89")), ("decimal", "1e5", Decimal(100_000)),
        ("decimal", "1.5E-3", Decimal("0.0015")), ("decimal", "0e99", Decimal(0)), ("integer", "007", 7),
        ("decimal", "9" * 28, Decimal("9" * 28)), ("boolean", "1", True), ("string", "007", "007"),
        ("timestamp", "2025-12-15", datetime(2025, 12, 15, tzinfo=UTC)), ("date", "0001-01-01", date(1, 1, 1)),
    ],
)  # fmt: skip
def test_a_value_of_a_configured_type_is_exact(desk: Desk, kind: str, value: str, read: Any) -> None:
    assert desk.table(written(["v"], [[value]]), "csv", columns={"v": kind})["v"].to_pylist() == [read]


@pytest.mark.parametrize(
    ("values", "kind", "read"),
    [
        (("1", "x"), TEXT, ["1", "x"]),
        (("1", "007"), TEXT, ["1", "007"]),
        (("1", "9223372036854775808"), scaled(0), [Decimal(1), Decimal(2**63)]),
        (("0.5", "9007199254740993"), scaled(1), [Decimal("0.5"), Decimal(2**53 + 1)]),
        (("true", "1"), TEXT, ["true", "1"]),
        (("2026-11-27", "27/11/2026"), TEXT, ["2026-11-27", "27/11/2026"]),
        (("", "1"), INT, [None, 1]),
    ],
)
def test_a_type_that_changes_from_file_to_file_holds_the_values_of_both(
    tmp_path: Path, values: tuple[str, str], kind: pa.DataType, read: list[Any]
) -> None:
    files = []
    for at, value in enumerate(values):
        (tmp_path / f"{at}.csv").write_bytes(written(["v"], [[value]]))
        files.append(FileToParse(tmp_path / f"{at}.csv", f"{at}.csv", ParserType.CSV, ParserConfig()))
    column = read_table(files)["v"]
    assert (column.type, column.to_pylist()) == (kind, read)


def test_a_type_that_changes_after_a_million_rows_is_found(desk: Desk) -> None:
    content = b"id,px\n" + b"1,2\n" * 1_000_000 + b"N/A,12345678901234567.89\n"
    table = desk.table(content, "csv")
    assert [table.schema.field(name).type for name in ("id", "px")] == [TEXT, scaled(2)]
    assert table.slice(999_999).to_pydict() == {"id": ["1", "N/A"], "px": [Decimal(2), Decimal("12345678901234567.89")]}
