"""The type of a column of text: the one that holds each of its values exactly, else text.

A value that would lose something stays text, and with it the whole column: leading zeros, a plus sign, or an exponent
that may not be one, as in the CUSIP 92343E102. Integers of more than 64 bits, and numbers that a double would round,
are decimals of at most 38 digits.
"""

from collections.abc import Callable, Iterable

import pyarrow as pa
import pyarrow.compute as pc

from spine.sources.parsers.columns import ARROW_TYPES, PATTERNS, convert, converts
from spine.sources.parsers.config import ColumnType
from spine.sources.parsers.exact_numbers import decimal_type, decimals, inexact

# The texts of a column from the beginning, each time.
Chunks = Callable[[], Iterable[pa.Array]]
Conversion = Callable[[pa.Array], pa.Array]

_LEADING_ZERO = r"^-?0[0-9]"
# Programs write exponents with a point or a sign.
_NUMBER = r"^-?([0-9]+|[0-9]*\.[0-9]+([eE][+-]?[0-9]{1,4})?|[0-9]+\.|[0-9]+[eE][+-][0-9]{1,4})$"
_BOOLEAN = r"^(?i:true|false)$"


def inferred_type(chunks: Chunks) -> tuple[pa.DataType, Conversion] | None:
    """The type of a column, and how its texts are converted; None if they stay text, as without any value."""
    if not any(pc.any(pc.not_equal(texts, "")).as_py() for texts in chunks()):
        return None
    if _all_match(chunks, _NUMBER):
        return _number(chunks)
    for kind, pattern in (
        (ColumnType.BOOLEAN, _BOOLEAN),
        (ColumnType.DATE, PATTERNS[ColumnType.DATE]),
        (ColumnType.TIMESTAMP, PATTERNS[ColumnType.TIMESTAMP]),
    ):
        if _all_match(chunks, pattern) and all(converts(texts, kind) for texts in chunks()):
            return _simple(kind)
    return None


def _number(chunks: Chunks) -> tuple[pa.DataType, Conversion] | None:
    if any(pc.any(pc.match_substring_regex(texts, _LEADING_ZERO)).as_py() for texts in chunks()):
        return None
    if _all_match(chunks, PATTERNS[ColumnType.INTEGER]):
        if all(converts(texts, ColumnType.INTEGER) for texts in chunks()):
            return _simple(ColumnType.INTEGER)
    elif not any(inexact(texts).true_count for texts in chunks()):
        return _simple(ColumnType.NUMBER)
    type_ = decimal_type(chunks)
    return None if type_ is None else (type_, lambda texts: decimals(_without_empty(texts), type_))


def _simple(kind: ColumnType) -> tuple[pa.DataType, Conversion]:
    return ARROW_TYPES[kind], lambda texts: convert(texts, kind)


def _without_empty(texts: pa.Array) -> pa.Array:
    return pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)


def _all_match(chunks: Chunks, pattern: str) -> bool:
    return all(_matches(texts, pattern) for texts in chunks())


def _matches(texts: pa.Array, pattern: str) -> bool:
    matching = pc.or_kleene(pc.equal(texts, ""), pc.match_substring_regex(texts, pattern))
    return pc.all(pc.fill_null(matching, True)).as_py() is not False
