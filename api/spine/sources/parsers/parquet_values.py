"""Values that a Parquet file can have, but that neither Python nor polars can read: a column with one is refused."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

# For each second.
_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_SECONDS_OF_A_DAY = 86_400
# From 1970 to the beginnings of the years 1 and 10,000.
_FIRST_DAY, _AFTER_LAST_DAY = -719_162, 2_932_897


def unreadable_type(type_: pa.DataType) -> str | None:
    """What makes a type unreadable; None if nothing does."""
    if pa.types.is_struct(type_):
        fields = [type_.field(at) for at in range(type_.num_fields)]
        names = [field.name for field in fields]
        if len(set(names)) < len(names):
            return "has two fields of the same name"
        return next(filter(None, (unreadable_type(field.type) for field in fields)), None)
    if pa.types.is_map(type_):
        return unreadable_type(type_.key_type) or unreadable_type(type_.item_type)
    return unreadable_type(type_.value_type) if _is_list(type_) else None


def unreadable_values(column: pa.Array) -> str | None:
    """What makes a column unreadable as any type: bytes that are no text, a time of 24 hours; None if nothing does."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid as error:
        return "has text that is not valid UTF-8" if "UTF8" in str(error) else "has values that its type does not allow"
    return None


def unreadable_moments(column: pa.Array) -> str | None:
    """Which dates make a column unreadable, unless it becomes text; None if none does."""
    for values in _innermost(column):
        if (limits := _limits(values.type)) is None:
            continue
        found = pc.min_max(values)
        if found["min"].is_valid and not limits[0] <= found["min"].value <= found["max"].value < limits[1]:
            return "has dates that are not between the years 1 and 9999; its type in columns can be string"
    return None


def _innermost(values: pa.Array) -> Iterator[pa.Array]:
    """The values in lists, maps, structs and dictionaries, as far as they are not nested themselves."""
    type_ = values.type
    if pa.types.is_struct(type_):
        for child in values.flatten():
            yield from _innermost(child)
    elif pa.types.is_map(type_):
        yield from _innermost(values.keys)
        yield from _innermost(values.items)
    elif _is_list(type_):
        yield from _innermost(values.flatten())
    elif pa.types.is_dictionary(type_):
        yield from _innermost(values.dictionary)
    else:
        yield values


def _limits(type_: pa.DataType) -> tuple[int, int] | None:
    """The least value of a type of dates, and the first that is too large; None for any other type."""
    if pa.types.is_date32(type_):
        return _FIRST_DAY, _AFTER_LAST_DAY
    if pa.types.is_timestamp(type_):
        day = _SECONDS_OF_A_DAY * _UNITS[type_.unit]
        return _FIRST_DAY * day, _AFTER_LAST_DAY * day
    return None


def _is_list(type_: pa.DataType) -> bool:
    return bool(pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_))
