"""Conversion of columns that have a type to the types of `parser_config.columns`."""

import pyarrow as pa
import pyarrow.compute as pc

from spine.sources.parsers.columns import ARROW_TYPES, convert
from spine.sources.parsers.config import ColumnType
from spine.sources.parsers.parquet_values import unreadable_moments


def cast(column: pa.Array, kind: ColumnType) -> pa.Array | None:
    """The column as a type; None if not all of its values can be converted without changing what they mean.

    Such columns are converted by their text (`text_to_convert`), value by value.
    """
    try:
        if is_text(column.type):
            return convert(column.cast(pa.string()), kind)
        if pa.types.is_null(column.type):
            return pa.nulls(len(column), ARROW_TYPES[kind])
        if kind is ColumnType.STRING:
            return as_text(column)
        found = column.cast(ARROW_TYPES[kind]) if _keeps_its_meaning(column, kind) else None
        # Text with such a date is no value of the type either.
        return None if found is None or unreadable_moments(found) else found
    except pa.ArrowException:
        return None


def is_text(type_: pa.DataType) -> bool:
    """Whether the values are strings, also in a dictionary."""
    plain = type_.value_type if pa.types.is_dictionary(type_) else type_
    return bool(pa.types.is_string(plain) or pa.types.is_large_string(plain) or pa.types.is_string_view(plain))


def as_text(column: pa.Array) -> pa.Array:
    """The values as text.

    Raises `pa.ArrowException` for values without a text: lists, durations, bytes that are not UTF-8.
    """
    if pa.types.is_duration(column.type):
        raise pa.ArrowNotImplementedError("a number without its unit")
    if column.type == pa.uuid():
        return pa.array([None if value is None else str(value) for value in column.to_pylist()], pa.string())
    return column.cast(pa.string())


def text_to_convert(column: pa.Array) -> pa.Array:
    """The values as text, from which each can be converted: times in UTC, and without nanoseconds if they are zero.

    Raises `pa.ArrowException` as `as_text` does.
    """
    type_ = column.type
    if not pa.types.is_timestamp(type_):
        return as_text(column)
    # The text of an offset has no seconds, but some offsets before 1940 have.
    texts = as_text(column if type_.tz is None else column.cast(pa.timestamp(type_.unit, "UTC")))
    return pc.replace_substring_regex(texts, r"(\.[0-9]{6})000", r"\1") if type_.unit == "ns" else texts


def _keeps_its_meaning(column: pa.Array, kind: ColumnType) -> bool:
    """Whether Arrow's cast, which refuses some losses itself, is right: it makes 1970 of 20260105, and true of 2."""
    type_ = column.type
    is_number = pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_)
    rules = {
        ColumnType.INTEGER: is_number or pa.types.is_boolean(type_),
        # Arrow's cast rounds a decimal.
        ColumnType.NUMBER: (is_number and not pa.types.is_decimal(type_)) or pa.types.is_boolean(type_),
        # The text of a float is its shortest exact form; Arrow's cast would round it to the scale.
        ColumnType.DECIMAL: is_number and not pa.types.is_floating(type_),
        ColumnType.TIMESTAMP: pa.types.is_timestamp(type_) or pa.types.is_date(type_),
        ColumnType.DATE: pa.types.is_date(type_) or (pa.types.is_timestamp(type_) and _are_days(column)),
        ColumnType.BOOLEAN: pa.types.is_boolean(type_),
    }
    return bool(rules[kind])


def _are_days(column: pa.Array) -> bool:
    return bool(column.cast(pa.date32()).cast(column.type).equals(column))
