"""Each type of Parquet: the values that are read are those that were written, as pyarrow itself reads them."""

import io
from collections.abc import Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from spine.egress.fetch_failure import FetchFailure
from spine.schemas import ErrorCategory
from spine.sources.parsers import FileToParse, ParserConfig, ParserType

from tests.sources.parsers.support import Desk, read_table

WIDE = 2**53 + 1
NAIVE = datetime(2026, 1, 5, 10, 0, 0, 123456)
MOMENT = NAIVE.replace(tzinfo=UTC)
ID = UUID("5f0e4f2e-9a3f-4a5f-8f0d-8a115f0e4f2e")
# Each type, and values at its ends.
VALUES: list[tuple[pa.DataType, list[Any]]] = [
    *((getattr(pa, f"int{bits}")(), [-(2 ** (bits - 1)), 0, 2 ** (bits - 1) - 1]) for bits in (8, 16, 32, 64)),
    *((getattr(pa, f"uint{bits}")(), [0, 2**bits - 1]) for bits in (8, 16, 32, 64)),
    (pa.float16(), [1.5, 65504.0, float("inf")]),
    (pa.float32(), [16777215.0, 1234567.75, float("-inf")]),
    (pa.float64(), [0.1, 1.7976931348623157e308, float(2**53)]),
    (pa.bool_(), [True, False]),
    (pa.decimal128(12, 4), [Decimal("-12345678.1234")]),
    (pa.decimal128(38, 38), [Decimal("0." + "1" * 38)]),
    (pa.decimal256(76, 30), [Decimal("9" * 46 + "." + "1" * 30)]),
    (pa.date32(), [date(1, 1, 1), date(9999, 12, 31)]),
    (pa.time32("ms"), [time(23, 59, 59, 999000)]),
    (pa.time64("us"), [time(23, 59, 59, 999999)]),
    (pa.time64("ns"), [1, 86_399_999_999_999]),
    (pa.timestamp("ms"), [datetime(1, 1, 1), datetime(9999, 12, 31)]),
    (pa.timestamp("us"), [NAIVE]),
    (pa.timestamp("ns"), [1, -(2**63) + 1]),
    (pa.timestamp("us", "UTC"), [MOMENT]),
    (pa.timestamp("ns", "America/New_York"), [1_767_607_200_000_000_001]),
    (pa.duration("ms"), [-1]),
    (pa.duration("ns"), [2**62 + 1]),
    (pa.string(), ["", "2026-01-05", "007", "ü"]),
    (pa.large_string(), ["1", "2"]),
    (pa.binary(), [b"", b"\xff\0"]),
    (pa.large_binary(), [b"\xff"]),
    (pa.binary(3), [b"\xff\0a"]),
    (pa.null(), []),
    (pa.uuid(), [ID.bytes]),
    (pa.list_(pa.string()), [["a", None], []]),
    (pa.list_(pa.list_(pa.decimal128(20, 2))), [[[Decimal("123456789012345678.01")], None]]),
    (pa.large_list(pa.int64()), [[WIDE, None]]),
    (pa.list_(pa.int8(), 2), [[1, 2]]),
    (pa.map_(pa.string(), pa.int64()), [[("a", WIDE), ("a", None)]]),
    (pa.struct([("a", pa.int64()), ("b", pa.struct([("c", pa.string())]))]), [{"a": WIDE, "b": {"c": "x"}}]),
]


def parquet(*columns: pa.Array, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(list(columns), [f"c{at}" for at in range(len(columns))]), sink, **options)
    return sink.getvalue()


def arrays() -> list[pa.Array]:
    """A column of each type, with nulls, as long as each other."""
    rows = 1 + max(len(values) for _, values in VALUES)
    return [pa.array(values + [None] * (rows - len(values)), type_) for type_, values in VALUES]


def kind_of(type_: pa.DataType) -> str:
    """The type, in one form for those that have the same values: the names of elements are not part of it."""
    return str(type_).replace("large_", "").replace("item:", "element:").partition(" (")[0]


def test_each_type_is_read_as_it_was_written(desk: Desk) -> None:
    content = parquet(*arrays(), row_group_size=2)
    found = desk.table(content, "parquet")
    for field, (type_, _), written in zip(found.schema, VALUES, arrays(), strict=True):
        assert kind_of(field.type) == kind_of(type_), field
        assert found[field.name].combine_chunks().cast(written.type).equals(written), field
    assert desk.parse(content, "parquet").rows == len(found)


def test_pyarrow_and_polars_read_the_same(desk: Desk) -> None:
    content = parquet(*arrays())
    found = desk.table(content, "parquet")
    own = pq.read_table(io.BytesIO(content))
    for name in found.column_names:
        assert found[name].cast(own[name].type).equals(own[name]), name
    # polars has no decimals of more than 38 digits, and no map with a key twice.
    unknown = (pa.types.is_decimal256, pa.types.is_map)
    names = [field.name for field in found.schema if not any(is_one(field.type) for is_one in unknown)]
    polars = pl.read_parquet(io.BytesIO(content), columns=names)
    assert pl.DataFrame(pl.from_arrow(found.select(names))).equals(polars)


@pytest.mark.parametrize("dictionary", [pa.string(), pa.int64(), pa.decimal128(5, 2)])
def test_the_values_of_a_dictionary_are_read(desk: Desk, dictionary: pa.DataType) -> None:
    values = {pa.string(): "a", pa.int64(): WIDE}.get(dictionary, Decimal("1.25"))
    column = pa.array([values, None], dictionary).dictionary_encode()
    found = desk.table(parquet(column, row_group_size=1), "parquet")
    assert (found["c0"].type, found["c0"].to_pylist()) == (dictionary, [values, None])


def test_timestamps_of_96_bits_are_exact_or_refused(desk: Desk) -> None:
    fine = pa.array([datetime(1900, 1, 1, 0, 0, 0, 1), NAIVE], pa.timestamp("us"))
    content = parquet(fine, pa.array([[one] for one in fine.to_pylist()]), use_deprecated_int96_timestamps=True)
    found = desk.table(content, "parquet")
    assert found["c0"].to_pylist() == fine.to_pylist()
    assert found["c1"].to_pylist() == [[one] for one in fine.to_pylist()]
    # Arrow reads this as a day of 1816.
    late = pa.array([datetime(9999, 12, 31)], pa.timestamp("us"))
    for column in (late, pa.array([[one] for one in late.to_pylist()])):
        assert "the column 'c" in desk.refusal(parquet(column, use_deprecated_int96_timestamps=True), "parquet")


def test_a_file_without_rows_keeps_its_schema(desk: Desk) -> None:
    empty = [column[:0] for column in arrays()]
    found = desk.table(parquet(*empty), "parquet")
    assert [kind_of(field.type) for field in found.schema] == [kind_of(type_) for type_, _ in VALUES]
    assert len(found) == 0


def joined(folder: Path, *columns: pa.Array) -> pa.ChunkedArray:
    files = []
    for number, column in enumerate(columns):
        path = folder / f"{number}.parquet"
        path.write_bytes(parquet(column))
        files.append(FileToParse(path, path.name, ParserType.PARQUET, ParserConfig()))
    return read_table(files)["c0"]


NEW_YORK = pa.timestamp("us", "America/New_York")
JOINED: list[tuple[Sequence[tuple[pa.DataType, Any]], pa.DataType]] = [
    ([(pa.decimal128(10, 2), Decimal("12345678.25")), (pa.decimal128(12, 4), Decimal("1.0625"))], pa.decimal128(12, 4)),
    ([(pa.decimal128(38, 2), Decimal(10) ** 35), (pa.decimal128(4, 4), Decimal("0.0001"))], pa.decimal256(40, 4)),
    ([(pa.int64(), -(2**63)), (pa.decimal128(4, 2), Decimal("1.25"))], pa.decimal128(21, 2)),
    ([(pa.int64(), WIDE), (pa.int32(), 1)], pa.int64()),
    ([(pa.int8(), -1), (pa.uint8(), 255)], pa.int16()),
    ([(pa.int32(), -1), (pa.uint32(), 2**32 - 1)], pa.int64()),
    ([(pa.int64(), -1), (pa.uint64(), 2**64 - 1)], pa.decimal128(20, 0)),
    ([(pa.int64(), 2**53), (pa.float64(), 1.5)], pa.float64()),
    ([(pa.int32(), 16777217), (pa.float32(), 1.5)], pa.float64()),
    ([(pa.float32(), 0.5), (pa.float64(), 0.1)], pa.float64()),
    ([(pa.timestamp("ms"), datetime(9999, 1, 1)), (pa.timestamp("us"), NAIVE)], pa.timestamp("us")),
    ([(NEW_YORK, MOMENT), (pa.timestamp("ms", "UTC"), datetime(2026, 1, 1, tzinfo=UTC))], pa.timestamp("us", "UTC")),
    ([(pa.time32("ms"), time(1)), (pa.time64("us"), time(1, 0, 0, 1))], pa.time64("us")),
    ([(pa.null(), None), (pa.int64(), WIDE)], pa.int64()),
    ([(pa.binary(2), b"ab"), (pa.binary(3), b"abc")], pa.binary()),
    ([(pa.string(), "a"), (pa.large_string(), "b")], pa.large_string()),
    ([(pa.list_(pa.int32()), [1]), (pa.list_(pa.int64()), [WIDE])], pa.list_(pa.int64())),
]


@pytest.mark.parametrize(
    ("parts", "wanted"), JOINED, ids=lambda given: str(given) if isinstance(given, pa.DataType) else ""
)
@pytest.mark.parametrize("backwards", [False, True])
def test_widths_that_drift_from_file_to_file_are_joined_exactly(
    tmp_path: Path, parts: Sequence[tuple[pa.DataType, Any]], wanted: pa.DataType, backwards: bool
) -> None:
    given = list(reversed(parts)) if backwards else list(parts)
    found = joined(tmp_path, *(pa.array([value], type_) for type_, value in given))
    assert kind_of(found.type) == kind_of(wanted)
    assert found.to_pylist() == [value for _, value in given]


def test_fields_of_structs_are_joined_by_name(tmp_path: Path) -> None:
    first = pa.array([{"a": 1}], pa.struct([("a", pa.int32())]))
    second = pa.array([{"b": "x", "a": WIDE}], pa.struct([("b", pa.string()), ("a", pa.int64())]))
    assert joined(tmp_path, first, second).to_pylist() == [{"a": 1, "b": None}, {"a": WIDE, "b": "x"}]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (pa.array([WIDE]), pa.array([1.5])),
        (pa.array([[1]]), pa.array([[1.5]])),
        (pa.array([Decimal("0.1")]), pa.array([0.1])),
        (pa.array(["1"]), pa.array([1])),
        (pa.array([True]), pa.array([1])),
        (pa.array([b"a"]), pa.array(["a"])),
        (pa.array([NAIVE]), pa.array([MOMENT])),
        (pa.array([1], pa.timestamp("ns")), pa.array([datetime(9999, 1, 1)])),
        (pa.array([date(2026, 1, 5)]), pa.array([NAIVE])),
        (pa.array([1], pa.duration("ns")), pa.array([2**62], pa.duration("ms"))),
        (pa.array([1], pa.decimal256(76, 0)), pa.array([Decimal("0.1")], pa.decimal256(76, 1))),
        (pa.array([ID.bytes], pa.uuid()), pa.array(["a"])),
    ],
    ids=lambda given: str(given.type),
)
@pytest.mark.parametrize("backwards", [False, True])
def test_what_cannot_be_joined_exactly_is_refused_with_the_name_of_the_column(
    tmp_path: Path, first: pa.Array, second: pa.Array, backwards: bool
) -> None:
    with pytest.raises(FetchFailure, match="column 'c0' have no common type without loss") as caught:
        joined(tmp_path, *([second, first] if backwards else [first, second]))
    assert caught.value.category is ErrorCategory.PARSE


CONFIGURED = [
    ("date", pa.array([20260105], pa.int32()), "'20260105' is not a date"),
    ("timestamp", pa.array([20260105]), "'20260105' is not a timestamp"),
    ("boolean", pa.array([2]), "'2' is not a boolean"),
    ("date", pa.array([NAIVE]), "is not a date"),
    ("timestamp", pa.array([1], pa.timestamp("ns")), "is not a timestamp"),
    ("decimal", pa.array([1e-12]), "is not a decimal"),
    ("integer", pa.array([1.5]), "'1.5' is not a 64-bit integer"),
    ("number", pa.array([Decimal(WIDE)]), f"'{WIDE}' is not a number that a double holds exactly"),
    ("number", pa.array([Decimal("12345678901234567.89")]), "is not a number that a double holds exactly"),
    ("date", pa.array([2_932_897], pa.date32()), "'10000-01-01' is not a date"),
    ("timestamp", pa.array([253_402_300_800_000], pa.timestamp("ms")), "is not a timestamp"),
    ("string", pa.array([[1]]), "the column 'c0' has values of the type list"),
    ("string", pa.array([b"\xff"]), "the column 'c0' has values of the type"),
    ("string", pa.array([5], pa.duration("us")), "the column 'c0' has values of the type duration"),
]


@pytest.mark.parametrize(("kind", "column", "reason"), CONFIGURED)
def test_a_configured_type_does_not_change_what_a_value_means(
    desk: Desk, kind: str, column: pa.Array, reason: str
) -> None:
    assert reason in desk.refusal(parquet(column), "parquet", columns={"c0": kind})


@pytest.mark.parametrize(
    ("kind", "column", "value"),
    [
        ("decimal", pa.array([0.1]), Decimal("0.1")),
        ("number", pa.array([Decimal("0.10")]), 0.1),
        ("string", pa.array([2_932_897], pa.date32()), "10000-01-01"),
        ("boolean", pa.array([1]), True),
        ("date", pa.array([datetime(2026, 1, 5)]), date(2026, 1, 5)),
        ("timestamp", pa.array([date(2026, 1, 5)]), datetime(2026, 1, 5, tzinfo=UTC)),
        ("string", pa.array([ID.bytes], pa.uuid()), str(ID)),
        ("string", pa.array([Decimal("1.50")]), "1.50"),
        ("date", pa.array(["2026-01-05"]), date(2026, 1, 5)),
        ("integer", pa.array([None], pa.null()), None),
    ],
)
def test_a_configured_type_that_has_the_value_is_used(desk: Desk, kind: str, column: pa.Array, value: Any) -> None:
    assert desk.table(parquet(column), "parquet", columns={"c0": kind})["c0"].to_pylist() == [value]


def test_one_value_that_a_configured_type_does_not_have_makes_no_other_row_invalid(desk: Desk) -> None:
    # The text of a zone has no seconds, which New York's has before 1883.
    early = datetime(1800, 1, 1, tzinfo=UTC)
    moments = pa.array([1, int(early.timestamp()) * 10**9, 1_000], pa.timestamp("ns", "America/New_York"))
    table = desk.table(parquet(moments, pa.array([1, 2, 3])), "parquet", columns={"c0": "timestamp"})
    assert table.to_pylist() == [{"c0": early, "c1": 2}, {"c0": datetime(1970, 1, 1, 0, 0, 0, 1, UTC), "c1": 3}]


def nested(values: pa.Array) -> list[pa.Array]:
    """The same values as a column, in lists and in structs."""
    lists = pa.ListArray.from_arrays(pa.array(range(len(values) + 1), pa.int32()), values)
    return [values, lists, pa.StructArray.from_arrays([values], ["a"])]


BAD_TEXT = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff"]).buffers())
TWICE = pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"])
UNREADABLE = [
    *((column, "text that is not valid UTF-8") for column in nested(BAD_TEXT)),
    *((column, "two fields of the same name") for column in nested(TWICE)),
    *((column, "not between the years 1 and 9999") for column in nested(pa.array([2_932_897], pa.date32()))),
    (pa.array([-719_163], pa.date32()), "not between the years 1 and 9999"),
    (pa.array([253_402_300_800_000], pa.timestamp("ms")), "not between the years 1 and 9999"),
    (pa.array([-62_135_596_800_000_001], pa.timestamp("us", "UTC")), "not between the years 1 and 9999"),
    (pa.array([86_400_000_000]).view(pa.time64("us")), "values that its type does not allow"),
]


@pytest.mark.parametrize(("column", "reason"), UNREADABLE, ids=lambda given: str(getattr(given, "type", given)))
def test_a_column_that_neither_python_nor_polars_can_read_is_refused(desk: Desk, column: pa.Array, reason: str) -> None:
    assert reason in desk.refusal(parquet(column), "parquet")
