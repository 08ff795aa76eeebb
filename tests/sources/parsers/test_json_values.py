"""What a flow reads of each value in JSON, beside what Python's own decoder reads without floats."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from spine.sources.parsers import FileToParse, ParserConfig, ParserType

from tests.sources.parsers.support import Desk, read_table

DECIMAL = pa.decimal128(38, 10)

# The values of a column as they are in the file, its type in the table, and the values there; None: as Python has them.
NATURAL: list[tuple[str, pa.DataType, list[Any] | None]] = [
    ("1, -5, null", pa.int64(), None),
    ("-0", pa.int64(), None),
    ("9007199254740993, 9223372036854775807, -9223372036854775808", pa.int64(), None),
    ("9223372036854775808, 1", pa.decimal128(38, 0), None),
    ("12345678901234567891, 12345678901234567892", pa.decimal128(38, 0), None),
    ("1" + "0" * 38, pa.string(), ["1" + "0" * 38]),
    ("0.1, 1.005, -0.0, 5e-324, 1.7976931348623157e308", pa.float64(), None),
    ("1, 1.5", pa.float64(), None),
    ("9007199254740993, 1.5", pa.decimal128(38, 1), None),
    ("1.5, 9007199254740993", pa.decimal128(38, 1), None),
    ("12345678901234567.89, 0.1, 1e-7", pa.decimal128(38, 7), None),
    ("1e400, 1.50", pa.string(), ["1e400", "1.50"]),
    ("1e99999999999999999999, 1", pa.string(), ["1e99999999999999999999", "1"]),
    ("true, false, null", pa.bool_(), None),
    ("true, 1", pa.string(), ["true", "1"]),
    ('1.50, "x", 12345678901234567891', pa.string(), ["1.50", "x", "12345678901234567891"]),
    ('"1", "2"', pa.string(), None),
    ('"2026-11-27", "NaN"', pa.string(), None),
    ('"", " x ", "\\u00e4\\ud83d\\ude00\\u0000"', pa.string(), None),
    ("null", pa.string(), None),
    ('[1.10, {"b": 12345678901234567891}, "\\ud800"]', pa.string(), ['[1.10, {"b": 12345678901234567891}, "\\ud800"]']),
    ('{"a": {}}', pa.string(), ['{"a": {}}']),
]

# A configured type, the values in the file, and those in the table; None: refused with the name of the column.
CONFIGURED: list[tuple[str, str, Any]] = [
    ("decimal", "12345678901234567.89", Decimal("12345678901234567.89")),
    ("decimal", "99999999999999999.99", Decimal("99999999999999999.99")),
    ("decimal", "1e-5", Decimal("0.00001")),
    ("decimal", '"0.1"', Decimal("0.1")),
    ("decimal", "0.12345678901", None),
    ("decimal", "1e400", None),
    ("decimal", "true", None),
    ("integer", "9223372036854775807", 9223372036854775807),
    ("integer", "9007199254740993", 9007199254740993),
    ("integer", "9223372036854775808", None),
    ("integer", "1.0", None),
    ("integer", "1e3", None),
    ("integer", "true", None),
    ("number", "1.005", 1.005),
    ("boolean", "true", True),
    ("boolean", '"x"', None),
    ("string", '" x"', " x"),
    ("string", "5", None),
    ("date", '"2026-11-27"', "2026-11-27"),
    ("date", '"2026-02-30"', None),
    ("date", "20261127", None),
]


def exactly(text: str) -> Any:
    return json.loads(text, parse_float=Decimal)


@pytest.mark.parametrize("kind", ["json", "jsonl"])
@pytest.mark.parametrize(("values", "type_", "expected"), NATURAL)
def test_a_column_has_the_type_that_has_all_its_values_exactly(
    desk: Desk, kind: str, values: str, type_: pa.DataType, expected: list[Any] | None
) -> None:
    elements = json.loads(f"[{values}]", parse_float=str.encode, parse_int=str.encode)
    written = [f'{{"a": {value}}}' for value in ([values] if len(elements) == 1 else values.split(", "))]
    content = f"[{', '.join(written)}]" if kind == "json" else "\n".join(written)
    parsed = desk.parse(content.encode(), kind)
    assert (parsed.rows, parsed.bad_rows) == (len(written), 0)
    column = desk.table(content.encode(), kind)["a"]
    assert column.type == type_
    found = column.to_pylist()
    if expected is not None:
        assert found == expected
    elif type_ == pa.float64():
        assert [Decimal(repr(value)) for value in found] == exactly(f"[{values}]")
    else:
        assert found == exactly(f"[{values}]")


@pytest.mark.parametrize(("type_", "value", "expected"), CONFIGURED)
def test_a_configured_column_has_each_value_exactly_or_refuses_the_row(
    desk: Desk, type_: str, value: str, expected: Any
) -> None:
    content = f'{{"a": {value}, "n": 1}}\n'.encode() + b'{"n": 2}\n' * 100
    parsed = desk.parse(content, "jsonl", columns={"a": type_})
    table = desk.table(content, "jsonl", columns={"a": type_})
    if expected is None:
        assert [row.line for row in parsed.examples] == [1]
        assert parsed.examples[0].reason.startswith("column a: '")
        assert table.to_pydict() == {"n": [2] * 100, "a": [None] * 100}
    else:
        assert parsed.bad_rows == 0
        (found,) = table["a"].drop_null().to_pylist()
        assert (str(found) if type_ == "date" else found) == expected


def test_a_type_that_only_a_later_part_of_the_file_shows_is_that_of_all_rows(desk: Desk) -> None:
    rows = [*range(6_000), "12345678901234567.5", *["1.25"] * 6_000]
    content = "\n".join(f'{{"a": {row}, "b": {number}}}' for number, row in enumerate(rows)).encode()
    column = desk.table(content, "jsonl")["a"]
    assert column.type == pa.decimal128(38, 2)
    assert column.to_pylist() == [Decimal(row) for row in rows]
    mixed = content + b'\n{"a": "x"}'
    assert desk.table(mixed, "jsonl")["a"].to_pylist() == [*map(str, rows), "x"]


def test_numbers_of_several_files_are_exact_or_refused_with_the_column(tmp_path: Path) -> None:
    def read(**contents: bytes) -> pa.Table:
        for name, content in contents.items():
            (tmp_path / name).write_bytes(content)
        kinds = {name: ParserType(name.partition("_")[0]) for name in contents}
        return read_table([FileToParse(tmp_path / name, name, kinds[name], ParserConfig()) for name in contents])

    pq.write_table(pa.table({"a": [5]}), tmp_path / "x")
    parquet = (tmp_path / "x").read_bytes()
    json_files = {"json_1": b'[{"a": 9007199254740993}]', "json_2": b'[{"a": 1.5}]'}
    assert read(**json_files)["a"].to_pylist() == [Decimal(9007199254740993), Decimal("1.5")]
    assert read(json_1=b'[{"a": 1}]', parquet_1=parquet)["a"].to_pylist() == [1, 5]
    assert read(json_1=b'[{"a": 1.5}]', parquet_1=parquet)["a"].to_pylist() == [1.5, 5]
    assert read(json_1=b'[{"a": 1.50}]', csv_1=b"a\nx\n")["a"].to_pylist() == ["1.50", "x"]


@pytest.mark.parametrize("kind", ["json", "jsonl"])
def test_a_field_that_an_object_has_twice_makes_its_record_invalid(desk: Desk, kind: str) -> None:
    records = ['{"a": 1, "a": 2}', '{"a": {"b": [{"c": 1, "c": 1}]}}', *['{"a": 3}'] * 300]
    content = f"[{','.join(records)}]" if kind == "json" else "\n".join(records)
    parsed = desk.parse(content.encode(), kind)
    assert (parsed.rows, [row.reason for row in parsed.examples]) == (
        300,
        ["has the field 'a' twice in one object", "has the field 'c' twice in one object"],
    )
    assert desk.table(content.encode(), kind)["a"].unique().to_pylist() == [3]


def test_a_document_that_has_its_records_twice_does_not_parse(desk: Desk) -> None:
    twice = b'{"rows": [{"a": 1}], "rows": [{"a": 2}]}'
    assert "it has rows of records_path twice" in desk.refusal(twice, "json", records_path="rows")
    assert "the field 'rows' twice in one object" in desk.refusal(twice, "json")


def test_text_that_is_half_a_character_makes_its_record_invalid(desk: Desk) -> None:
    content = b"\n".join([b'{"a": "\\ud83d"}', b'{"a": {"b": "\\ud83d"}}', *[b'{"a": "\\ud83d\\ude00"}'] * 100])
    parsed = desk.parse(content, "jsonl")
    assert [(row.line, row.reason) for row in parsed.examples] == [(1, "column a: the value is not valid text")]
    assert desk.table(content, "jsonl")["a"].to_pylist() == ['{"b": "\\ud83d"}', *["\U0001f600"] * 100]


def test_null_and_absent_are_null_and_a_configured_column_is_in_every_table(desk: Desk) -> None:
    table = desk.table(b'[{"a": null}, {}, {"a": 1}]', "json", columns={"b": "decimal"})
    assert table.to_pydict() == {"a": [None, None, 1], "b": [None, None, None]}
    empty = desk.table(b"[]", "json", columns={"b": "decimal"})
    assert (empty.num_rows, empty.schema.field("b").type) == (0, DECIMAL)


def test_nested_objects_are_columns_by_their_path_if_they_are_flattened(desk: Desk) -> None:
    content = b'[{"a": {"b": {"c": 12345678901234567.89}, "d": [1.10]}, "e": {}}, {"a": null}]'
    assert desk.table(content, "json", flatten=True).to_pydict() == {
        "a.b.c": [Decimal("12345678901234567.89"), None], "a.d": ["[1.10]", None], "e": ["{}", None], "a": [None, None],
    }  # fmt: skip
    typed = desk.table(content, "json", flatten=True, columns={"a.b.c": "decimal"})
    assert typed["a.b.c"].type == DECIMAL
    twice = b'[{"a": {"b": 1}, "a.b": 2}' + b', {"a": 1}' * 100 + b"]"
    assert desk.parse(twice, "json", flatten=True).examples[0].reason == "has two values for the column a.b"


@pytest.mark.parametrize("kind", ["json", "jsonl"])
def test_a_value_is_nested_as_deeply_as_every_step_can_read_and_no_deeper(desk: Desk, kind: str) -> None:
    def nested(depth: int) -> bytes:
        return b'{"a": ' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"

    assert desk.table(nested(200), kind)["a"].to_pylist() == ["[" * 199 + "]" * 199]
    assert "nested too deeply" in desk.refusal(nested(201), kind)


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "01", "+1", ".5", "1.", "0x1", "'x'", "undefined"])
def test_what_is_not_json_is_refused(desk: Desk, literal: str) -> None:
    assert "it is not well-formed JSON, in record 1" in desk.refusal(f'[{{"a": {literal}}}]'.encode(), "json")
    assert "is not valid JSON" in desk.refusal(f'{{"a": {literal}}}'.encode(), "jsonl")


def test_json_in_every_encoding_of_text_has_the_same_rows(desk: Desk) -> None:
    content = '[{"a": "\xe4\u20ac", "b": 1.005}]'
    for encoded, config in (
        (content.encode(), {}),
        (content.encode("utf-8-sig"), {}),
        (content.encode("utf-16"), {"encoding": "utf-16"}),
        (content.encode("utf-16-be"), {"encoding": "utf-16-be"}),
    ):
        assert desk.table(encoded, "json", **config).to_pydict() == {"a": ["\xe4\u20ac"], "b": [1.005]}
