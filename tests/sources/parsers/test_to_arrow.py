import gzip
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from spine.sources.parsers import FileToParse, ParserConfig, ParserType

from tests.sources.parsers.support import Desk, read_table


def test_columns_of_text_get_the_type_that_all_their_values_have(desk: Desk) -> None:
    header = b"id,zip,price,flag,day,at,mixed,empty\n"
    content = header + b"1,007,1.5,true,2025-12-15,2025-12-15T10:00:00Z,1,\n2,070,,FALSE,,2025-12-15 11:00,x,\nbad\n"
    table = desk.table(content, "csv")
    assert [str(kind) for kind in table.schema.types] == [
        "int64", "string", "double", "bool", "date32[day]", "timestamp[us, tz=UTC]", "string", "string",
    ]  # fmt: skip
    assert table.to_pydict() == {
        "id": [1, 2],
        "zip": ["007", "070"],
        "price": [1.5, None],
        "flag": [True, False],
        "day": [date(2025, 12, 15), None],
        "at": [datetime(2025, 12, 15, 10, tzinfo=UTC), datetime(2025, 12, 15, 11, tzinfo=UTC)],
        "mixed": ["1", "x"],
        "empty": ["", ""],
    }


def test_configured_types_are_used_and_rows_with_invalid_values_are_left_out(desk: Desk) -> None:
    content = b"id,price,day\n1,1.10,2025-12-15\nx,2,2025-12-15\n007,3,\n"
    table = desk.table(content, "csv", columns={"id": "integer", "price": "decimal", "day": "string"})
    assert table.to_pydict() == {"id": [1, 7], "price": [Decimal("1.1"), Decimal(3)], "day": ["2025-12-15", ""]}


def test_files_of_different_columns_make_one_table(tmp_path: Path) -> None:
    for name, content in (("1.csv", b"a,b\n1,2\n"), ("2.csv", b"b,c\n3,x\n")):
        (tmp_path / name).write_bytes(content)
    files = [FileToParse(tmp_path / name, name, ParserType.CSV, ParserConfig()) for name in ("1.csv", "2.csv")]
    assert read_table(files).to_pydict() == {"a": [1, None], "b": [2, 3], "c": [None, "x"]}


def test_files_of_different_types_and_encodings_make_one_table(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [3], "flag": [True]}), tmp_path / "3.parquet")
    (tmp_path / "1.csv").write_bytes("id,city\n1,Zürich\n".encode("latin-1"))
    (tmp_path / "2.jsonl.gz").write_bytes(gzip.compress('{"id": 2, "city": "Köln"}'.encode()))
    kinds = {"1.csv": ParserType.CSV, "2.jsonl.gz": ParserType.JSONL, "3.parquet": ParserType.PARQUET}
    configs = {"1.csv": ParserConfig(encoding="latin-1")}
    files = [
        FileToParse(tmp_path / name, name, kind, configs.get(name, ParserConfig())) for name, kind in kinds.items()
    ]
    assert read_table(files).to_pydict() == {
        "id": [1, 2, 3],
        "city": ["Zürich", "Köln", None],
        "flag": [None, None, True],
    }


def test_a_table_is_whole_when_a_long_line_made_arrow_start_again(desk: Desk) -> None:
    rows = b"".join(b"%d,x\n" % number for number in range(500_000))
    table = desk.table(b"a,b\n" + rows + b"500000," + b"y" * 4_000_000 + b"\n", "csv")
    assert table["a"].to_pylist() == list(range(500_001))


def test_values_of_json_keep_their_types(desk: Desk) -> None:
    table = desk.table(b'{"a": 1, "b": [1], "c": true, "d": "1"}\n{"a": 1.5, "c": null, "e": 2}', "jsonl")
    assert table.to_pydict() == {
        "a": [1.0, 1.5], "b": ["[1]", None], "c": [True, None], "d": ["1", None], "e": [None, 2],
    }  # fmt: skip


def test_a_file_without_rows_makes_a_table_with_its_columns(desk: Desk) -> None:
    table = desk.table(b"a,b\n", "csv", columns={"a": "date"})
    assert (table.num_rows, table.schema.field("a").type, table.column_names) == (0, pa.date32(), ["a", "b"])
