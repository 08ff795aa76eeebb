"""Parquet: the metadata has the number of rows, and every page is read to verify them."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from spine.sources.parsers.columns import ARROW_TYPES, convert, invalid_values, without_rows
from spine.sources.parsers.compression import CHUNK, File, content_of
from spine.sources.parsers.config import ColumnType, compression_suffix
from spine.sources.parsers.parse_errors import ParseError
from spine.sources.parsers.row_counter import RowCounter

_BATCH = 16_384
# Values of a fixed length are copied out of the dictionary for each row.
_BATCH_BYTES = 16 * 1024 * 1024
# UUIDs and decimals have this length, or a smaller one.
_USUAL_LENGTH = 16
_MAGIC = b"PAR1"


def read_parquet(file: File, counter: RowCounter) -> Iterator[pa.RecordBatch]:
    """The valid rows of a file, counted in `counter`. Raises `ParseError`.

    A compressed file is expanded into a temporary file, because Parquet is read from its end.
    """
    with _seekable(file) as content:
        batches = _batches(content, file.expansion_limit, counter)
        while True:
            file.check()
            try:
                batch = next(batches, None)
            except MemoryError:
                raise
            except (pa.ArrowException, ValueError, OverflowError):
                raise ParseError("the Parquet is damaged or not supported") from None
            except OSError as error:
                # An error with a number is a failure of the disk, not of the content.
                if error.errno is not None:
                    raise
                raise ParseError("the Parquet is damaged or not supported") from None
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


def _batches(file: IO[bytes], limit: int, counter: RowCounter) -> Iterator[pa.RecordBatch]:
    file.seek(0)
    if file.read(len(_MAGIC)) != _MAGIC:
        raise ParseError("it is not a Parquet file")
    metadata = pq.read_metadata(file)
    _check_sizes(metadata, limit)
    names = metadata.schema.to_arrow_schema().names
    if len(set(names)) < len(names):
        raise ParseError("two columns have the same name")
    counter.add_columns(names)
    counter.check_columns()
    # Repeated long values stay dictionary-encoded: expanded, they could be a thousand times the file.
    texts = [
        metadata.schema.column(at).path for at in range(metadata.num_columns) if _is_text(metadata.schema.column(at))
    ]
    file.seek(0)
    whole = pq.ParquetFile(
        file, read_dictionary=texts, buffer_size=CHUNK, pre_buffer=False, page_checksum_verification=True
    )
    seen = 0
    lengths = sum(_fixed_length(metadata.schema.column(at)) for at in range(metadata.num_columns))
    rows = max(1, min(_BATCH, _BATCH_BYTES // max(1, lengths)))
    for batch in whole.iter_batches(batch_size=rows, use_threads=False):
        yield _valid_rows(batch, seen, counter)
        seen += batch.num_rows
    if seen != metadata.num_rows:
        raise ParseError(f"it has {seen:,} rows, but its metadata says {metadata.num_rows:,}")


def _is_text(column: pq.ColumnSchema) -> bool:
    return bool(column.physical_type == "BYTE_ARRAY")


def _fixed_length(column: pq.ColumnSchema) -> int:
    """The bytes of each value; 0 if the values have no fixed length."""
    return column.length if column.physical_type == "FIXED_LEN_BYTE_ARRAY" else 0


def _check_sizes(metadata: pq.FileMetaData, limit: int) -> None:
    lengths = [_fixed_length(metadata.schema.column(at)) for at in range(metadata.num_columns)]
    stored = expanded = 0
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for at, length in enumerate(lengths):
            chunk = row_group.column(at)
            stored += chunk.total_uncompressed_size
            # Every expanded value takes at least one byte, however small a run of equal values is in the file.
            expanded += chunk.num_values * max(1, length // _USUAL_LENGTH)
    if max(stored, expanded) > limit:
        raise ParseError(f"it expands to more than {limit:,} bytes; set max_expanded_bytes to allow more")


def _valid_rows(batch: pa.RecordBatch, seen: int, counter: RowCounter) -> pa.RecordBatch:
    kinds = {name: kind for name, kind in (counter.config.columns or {}).items() if name in batch.schema.names}
    unconverted = {name: batch.column(name) for name, kind in kinds.items() if cast(batch.column(name), kind) is None}
    found = invalid_values({name: _as_text(column) for name, column in unconverted.items()}, kinds)
    for invalid in found:
        counter.add_bad_row(seen + invalid.row + 1, invalid.reason)
    counter.rows += batch.num_rows - len(found)
    return without_rows(batch, found)


def cast(column: pa.Array, kind: ColumnType) -> pa.Array | None:
    """The column as a type; None if Arrow cannot convert it without loss."""
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
