"""Arrow types: the one that has all values of several types without loss, and types without dictionaries."""

from collections.abc import Callable, Iterable, Sequence

import pyarrow as pa

_UNITS = ("s", "ms", "us", "ns")
# The digits of the integers of each width in bits.
_DIGITS = {8: 3, 16: 5, 32: 10, 64: 19}
_MOST_DIGITS = 76
_Test = Callable[[pa.DataType], bool]


def joined(types: Iterable[pa.DataType]) -> pa.DataType | None:
    """The type that has all values of these types exactly; None without one.

    Integers and floats are joined to doubles, and units of time to the finest: a value that does not fit is refused
    when it is cast. A type alone, or with the null type, stays as it is.
    """
    valued = [type_ for type_ in dict.fromkeys(types) if not pa.types.is_null(type_)]
    if len(valued) <= 1:
        return next(iter(valued), pa.null())
    for is_one, join in _JOINS:
        if all(is_one(type_) for type_ in valued):
            return join(valued)
    return None


def without_dictionaries(type_: pa.DataType) -> pa.DataType:
    """The type of the same values, with the values in place of indices into a dictionary, at any depth."""
    if pa.types.is_dictionary(type_):
        return without_dictionaries(type_.value_type)
    if pa.types.is_struct(type_):
        return pa.struct([field.with_type(without_dictionaries(field.type)) for field in _fields(type_)])
    if pa.types.is_map(type_):
        return pa.map_(without_dictionaries(type_.key_type), without_dictionaries(type_.item_type))
    if pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_):
        return _list_like(type_, without_dictionaries(type_.value_type))
    return type_


def cast_exactly(column: pa.Array, type_: pa.DataType) -> pa.Array:
    """The column as a type of `joined`. Raises `pa.ArrowException` for a value that the type does not have."""
    if column.type == type_:
        return column
    if pa.types.is_null(column.type):
        return pa.nulls(len(column), type_)
    return column.cast(type_)


def _list_like(type_: pa.DataType, values: pa.DataType) -> pa.DataType:
    field = type_.value_field.with_type(values)
    if pa.types.is_fixed_size_list(type_):
        return pa.list_(field, type_.list_size)
    return pa.large_list(field) if pa.types.is_large_list(type_) else pa.list_(field)


def _fields(type_: pa.DataType) -> list[pa.Field]:
    return [type_.field(at) for at in range(type_.num_fields)]


def _integers(types: Sequence[pa.DataType]) -> pa.DataType:
    signed = max((type_.bit_width for type_ in types if pa.types.is_signed_integer(type_)), default=0)
    unsigned = max((type_.bit_width for type_ in types if pa.types.is_unsigned_integer(type_)), default=0)
    if not unsigned or not signed:
        return {8: pa.int8(), 16: pa.int16(), 32: pa.int32(), 64: pa.int64()}[signed] if signed else _unsigned(unsigned)
    width = max(signed, 2 * unsigned)
    # An unsigned integer of 64 bits has up to 20 digits.
    return {16: pa.int16(), 32: pa.int32(), 64: pa.int64()}.get(width, pa.decimal128(20, 0))


def _unsigned(width: int) -> pa.DataType:
    return {8: pa.uint8(), 16: pa.uint16(), 32: pa.uint32(), 64: pa.uint64()}[width]


def _decimals(types: Sequence[pa.DataType]) -> pa.DataType | None:
    decimals = [type_ for type_ in types if pa.types.is_decimal(type_)]
    scale = max(0, *(type_.scale for type_ in decimals))
    digits = max(type_.precision - type_.scale for type_ in decimals)
    for type_ in types:
        if pa.types.is_integer(type_):
            digits = max(digits, 20 if pa.types.is_uint64(type_) else _DIGITS[type_.bit_width])
    if digits + scale > _MOST_DIGITS:
        return None
    return pa.decimal128(digits + scale, scale) if digits + scale <= 38 else pa.decimal256(digits + scale, scale)


def _floats(types: Sequence[pa.DataType]) -> pa.DataType:
    if any(pa.types.is_integer(type_) or pa.types.is_float64(type_) for type_ in types):
        return pa.float64()
    return pa.float32()


def _finest(types: Sequence[pa.DataType]) -> str:
    return max((str(type_.unit) for type_ in types), key=_UNITS.index)


def _timestamps(types: Sequence[pa.DataType]) -> pa.DataType | None:
    zones = {type_.tz for type_ in types}
    if len(zones) > 1 and None in zones:
        return None
    # The same moments, whatever zone shows them.
    return pa.timestamp(_finest(types), zones.pop() if len(zones) == 1 else "UTC")


def _times(types: Sequence[pa.DataType]) -> pa.DataType:
    unit = _finest(types)
    return pa.time64(unit) if unit in ("us", "ns") else pa.time32(unit)


def _texts(types: Sequence[pa.DataType]) -> pa.DataType:
    return pa.large_string() if any(pa.types.is_large_string(type_) for type_ in types) else pa.string()


def _binaries(types: Sequence[pa.DataType]) -> pa.DataType:
    return pa.large_binary() if any(pa.types.is_large_binary(type_) for type_ in types) else pa.binary()


def _lists(types: Sequence[pa.DataType]) -> pa.DataType | None:
    values = _nested([type_.value_type for type_ in types])
    if values is None:
        return None
    return pa.large_list(values) if any(pa.types.is_large_list(type_) for type_ in types) else pa.list_(values)


def _maps(types: Sequence[pa.DataType]) -> pa.DataType | None:
    keys, items = (_nested([getattr(type_, part) for type_ in types]) for part in ("key_type", "item_type"))
    return None if keys is None or items is None else pa.map_(keys, items)


def _structs(types: Sequence[pa.DataType]) -> pa.DataType | None:
    parts: dict[str, list[pa.DataType]] = {}
    for type_ in types:
        names = [field.name for field in _fields(type_)]
        if len(set(names)) < len(names):
            return None
        for field in _fields(type_):
            parts.setdefault(field.name, []).append(field.type)
    fields = {name: _nested(of_one) for name, of_one in parts.items()}
    return None if None in fields.values() else pa.struct(list(fields.items()))


def _nested(types: Sequence[pa.DataType]) -> pa.DataType | None:
    """`joined`, but not to a type that some values do not fit: nested values are not looked at before the cast."""
    if any(pa.types.is_floating(type_) for type_ in types) and any(pa.types.is_integer(type_) for type_ in types):
        return None
    return joined(types)


def _is_any(*tests: _Test) -> _Test:
    return lambda type_: any(test(type_) for test in tests)


_IS_NUMBER = _is_any(pa.types.is_integer, pa.types.is_floating)
_JOINS: tuple[tuple[_Test, Callable[[Sequence[pa.DataType]], pa.DataType | None]], ...] = (
    (pa.types.is_integer, _integers),
    (_IS_NUMBER, _floats),
    (_is_any(pa.types.is_integer, pa.types.is_decimal), _decimals),
    (pa.types.is_timestamp, _timestamps),
    (pa.types.is_time, _times),
    (pa.types.is_duration, lambda types: pa.duration(_finest(types))),
    (pa.types.is_date, lambda types: pa.date32()),
    (_is_any(pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view), _texts),
    (
        _is_any(
            *(pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view)
        ),
        _binaries,
    ),
    (_is_any(pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list), _lists),
    (pa.types.is_map, _maps),
    (pa.types.is_struct, _structs),
)
