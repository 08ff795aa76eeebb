"""Database rows as Arrow record batches."""

import json
from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from math import isfinite
from typing import Any

import pyarrow as pa

from spine.connections.drivers.base import Column
from spine.egress.fetch_failure import FetchFailure
from spine.schemas import ErrorCategory

# The Arrow type for columns whose values are all of these Python types, if the driver reports no type.
_TYPES_OF_VALUES: list[tuple[set[type], pa.DataType]] = [
    ({bool}, pa.bool_()),
    ({int}, pa.int64()),
    ({int, float}, pa.float64()),
    ({bytes}, pa.binary()),
    ({datetime}, pa.timestamp("us")),
    ({date}, pa.date32()),
]
# The Python types that a column stores without loss. Arrow itself would truncate: 1.5 to 1, a datetime to its date.
_VALUES_OF_TYPES: list[tuple[Callable[[pa.DataType], bool], set[type]]] = [
    # As text, bytes would be taken for other text.
    (pa.types.is_string, {str, bool, int, float, Decimal, date, datetime, time, timedelta, list}),
    (pa.types.is_null, set()),
    (pa.types.is_boolean, {bool}),
    (pa.types.is_integer, {int}),
    # Arrow refuses integers that a float cannot represent exactly.
    (pa.types.is_floating, {float, int}),
    (pa.types.is_decimal, {Decimal, int}),
    (pa.types.is_binary, {bytes}),
    (pa.types.is_timestamp, {datetime}),
    (pa.types.is_date, {date}),
    (pa.types.is_time, {time}),
    (pa.types.is_duration, {timedelta}),
]


def schema_of(columns: Sequence[Column], first: Sequence[Sequence[Any]]) -> pa.Schema:
    """The schema of a result; types that the driver does not report are derived from the first rows.

    Raises `FetchFailure` if two columns have the same name.
    """
    names = [column.name for column in columns]
    duplicates = sorted({name for name in names if names.count(name) > 1})
    if duplicates:
        sentence = f"The query returns more than one column {duplicates[0]!r}; rename them with AS."
        raise FetchFailure(ErrorCategory.CONFIG, sentence)
    types = [
        column.type if column.type is not None else _type_of([row[index] for row in first], column)
        for index, column in enumerate(columns)
    ]
    return pa.schema(list(zip(names, types, strict=True)))


def _type_of(values: Sequence[Any], column: Column) -> pa.DataType:
    types = {type(value) for value in values if value is not None}
    if not types:
        # A value of another type that comes later is refused: these rows have been written by then.
        return column.type_without_values
    for known, of_them in _TYPES_OF_VALUES:
        if types <= known:
            return of_them
    return pa.string()


def to_batch(rows: Sequence[Sequence[Any]], schema: pa.Schema) -> pa.RecordBatch:
    """Rows as a batch of this schema. Raises `FetchFailure`, which names the column, for a value of another type."""
    arrays = [_array([row[index] for row in rows], field) for index, field in enumerate(schema)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _array(values: list[Any], field: pa.Field) -> pa.Array:
    _check_types({type(value) for value in values if value is not None}, field)
    if pa.types.is_string(field.type):
        values = [value if value is None or isinstance(value, str) else _as_text(value) for value in values]
    try:
        return pa.array(values, field.type)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, ValueError):
        raise _does_not_fit(field) from None


def _check_types(types: set[type], field: pa.Field) -> None:
    for is_of, stored in _VALUES_OF_TYPES:
        if is_of(field.type) and not types <= stored:
            raise _does_not_fit(field)


def _does_not_fit(field: pa.Field) -> FetchFailure:
    sentence = f"The column {field.name!r} has values that cannot be stored as {field.type}; cast it in the query."
    return FetchFailure(ErrorCategory.SOURCE, sentence)


def _as_text(value: Any) -> str:
    if isinstance(value, Decimal):
        return format(value, "f") if value.is_finite() else str(value)
    if isinstance(value, list):
        return json.dumps(_as_json(value), ensure_ascii=False)
    return str(value)


def _as_json(value: Any) -> Any:
    """An element of an array: what JSON has not exactly is a string, as the text of a column of its own would be."""
    if isinstance(value, list):
        return [_as_json(element) for element in value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and not isfinite(value):
        return json.dumps(value)
    return value if value is None or isinstance(value, bool | int | float | str) else _as_text(value)
