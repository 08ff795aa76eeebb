"""Parquet: the metadata has the number of rows, and every page is read to verify them."""

import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from spine.sources.parsers.arrow_types import cast_exactly, without_dictionaries
from spine.sources.parsers.casts import cast, text_to_convert
from spine.sources.parsers.columns import invalid_values, without_rows
from spine.sources.parsers.compression import CHUNK, File, content_of
from spine.sources.parsers.config import compression_suffix
from spine.sources.parsers.parquet_values import unreadable_moments, unreadable_type, unreadable_values
from spine.sources.parsers.parse_errors import ParseError, excerpt
from spine.sources.parsers.row_counter import RowCounter

_BATCH = 16_384
# Values of a fixed length are copied out of the dictionary for each row.
_BATCH_BYTES = 16 * 1024 * 1024
# UUIDs and decimals have this length, or a smaller one.
_USUAL_LENGTH = 16
_MAGIC = b"PAR1"
# In the metadata of the schema of a batch whose types were declared, and not derived from its values.
DECLARED = {b"spine.types": b"declared"}


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
    for field in metadata.schema.to_arrow_schema():
        _refuse(field.name, unreadable_type(field.type))
    columns = [metadata.schema.column(at) for at in range(metadata.num_columns)]
    # Repeated long values stay dictionary-encoded: expanded, they could be a thousand times the file.
    texts = [column.path for column in columns if _is_text(column) and column.path in names]
    file.seek(0)
    whole = _opened(file, read_dictionary=texts)
    seen = 0
    rows = max(1, min(_BATCH, _BATCH_BYTES // max(1, sum(map(_fixed_length, columns)))))
    old_times = _old_times(file, metadata, rows)
    for batch in whole.iter_batches(batch_size=rows, use_threads=False):
        next(old_times, None)
        declared = _declared(batch)
        _check_values(declared, counter.config.columns or {})
        yield _valid_rows(declared, seen, counter)
        seen += batch.num_rows
    if seen != metadata.num_rows:
        raise ParseError(f"it has {seen:,} rows, but its metadata says {metadata.num_rows:,}")
    if seen == 0:
        yield _declared(pa.RecordBatch.from_pylist([], schema=whole.schema_arrow))


def _opened(file: IO[bytes], **options: Any) -> pq.ParquetFile:
    return pq.ParquetFile(file, buffer_size=CHUNK, pre_buffer=False, page_checksum_verification=True, **options)


def _declared(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with plain types, marked as one whose types are those of the file."""
    types = [without_dictionaries(field.type) for field in batch.schema]
    arrays = [
        column if pa.types.is_dictionary(column.type) else cast_exactly(column, type_)
        for column, type_ in zip(batch.columns, types, strict=True)
    ]
    fields = [pa.field(name, array.type) for name, array in zip(batch.schema.names, arrays, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields, DECLARED))


def _check_values(batch: pa.RecordBatch, configured: Collection[str]) -> None:
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        # A value that the configured type does not have makes its row invalid.
        _refuse(name, unreadable_values(column) or (None if name in configured else unreadable_moments(column)))


def _refuse(name: str, reason: str | None) -> None:
    if reason is not None:
        raise ParseError(f"the column '{excerpt(name)}' {reason}")


def _old_times(file: IO[bytes], metadata: pq.FileMetaData, rows: int) -> Iterator[None]:
    """Check the timestamps of 96 bits, batch by batch: Arrow makes nanoseconds of them, which can overflow."""
    paths = [metadata.schema.column(at).path for at in range(metadata.num_columns) if _is_old_time(metadata, at)]
    if not paths:
        return
    coarse = _opened(file, coerce_int96_timestamp_unit="us")
    for batch in coarse.iter_batches(batch_size=rows, use_threads=False, columns=paths):
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            try:
                column.cast(_in_nanoseconds(column.type))
            except pa.ArrowInvalid:
                sentence = "has timestamps that are not between the years 1678 and 2262, which nanoseconds cannot hold"
                raise ParseError(f"the column '{excerpt(name)}' {sentence}") from None
        yield


def _is_old_time(metadata: pq.FileMetaData, at: int) -> bool:
    return bool(metadata.schema.column(at).physical_type == "INT96")


def _in_nanoseconds(type_: pa.DataType) -> pa.DataType:
    if pa.types.is_list(type_):
        return pa.list_(_in_nanoseconds(type_.value_type))
    if pa.types.is_struct(type_):
        return pa.struct([(field.name, _in_nanoseconds(field.type)) for field in type_.fields])
    if pa.types.is_map(type_):
        return pa.map_(_in_nanoseconds(type_.key_type), _in_nanoseconds(type_.item_type))
    return pa.timestamp("ns", type_.tz) if pa.types.is_timestamp(type_) else type_


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
    texts = {}
    for name, column in unconverted.items():
        try:
            texts[name] = text_to_convert(column)
        except pa.ArrowException:
            sentence = f"has values of the type {column.type}, which cannot be read as {kinds[name].value}"
            raise ParseError(f"the column '{excerpt(name)}' {sentence}") from None
    found = invalid_values(texts, kinds)
    for invalid in found:
        counter.add_bad_row(seen + invalid.row + 1, invalid.reason)
    counter.rows += batch.num_rows - len(found)
    return without_rows(batch, found)
