"""Arrow tables from the batches of one or more files.

The batches are in a file that is mapped into memory, and so is the table, so neither has to fit into the memory of
this process.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from spine.sources.parsers.columns import ARROW_TYPES, convert, inferred_type
from spine.sources.parsers.config import ColumnType
from spine.sources.parsers.parquet_files import cast
from spine.sources.parsers.parse_errors import ParseError, excerpt
from spine.sources.parsers.records import natural_array, text_array

ColumnTypes = Mapping[str, ColumnType]
# Makes the final array of a column from that of a batch.
_Conversion = Callable[[pa.Array], pa.Array]


def batch_of(records: Sequence[Mapping[str, Any]], types: ColumnTypes, *, as_text: bool) -> pa.RecordBatch:
    """Records as a batch; columns with a configured type, or all if `as_text`, are text and converted later."""
    names = dict.fromkeys(name for record in records for name in record)
    arrays = {}
    for name in names:
        values = [record.get(name) for record in records]
        arrays[name] = text_array(values) if as_text or name in types else natural_array(values)
    return pa.RecordBatch.from_pydict(arrays)


class TableColumns:
    """The columns of the table of all batches; if `inferred`, text gets the type that fits all its values.

    It reads the batches several times, and holds one array at a time.
    """

    def __init__(
        self, batches: Sequence[pa.RecordBatch], names: Iterable[str], types: ColumnTypes, *, inferred: bool
    ) -> None:
        self._batches = batches
        columns = {}
        for name in names:
            with _translated_errors(name):
                columns[name] = self._column(name, types.get(name), inferred)
        self._conversions = {name: conversion for name, (_, conversion) in columns.items()}
        self.schema = pa.schema([(name, type_) for name, (type_, _) in columns.items()])

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The batches of the table. Raises `ParseError` if the values of a column have no common type."""
        for batch in self._batches:
            arrays = [self._converted(batch, field) for field in self.schema]
            yield pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _converted(self, batch: pa.RecordBatch, field: pa.Field) -> pa.Array:
        if batch.schema.get_field_index(field.name) < 0:
            return pa.nulls(batch.num_rows, field.type)
        with _translated_errors(field.name):
            return self._conversions[field.name](_plain(batch.column(field.name)))

    def _column(self, name: str, type_: ColumnType | None, inferred: bool) -> tuple[pa.DataType, _Conversion]:
        found = {_plain_type(batch.schema.field(name).type) for batch in self._with(name)}
        common = _common(found)
        if type_ is not None:
            # A batch without the column is null there, whatever the type is.
            values = (chunk.cast(common) for chunk in self._chunks(name))
            if all(cast(chunk, type_) is not None for chunk in values):
                return ARROW_TYPES[type_], lambda chunk: cast(chunk.cast(common), type_)
            # Rows with invalid values were removed before.
            return ARROW_TYPES[type_], lambda chunk: convert(chunk.cast(common).cast(pa.string()), type_)
        if inferred and pa.types.is_string(common):
            kind = inferred_type(lambda: (chunk.cast(common) for chunk in self._chunks(name)))
            if kind is not None:
                return ARROW_TYPES[kind], lambda chunk: convert(chunk.cast(common), kind)
        return common, lambda chunk: chunk.cast(common)

    def _with(self, name: str) -> Iterator[pa.RecordBatch]:
        return (batch for batch in self._batches if batch.schema.get_field_index(name) >= 0)

    def _chunks(self, name: str) -> Iterator[pa.Array]:
        return (_plain(batch.column(name)) for batch in self._with(name))


@contextmanager
def _translated_errors(name: str) -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise
    except pa.ArrowException:
        raise ParseError(f"the values of the column '{excerpt(name)}' have no common type") from None


def _plain(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _plain_type(type_: pa.DataType) -> pa.DataType:
    return type_.value_type if pa.types.is_dictionary(type_) else type_


def _common(types: set[pa.DataType]) -> pa.DataType:
    valued = types - {pa.null()}
    if len(valued) <= 1:
        return next(iter(valued), pa.string())
    if valued == {pa.int64(), pa.float64()}:
        return pa.float64()
    return pa.string()
