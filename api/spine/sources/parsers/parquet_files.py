"""Parquet: its metadata tells the rows, and every page is read to see that they are there."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from spine.sources.parsers.columns import ARROW_TYPES, convert, misfits
from spine.sources.parsers.compression import CHUNK, File, content_of
from spine.sources.parsers.config import ColumnType, compression_suffix
from spine.sources.parsers.parse_errors import BrokenFile
from spine.sources.parsers.row_counter import Tally

_BATCH = 16_384
_MAGIC = b"PAR1"


def read_parquet(file: File, tally: Tally) -> Iterator[pa.RecordBatch]:
    """The good rows of a file, counted in `tally`. Raises `BrokenFile`.

    A compressed one is expanded into a temporary file, because Parquet is read from its end.
    """
    with _seekable(file) as content:
        batches = _batches(content, file.expansion_limit, tally)
        while True:
            file.check()
            try:
                batch = next(batches, None)
            except (pa.ArrowException, ValueError, OverflowError, MemoryError):
                raise BrokenFile("the Parquet is damaged or of a kind that is not read") from None
            except OSError as error:
                # With a number it is the disk that failed, not the content.
                if error.errno is not None:
                    raise
                raise BrokenFile("the Parquet is damaged or of a kind that is not read") from None
            if batch is None:
                return
            yield batch


@contextmanager
def _seekable(file: File) -> Iterator[IO[bytes]]:
    with file.path.open("rb") as stored:
        if stored.read(len(_MAGIC)) == _MAGIC and compression_suffix(file.name) is None:
            yield stored
            return
    with tempfile.TemporaryFile(dir=file.path.parent) as expanded:
        with content_of(file) as content:
            while data := content.read(CHUNK):
                expanded.write(data)
        yield expanded


def _batches(file: IO[bytes], limit: int, tally: Tally) -> Iterator[pa.RecordBatch]:
    file.seek(0)
    if file.read(len(_MAGIC)) != _MAGIC:
        raise BrokenFile("it is no Parquet file")
    metadata = pq.read_metadata(file)
    _check_sizes(metadata, limit)
    names = metadata.schema.to_arrow_schema().names
    if len(set(names)) < len(names):
        raise BrokenFile("two of its columns have the same name")
    tally.meet(names)
    tally.check_columns()
    # Long values that repeat stay in their dictionary: written out, they could be a thousand times the file.
    texts = [
        metadata.schema.column(at).path for at in range(metadata.num_columns) if _is_text(metadata.schema.column(at))
    ]
    file.seek(0)
    whole = pq.ParquetFile(
        file, read_dictionary=texts, buffer_size=CHUNK, pre_buffer=False, page_checksum_verification=True
    )
    seen = 0
    for batch in whole.iter_batches(batch_size=_BATCH, use_threads=False):
        yield _good(batch, seen, tally)
        seen += batch.num_rows
    if seen != metadata.num_rows:
        raise BrokenFile(f"it has {seen:,} rows, its metadata tells {metadata.num_rows:,}")


def _is_text(column: pq.ColumnSchema) -> bool:
    return bool(column.physical_type == "BYTE_ARRAY")


def _check_sizes(metadata: pq.FileMetaData, limit: int) -> None:
    chunks = [
        metadata.row_group(group).column(column)
        for group in range(metadata.num_row_groups)
        for column in range(metadata.num_columns)
    ]
    # A value that is expanded takes a byte at least, however small a run of equal ones is in the file.
    if max(sum(chunk.total_uncompressed_size for chunk in chunks), sum(chunk.num_values for chunk in chunks)) > limit:
        raise BrokenFile(f"it expands to more than {limit:,} bytes; max_expanded_bytes may allow more")


def _good(batch: pa.RecordBatch, seen: int, tally: Tally) -> pa.RecordBatch:
    kinds = {name: kind for name, kind in (tally.config.columns or {}).items() if name in batch.schema.names}
    misfitting = {name: batch.column(name) for name, kind in kinds.items() if cast(batch.column(name), kind) is None}
    found = misfits({name: _as_text(column) for name, column in misfitting.items()}, kinds)
    for misfit in found:
        tally.bad(seen + misfit.row + 1, misfit.reason)
    tally.rows += batch.num_rows - len(found)
    if not found:
        return batch
    bad = pa.array([misfit.row for misfit in found], pa.int64())
    return batch.filter(pc.invert(pc.is_in(pa.array(range(batch.num_rows), pa.int64()), bad)))


def cast(column: pa.Array, kind: ColumnType) -> pa.Array | None:
    """The column as a type, where Arrow can do that without a loss; None where it cannot."""
    try:
        if pa.types.is_string(column.type):
            return convert(column, kind)
        return column.cast(ARROW_TYPES[kind])
    except pa.ArrowException:
        return None


def _as_text(column: pa.Array) -> pa.Array:
    try:
        return column.cast(pa.string())
    except pa.ArrowException:
        return pa.array([None if value is None else str(value) for value in column.to_pylist()], pa.string())
