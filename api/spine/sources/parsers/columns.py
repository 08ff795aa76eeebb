"""Conversion of text to column types, and detection of values that cannot be converted.

Empty text is null, except in a column of strings. A timestamp without a time zone is in UTC.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from spine.sources.parsers.config import ColumnType
from spine.sources.parsers.exact_numbers import decimals, inexact
from spine.sources.parsers.parse_errors import excerpt

ARROW_TYPES = {
    ColumnType.STRING: pa.string(),
    ColumnType.INTEGER: pa.int64(),
    ColumnType.NUMBER: pa.float64(),
    ColumnType.BOOLEAN: pa.bool_(),
    ColumnType.DATE: pa.date32(),
    ColumnType.TIMESTAMP: pa.timestamp("us", "UTC"),
    ColumnType.DECIMAL: pa.decimal128(38, 10),
}

_LAST_YEAR = 9999
# There is no year 0.
_DAY = r"([0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)-[0-9]{2}-[0-9]{2}"
_TIME = _DAY + r"([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?"
_ZONE = r"(Z|[+-][0-9]{2}(:?[0-9]{2})?)"
# Arrow also accepts hexadecimal numbers and "nan", which are errors in a data file.
PATTERNS = {
    ColumnType.INTEGER: r"^-?[0-9]+$",
    ColumnType.NUMBER: r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,4})?$",
    ColumnType.BOOLEAN: r"^(?i:true|false|0|1)$",
    ColumnType.DATE: rf"^{_DAY}$",
    ColumnType.TIMESTAMP: rf"^{_TIME}{_ZONE}?)?$",
    ColumnType.DECIMAL: r"^-?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,2})?$",
}
_EXPECTED = {
    ColumnType.STRING: "a string",
    ColumnType.INTEGER: "a 64-bit integer",
    ColumnType.NUMBER: "a number that a double holds exactly",
    ColumnType.BOOLEAN: "a boolean",
    ColumnType.DATE: "a date",
    ColumnType.TIMESTAMP: "a timestamp",
    ColumnType.DECIMAL: "a decimal with at most 28 digits before the point and 10 after it",
}


@dataclass(frozen=True)
class InvalidValue:
    """The first invalid value of a row; `row` is the row's index in its batch."""

    row: int
    reason: str


def convert(texts: pa.Array, kind: ColumnType) -> pa.Array:
    """Texts as values of the type. Raises `pa.ArrowException` if one is invalid."""
    if kind is ColumnType.STRING:
        return texts
    values = pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)
    if kind is ColumnType.TIMESTAMP:
        return _timestamps(values)
    if kind is ColumnType.DECIMAL:
        return decimals(values, ARROW_TYPES[kind])
    if kind is ColumnType.NUMBER and inexact(values).true_count:
        raise pa.ArrowInvalid("a double would round a number")
    return values.cast(ARROW_TYPES[kind])


def _timestamps(values: pa.Array) -> pa.Array:
    zoned = pc.match_substring_regex(values, _WITH_ZONE_AFTER_TIME)
    nothing = pa.scalar(None, pa.string())
    with_zone = pc.if_else(zoned, values, nothing).cast(ARROW_TYPES[ColumnType.TIMESTAMP])
    without = pc.if_else(zoned, nothing, values).cast(pa.timestamp("us"))
    found = pc.coalesce(with_zone, pc.assume_timezone(without, "UTC"))
    # In UTC a time can be in a year that neither Python nor most databases have.
    years = pc.min_max(pc.year(found)).as_py()
    if years["min"] is not None and (years["min"] < 1 or years["max"] > _LAST_YEAR):
        raise pa.ArrowInvalid("a year is out of range")
    return found


# The end of a date, as in 2025-12-15, looks like a zone.
_WITH_ZONE_AFTER_TIME = rf"[T ][0-9:.]+{_ZONE}$"


def _valid(texts: pa.Array, kind: ColumnType) -> pa.Array:
    """Which texts are valid values of the type, as booleans; null and empty text are valid."""
    empty = pc.fill_null(pc.equal(texts, ""), True)
    matching = pc.or_(empty, pc.fill_null(pc.match_substring_regex(texts, PATTERNS[kind]), True))
    # A text that matches can still be invalid: February 30, or an integer of 20 digits.
    candidates = pc.if_else(matching, texts, pa.scalar(None, pa.string()))
    if kind is ColumnType.NUMBER:
        return pc.and_not(matching, inexact(candidates))
    if converts(candidates, kind):
        return matching
    wrong = {value for value in pc.unique(candidates).to_pylist() if not converts(pa.array([value], pa.string()), kind)}
    return pc.and_not(matching, pc.is_in(candidates, pa.array(sorted(wrong), pa.string())))


def converts(texts: pa.Array, kind: ColumnType) -> bool:
    """Whether all texts, which match the pattern of the type, are values of it."""
    try:
        convert(texts, kind)
    except pa.ArrowException:
        return False
    return True


def invalid_values(texts: Mapping[str, pa.Array], kinds: Mapping[str, ColumnType]) -> list[InvalidValue]:
    """The rows of a batch that have an invalid value, in order; `texts` are the columns of the batch as text."""
    first: dict[int, str] = {}
    for name, kind in kinds.items():
        if kind is ColumnType.STRING or name not in texts:
            continue
        valid = _valid(texts[name], kind)
        if valid.true_count == len(valid):
            continue
        for row in pc.indices_nonzero(pc.invert(valid)).to_pylist():
            first.setdefault(row, invalid_reason(name, texts[name][row].as_py(), kind))
    return [InvalidValue(row, reason) for row, reason in sorted(first.items())]


def invalid_reason(name: str, value: str, kind: ColumnType) -> str:
    """Why a row with this value is invalid."""
    return f"column {excerpt(name)}: '{excerpt(value)}' is not {_EXPECTED[kind]}"


def without_rows(batch: pa.RecordBatch, found: Sequence[InvalidValue]) -> pa.RecordBatch:
    """The batch without the rows that have an invalid value."""
    if not found:
        return batch
    rows = pa.array(range(batch.num_rows), pa.int64())
    return batch.filter(pc.invert(pc.is_in(rows, pa.array([one.row for one in found], pa.int64()))))
