"""Rows of a database as Arrow has them."""

import json
from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa

from spine.connections.drivers.base import Column
from spine.egress.fetch_failure import FetchFailure
from spine.schemas import ErrorCategory

# The types that values of one Python type have together, where a driver tells none.
_TYPES_OF_VALUES: list[tuple[set[type], pa.DataType]] = [
    ({bool}, pa.bool_()),
    ({int}, pa.int64()),
    ({int, float}, pa.float64()),
    ({bytes}, pa.binary()),
    ({datetime}, pa.timestamp("us")),
    ({date}, pa.date32()),
]
# What columns of a type hold without loss. Arrow itself would cut what is left over: 1.5 to 1 and a moment to its day.
_VALUES_OF_TYPES: list[tuple[Callable[[pa.DataType], bool], set[type]]] = [
    (pa.types.is_boolean, {bool}),
    (pa.types.is_integer, {int}),
    # Of integers only those that a float has exactly, as Arrow sees to.
    (pa.types.is_floating, {float, int}),
    (pa.types.is_decimal, {Decimal, int}),
    (pa.types.is_binary, {bytes}),
    (pa.types.is_timestamp, {datetime}),
    (pa.types.is_date, {date}),
    (pa.types.is_time, {time}),
    (pa.types.is_duration, {timedelta}),
]


def schema_of(columns: Sequence[Column], first: Sequence[Sequence[Any]]) -> pa.Schema:
    """The schema of a result, from its first rows where the driver does not tell.

    Raises `FetchFailure` when two columns have one name.
    """
    names = [column.name for column in columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        sentence = f"The query has more than one column {twice[0]!r}; give each a name of its own with AS."
        raise FetchFailure(ErrorCategory.CONFIG, sentence)
    types = [
        column.type if column.type is not None else _type_of([row[index] for row in first])
        for index, column in enumerate(columns)
    ]
    return pa.schema(list(zip(names, types, strict=True)))


def _type_of(values: Sequence[Any]) -> pa.DataType:
    kinds = {type(value) for value in values if value is not None}
    for known, of_them in _TYPES_OF_VALUES:
        if kinds and kinds <= known:
            return of_them
    return pa.string()


def to_batch(rows: Sequence[Sequence[Any]], schema: pa.Schema) -> pa.RecordBatch:
    """Rows as a batch of this schema. Raises `FetchFailure` naming the column of a value that does not fit."""
    arrays = [_array([row[index] for row in rows], field) for index, field in enumerate(schema)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _array(values: list[Any], field: pa.Field) -> pa.Array:
    if pa.types.is_string(field.type):
        values = [value if value is None or isinstance(value, str) else _as_text(value) for value in values]
    else:
        _check_kinds({type(value) for value in values if value is not None}, field)
    try:
        return pa.array(values, field.type)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, ValueError):
        raise _does_not_fit(field) from None


def _check_kinds(kinds: set[type], field: pa.Field) -> None:
    for is_of, held in _VALUES_OF_TYPES:
        if is_of(field.type) and not kinds <= held:
            raise _does_not_fit(field)


def _does_not_fit(field: pa.Field) -> FetchFailure:
    sentence = f"The column {field.name!r} has values that are no {field.type}; cast it in the query."
    return FetchFailure(ErrorCategory.SOURCE, sentence)


def _as_text(value: Any) -> str:
    if isinstance(value, Decimal):
        return format(value, "f") if value.is_finite() else str(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict | list):
        return json.dumps(value, default=str)
    return str(value)
