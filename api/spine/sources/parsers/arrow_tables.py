"""Arrow tables from the batches of one or more files."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from spine.sources.parsers.columns import ARROW_TYPES, convert, infer
from spine.sources.parsers.config import ColumnType
from spine.sources.parsers.parquet_files import cast
from spine.sources.parsers.parse_errors import ParseError, excerpt
from spine.sources.parsers.records import natural_array, text_array

ColumnTypes = Mapping[str, ColumnType]


def batch_of(records: Sequence[Mapping[str, Any]], types: ColumnTypes, *, as_text: bool) -> pa.RecordBatch:
    """Records as a batch; columns with a configured type, or all if `as_text`, are text and converted later."""
    names = dict.fromkeys(name for record in records for name in record)
    arrays = {}
    for name in names:
        values = [record.get(name) for record in records]
        arrays[name] = text_array(values) if as_text or name in types else natural_array(values)
    return pa.RecordBatch.from_pydict(arrays)


def table_of(
    batches: Sequence[pa.RecordBatch], names: Iterable[str], types: ColumnTypes, *, inferred: bool
) -> pa.Table:
    """One table of all batches with these columns; if `inferred`, text gets the type that fits all its values.

    Raises `ParseError` if the values of a column have no common type.
    """
    columns = {}
    for name in names:
        values = _chunks(name, batches)
        if name in types:
            columns[name] = _converted(values, types[name])
        else:
            columns[name] = infer(values) if inferred and pa.types.is_string(values.type) else values
    return pa.table(columns)


def _chunks(name: str, batches: Sequence[pa.RecordBatch]) -> pa.ChunkedArray:
    found = [
        _plain(batch.column(name)) if name in batch.schema.names else pa.nulls(batch.num_rows) for batch in batches
    ]
    type_ = _common({chunk.type for chunk in found})
    try:
        return pa.chunked_array([chunk.cast(type_) for chunk in found], type_)
    except pa.ArrowException:
        raise ParseError(f"the values of the column '{excerpt(name)}' have no common type") from None


def _plain(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _common(types: set[pa.DataType]) -> pa.DataType:
    valued = types - {pa.null()}
    if len(valued) <= 1:
        return next(iter(valued), pa.string())
    if valued == {pa.int64(), pa.float64()}:
        return pa.float64()
    return pa.string()


def _converted(values: pa.ChunkedArray, type_: ColumnType) -> pa.ChunkedArray:
    chunks = [cast(chunk, type_) for chunk in values.chunks]
    if any(chunk is None for chunk in chunks):
        # Rows with invalid values were removed before.
        chunks = [convert(chunk.cast(pa.string()), type_) for chunk in values.chunks]
    return pa.chunked_array(chunks, ARROW_TYPES[type_])
