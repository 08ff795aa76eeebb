"""Arrow tables from the batches of one or more files.

The batches are in a file that is mapped into memory, and so is the table, so neither has to fit into the memory of
this process.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from spine.sources.parsers.arrow_types import cast_exactly, joined, without_dictionaries
from spine.sources.parsers.casts import cast, is_text, text_to_convert
from spine.sources.parsers.columns import ARROW_TYPES, convert
from spine.sources.parsers.config import ColumnType
from spine.sources.parsers.inference import inferred_type
from spine.sources.parsers.json_numbers import NUMBERS, typed_numbers
from spine.sources.parsers.parquet_files import DECLARED
from spine.sources.parsers.parse_errors import ParseError, excerpt
from spine.sources.parsers.records import are_numbers, natural_array, text_array

ColumnTypes = Mapping[str, ColumnType]
# Makes the final array of a column from that of a batch.
_Conversion = Callable[[pa.Array], pa.Array]
_MOST_TYPES_SHOWN = 4


def batch_of(records: Sequence[Mapping[str, Any]], types: ColumnTypes, *, as_text: bool) -> pa.RecordBatch:
    """Records as a batch; columns with a configured type, or all if `as_text`, are text and converted later."""
    names = dict.fromkeys(name for record in records for name in record)
    arrays, fields = [], []
    for name in names:
        values = [record.get(name) for record in records]
        is_text = as_text or name in types
        array = text_array(values) if is_text else natural_array(values)
        is_number = not is_text and pa.types.is_string(array.type) and are_numbers(values)
        arrays.append(array)
        fields.append(pa.field(name, array.type, metadata=NUMBERS if is_number else None))
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))


class TableColumns:
    """The columns of the table of all batches; if `inferred`, text gets the type that fits all its values.

    It reads the batches several times, and holds one array at a time. Raises `ParseError` if the declared types of a
    column have no common type.
    """

    def __init__(
        self, batches: Sequence[pa.RecordBatch], names: Iterable[str], types: ColumnTypes, *, inferred: bool
    ) -> None:
        self._batches = typed_numbers(batches)
        columns = {}
        for name in names:
            with self._translated_errors(name):
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
        with self._translated_errors(field.name):
            return self._conversions[field.name](_plain(batch.column(field.name)))

    def _column(self, name: str, type_: ColumnType | None, inferred: bool) -> tuple[pa.DataType, _Conversion]:
        if type_ is not None:
            # A batch without the column is null there, whatever the type is. Rows with invalid values were removed
            # before.
            return ARROW_TYPES[type_], lambda chunk: _configured(chunk, type_)
        common = self._common(name)
        if inferred and is_text(common):
            fitting = inferred_type(lambda: (chunk.cast(pa.string()) for chunk in self._chunks(name)))
            if fitting is not None:
                to_type, conversion = fitting
                return to_type, lambda chunk: conversion(chunk.cast(pa.string()))
        return common, lambda chunk: cast_exactly(chunk, common)

    def _common(self, name: str) -> pa.DataType:
        types = self._types(name)
        common = joined(types)
        if types and all(batch.schema.metadata == DECLARED for batch in self._with(name)):
            if common is None:
                raise self._no_common_type(name)
            return common
        # In text the types of values are unknown; in JSON one field may have several.
        return pa.string() if common is None or pa.types.is_null(common) else common

    def _types(self, name: str) -> list[pa.DataType]:
        return list(dict.fromkeys(without_dictionaries(batch.schema.field(name).type) for batch in self._with(name)))

    def _with(self, name: str) -> Iterator[pa.RecordBatch]:
        return (batch for batch in self._batches if batch.schema.get_field_index(name) >= 0)

    def _chunks(self, name: str) -> Iterator[pa.Array]:
        return (_plain(batch.column(name)) for batch in self._with(name))

    @contextmanager
    def _translated_errors(self, name: str) -> Iterator[None]:
        try:
            yield
        except MemoryError:
            raise
        except pa.ArrowException:
            raise self._no_common_type(name) from None

    def _no_common_type(self, name: str) -> ParseError:
        types = " and ".join(map(str, self._types(name)[:_MOST_TYPES_SHOWN]))
        return ParseError(f"the values of the column '{excerpt(name)}' have no common type without loss: {types}")


def _configured(chunk: pa.Array, kind: ColumnType) -> pa.Array:
    converted = cast(chunk, kind)
    return converted if converted is not None else convert(text_to_convert(chunk), kind)


def _plain(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
