"""Publication to an object store: the same promises through s3fs, against moto's S3 server."""

from pathlib import Path

import polars as pl
import pytest
import s3fs  # type: ignore[import-untyped]

from flows import publication

PARTITION = "some.dataset/tier=OTC/week_ending=2025-12-15"


@pytest.fixture
def warehouse(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_url)
    s3fs.S3FileSystem.clear_instance_cache()
    return "s3://warehouse/tables"


def make(folder: Path, content: str) -> dict[str, Path]:
    folder.mkdir(exist_ok=True)
    files = {table: folder / f"{content}-{table}.parquet" for table in ("alpha", "beta")}
    for file in files.values():
        pl.DataFrame({"content": [content] * 5}).write_parquet(file)
    return files


def test_a_capture_on_s3_is_published_replaced_and_read(warehouse: str, tmp_path: Path) -> None:
    assert publication.current(warehouse, PARTITION) is None
    publication.publish(warehouse, PARTITION, "A", make(tmp_path / "made", "A"))
    first = publication.publish(warehouse, PARTITION, "A", {})
    assert publication.read_partition(warehouse, PARTITION).manifest == first
    second = publication.publish(warehouse, PARTITION, "B", make(tmp_path / "made", "B"))
    read = publication.read_partition(warehouse, PARTITION)
    assert {value for table in read.tables.values() for value in table["content"]} == {"B"}
    left = s3fs.S3FileSystem().find(f"{warehouse}/{PARTITION}", refresh=True)
    root = f"{warehouse.removeprefix('s3://')}/{PARTITION}"
    files = [f"{second.folder}/alpha.parquet", f"{second.folder}/beta.parquet", "_current.json"]
    assert sorted(left) == sorted(f"{root}/{file}" for file in files)
    assert publication.location(warehouse, PARTITION) == f"s3://{root}"
