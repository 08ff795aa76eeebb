"""The types of columns of JSON numbers.

In the batches of a file such numbers are text, as they were written, because only all of them together show which type
has each exactly: integers of 64 bits, doubles, or decimals of at most 38 digits. A double has a number if its shortest
text is that number. Numbers that no type has stay text, and so do those of a column that also has other values.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc

from spine.sources.parsers.exact_numbers import LONGEST_EXACT, MOST_DIGITS, decimals, doubtful, is_exact

# In the metadata of a field of text whose values are numbers.
NUMBERS = {b"spine.json": b"number"}

_Chunks = Callable[[], Iterable[pa.Array]]
_POINT = r"[.eE]"
_EXPONENT = r"[eE]"
_SMALL_EXPONENT = re.compile(r"[eE][+-]?[0-9]{1,3}$")


class TypedBatch:
    """A batch in which columns of numbers have their types; the values are converted when they are read."""

    def __init__(self, batch: pa.RecordBatch, types: Mapping[str, pa.DataType]) -> None:
        self._batch = batch
        self.num_rows = batch.num_rows
        fields = [
            field.with_type(types[field.name]) if field.name in types and _is_number(field) else field
            for field in batch.schema
        ]
        self.schema = pa.schema(fields, batch.schema.metadata)

    def column(self, name: str) -> pa.Array:
        """The values of a column."""
        column, type_ = self._batch.column(name), self.schema.field(name).type
        return column if column.type == type_ else _converted(column.cast(pa.string()), type_)


def typed_numbers(batches: Sequence[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """The batches with types for their columns of numbers, as far as all numbers of a column have one."""
    names = dict.fromkeys(field.name for batch in batches for field in batch.schema if field.metadata == NUMBERS)
    types = {name: type_ for name in names if (type_ := _type_of_column(name, batches)) is not None}
    return [TypedBatch(batch, types) if types else batch for batch in batches]


def _type_of_column(name: str, batches: Sequence[pa.RecordBatch]) -> pa.DataType | None:
    found = [batch for batch in batches if batch.schema.get_field_index(name) >= 0]
    fields = [batch.schema.field(name) for batch in found]
    if not all(_is_number(field) or _is_typed_number(field.type) for field in fields):
        return None
    numbers = [batch for batch, field in zip(found, fields, strict=True) if _is_number(field)]
    return _number_type(lambda: (batch.column(name).cast(pa.string()) for batch in numbers))


def _is_number(field: pa.Field) -> bool:
    return field.metadata == NUMBERS or bool(pa.types.is_integer(field.type))


def _is_typed_number(type_: pa.DataType) -> bool:
    return bool(pa.types.is_null(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_))


def _number_type(chunks: _Chunks) -> pa.DataType | None:
    if any(_any_match(texts, _POINT) for texts in chunks()):
        if not any(_inexact(texts) for texts in chunks()):
            return pa.float64()
    elif all(_fit(texts, pa.int64()) for texts in chunks()):
        return pa.int64()
    return _decimal_type(chunks)


def _any_match(texts: pa.Array, pattern: str) -> bool:
    return bool(pc.any(pc.match_substring_regex(texts, pattern)).as_py())


def _fit(texts: pa.Array, type_: pa.DataType) -> bool:
    try:
        texts.cast(type_)
    except pa.ArrowException:
        return False
    return True


def _inexact(texts: pa.Array) -> bool:
    return not all(_is_writable(text) and is_exact(text) for text in doubtful(texts).to_pylist())


def _is_writable(text: str) -> bool:
    return re.search(_EXPONENT, text) is None or _SMALL_EXPONENT.search(text) is not None


def _decimal_type(chunks: _Chunks) -> pa.DataType | None:
    whole = fraction = 0
    for texts in chunks():
        # A text of a few digits more than fit can still have trailing zeros, but nobody writes such numbers.
        for text in pc.unique(texts).drop_null().to_pylist():
            if not _is_writable(text) or len(text) > LONGEST_EXACT:
                return None
            before, _, after = _written_out(text).lstrip("-").partition(".")
            whole, fraction = max(whole, len(before.lstrip("0"))), max(fraction, len(after))
        if whole + fraction > MOST_DIGITS:
            return None
    return pa.decimal128(MOST_DIGITS, fraction)


def _written_out(text: str) -> str:
    return format(Decimal(text), "f") if re.search(_EXPONENT, text) else text


def _converted(texts: pa.Array, type_: pa.DataType) -> pa.Array:
    return decimals(texts, type_) if pa.types.is_decimal(type_) else texts.cast(type_)
