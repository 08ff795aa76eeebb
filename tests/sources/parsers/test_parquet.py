import gzip
import io
from datetime import date

import pyarrow as pa
import pyarrow.parquet as pq

from tests.sources.parsers.support import Desk


def parquet(table: pa.Table, **options: object) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, **options)
    return out.getvalue()


TABLE = pa.table({"a": list(range(1_000)), "b": [f"text {number}" for number in range(1_000)]})


def test_rows_of_parquet_are_counted_compressed_or_not(desk: Desk) -> None:
    content = parquet(TABLE, row_group_size=300)
    assert desk.parse(content, "parquet").rows == 1_000
    assert desk.parse(gzip.compress(content), "parquet", "x.parquet.gz").columns == ("a", "b")
    assert list(desk.path.parent.iterdir()) == [desk.path]


def test_a_corrupt_page_is_noticed_although_the_metadata_is_whole(desk: Desk) -> None:
    content = bytearray(parquet(TABLE, compression="none", use_dictionary=False, write_page_checksum=True))
    at = content.index(b"text 500")
    content[at : at + 4] = b"TEXT"
    assert "the Parquet is damaged" in desk.refusal(bytes(content), "parquet")


def test_truncated_parquet_and_other_files_do_not_parse(desk: Desk) -> None:
    assert "it is not a Parquet file" in desk.refusal(b"a,b\n1,2\n", "parquet")
    assert "it is not a Parquet file" in desk.refusal(b"", "parquet")
    assert "the Parquet is damaged" in desk.refusal(parquet(TABLE)[:-100], "parquet")


def test_values_that_expand_beyond_the_limit_are_refused_before_they_are_read(desk: Desk) -> None:
    content = parquet(pa.table({"a": [7] * 3_000_000}))
    assert len(content) < 20_000
    assert "expands to more than 1,000,000 bytes" in desk.refusal(content, "parquet", max_expanded_bytes=1_000_000)


def test_required_columns_and_types_apply_to_parquet(desk: Desk) -> None:
    content = parquet(pa.table({"day": ["2025-12-15", "no day", None], "n": [1.0, 2.0, 2.5]}))
    parsed = desk.parse(content, "parquet", columns={"day": "date", "n": "integer"})
    assert [(row.line, row.reason) for row in parsed.examples] == [
        (2, "column day: 'no day' is not a date"),
        (3, "column n: '2.5' is not a 64-bit integer"),
    ]
    table = desk.table(content, "parquet", columns={"day": "date", "n": "integer"})
    assert table.to_pydict() == {"day": [date(2025, 12, 15)], "n": [1]}
    assert "the required column 'x' is missing" in desk.refusal(content, "parquet", required_columns=["x"])
