"""Tables of what was read of one file or several."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from spine.sources.parsers.columns import ARROW_TYPES, convert, infer
from spine.sources.parsers.config import ColumnType
from spine.sources.parsers.parquet_files import cast
from spine.sources.parsers.parse_errors import BrokenFile
from spine.sources.parsers.records import natural_array, text_array

Kinds = Mapping[str, ColumnType]


def batch_of(records: Sequence[Mapping[str, Any]], kinds: Kinds, *, as_text: bool) -> pa.RecordBatch:
    """Records as a batch; columns of a configured type, or all with `as_text`, as text yet to be converted."""
    names = dict.fromkeys(name for record in records for name in record)
    arrays = {}
    for name in names:
        values = [record.get(name) for record in records]
        arrays[name] = text_array(values) if as_text or name in kinds else natural_array(values)
    return pa.RecordBatch.from_pydict(arrays)


def table_of(batches: Sequence[pa.RecordBatch], names: Iterable[str], kinds: Kinds, *, inferred: bool) -> pa.Table:
    """One table of all batches, with columns of these names; text without a configured type is judged if `inferred`.

    Raises `BrokenFile` when a column's values cannot be of one type.
    """
    columns = {}
    for name in names:
        values = _chunks(name, batches)
        if name in kinds:
            columns[name] = _converted(values, kinds[name])
        else:
            columns[name] = infer(values) if inferred and pa.types.is_string(values.type) else values
    return pa.table(columns)


def _chunks(name: str, batches: Sequence[pa.RecordBatch]) -> pa.ChunkedArray:
    found = [
        _plain(batch.column(name)) if name in batch.schema.names else pa.nulls(batch.num_rows) for batch in batches
    ]
    kind = _common({chunk.type for chunk in found})
    try:
        return pa.chunked_array([chunk.cast(kind) for chunk in found], kind)
    except pa.ArrowException:
        raise BrokenFile("the values of a column are of types that do not go together") from None


def _plain(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _common(kinds: set[pa.DataType]) -> pa.DataType:
    valued = kinds - {pa.null()}
    if len(valued) <= 1:
        return next(iter(valued), pa.string())
    if valued == {pa.int64(), pa.float64()}:
        return pa.float64()
    return pa.string()


def _converted(values: pa.ChunkedArray, kind: ColumnType) -> pa.ChunkedArray:
    chunks = [cast(chunk, kind) for chunk in values.chunks]
    if any(chunk is None for chunk in chunks):
        # The rows that do not fit were left out before.
        chunks = [convert(chunk.cast(pa.string()), kind) for chunk in values.chunks]
    return pa.chunked_array(chunks, ARROW_TYPES[kind])
