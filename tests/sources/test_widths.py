"""Files of one pattern whose columns drift: joined exactly when they are read, or refused when they are fetched."""

import io
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from spine.sources.fetching.content import ContentFile, Format

from tests.sources.support import Desk

WIDE = 2**53 + 1
pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


def parquet(type_: pa.DataType, *values: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"id": pa.array(values, type_), "venue": ["AAA"] * len(values)}), sink)
    return sink.getvalue()


async def read(desk: Desk, name: str, folder: Path) -> pa.Table:
    """What a flow reads."""
    files = []
    for number, (entry, content) in enumerate(zip(await desk.entries(name), await desk.content(name), strict=True)):
        path = folder / f"{number}.parquet"
        path.write_bytes(content)
        files.append(ContentFile(path, entry.name, entry.encoding))
    return Format.of_source(await desk.source(name)).to_arrow(files)


async def test_wider_types_are_joined_in_the_fetch_and_in_the_flow(desk: Desk, tmp_path: Path) -> None:
    desk.file("1.parquet", parquet(pa.decimal128(10, 2), Decimal("1.25")))
    desk.file("2.parquet", parquet(pa.decimal128(12, 4), Decimal("1.0625")))
    name = await desk.register("file", {"path": "*.parquet"})
    assert (await desk.fetch(name)).status == "SUCCESS"
    found = await read(desk, name, tmp_path)
    assert (found.schema.field("id").type, found.schema.field("venue").type) == (pa.decimal128(12, 4), pa.string())
    assert found["id"].to_pylist() == [Decimal("1.25"), Decimal("1.0625")]
    # The same again, from the cache.
    again = await desk.fetch(name)
    assert (again.status, again.content_changed) == ("SUCCESS", False)
    assert (await read(desk, name, tmp_path)).equals(found)


async def test_a_new_file_that_cannot_be_joined_to_unchanged_ones_fails_the_fetch(desk: Desk, tmp_path: Path) -> None:
    desk.file("1.parquet", parquet(pa.int64(), WIDE))
    name = await desk.register("file", {"path": "*.parquet"})
    good = await desk.fetch(name)
    desk.file("2.parquet", parquet(pa.float64(), 1.5))
    for _ in range(2):
        failed = await desk.fetch(name)
        assert (failed.status, failed.error_category) == ("FAILED", "PARSE")
        assert failed.error == (
            "2.parquet: the values of the column 'id' have no common type without loss: int64 and double."
        )
    assert (await desk.source(name)).last_content_hash == good.content_hash
    assert (await read(desk, name, tmp_path))["id"].to_pylist() == [WIDE]

    # Integers that doubles have are no loss.
    desk.file("1.parquet", parquet(pa.int64(), 7))
    assert (await desk.fetch(name)).status == "SUCCESS"
    assert (await read(desk, name, tmp_path))["id"].to_pylist() == [7.0, 1.5]
    assert desk.stray_files() == []


async def test_a_configured_type_of_a_column_is_not_a_matter_of_the_files(desk: Desk, tmp_path: Path) -> None:
    desk.file("1.parquet", parquet(pa.int64(), WIDE))
    desk.file("2.parquet", parquet(pa.string(), "8"))
    name = await desk.register("file", {"path": "*.parquet"}, parser_config={"columns": {"id": "integer"}})
    assert (await desk.fetch(name)).status == "SUCCESS"
    assert (await read(desk, name, tmp_path))["id"].to_pylist() == [WIDE, 8]


async def test_an_empty_file_among_others_takes_their_types(desk: Desk, tmp_path: Path) -> None:
    desk.file("1.parquet", parquet(pa.int64()))
    name = await desk.register("file", {"path": "*.parquet"})
    assert (await desk.fetch(name)).status == "SUCCESS"
    assert (await read(desk, name, tmp_path)).schema.field("id").type == pa.int64()
    desk.file("2.parquet", parquet(pa.float64(), 1.5))
    assert (await desk.fetch(name)).status == "SUCCESS"
    assert (await read(desk, name, tmp_path))["id"].to_pylist() == [1.5]
