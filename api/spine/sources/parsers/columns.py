"""Values of text that must be of a type: which fit, and what they are as Arrow values.

Empty text is no value, except in a column of strings. A timestamp without a zone is one in UTC.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from spine.sources.parsers.config import ColumnType
from spine.sources.parsers.parse_errors import short

ARROW_TYPES = {
    ColumnType.STRING: pa.string(),
    ColumnType.INTEGER: pa.int64(),
    ColumnType.NUMBER: pa.float64(),
    ColumnType.BOOLEAN: pa.bool_(),
    ColumnType.DATE: pa.date32(),
    ColumnType.TIMESTAMP: pa.timestamp("us", "UTC"),
    ColumnType.DECIMAL: pa.decimal128(38, 10),
}

_TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?"
_ZONE = r"(Z|[+-][0-9]{2}(:?[0-9]{2})?)"
# Arrow takes more than these (hexadecimal numbers, "nan"), which in a file of data are mistakes.
_FORMS = {
    ColumnType.INTEGER: r"^-?[0-9]+$",
    ColumnType.NUMBER: r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,4})?$",
    ColumnType.BOOLEAN: r"^(?i:true|false|0|1)$",
    ColumnType.DATE: r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$",
    ColumnType.TIMESTAMP: rf"^{_TIME}{_ZONE}?)?$",
    ColumnType.DECIMAL: r"^-?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,2})?$",
}
_WITH_ZONE = rf"[0-9]{_ZONE}$"
_WANTED = {
    ColumnType.STRING: "string",
    ColumnType.INTEGER: "integer of 64 bits",
    ColumnType.NUMBER: "number",
    ColumnType.BOOLEAN: "boolean",
    ColumnType.DATE: "date",
    ColumnType.TIMESTAMP: "timestamp",
    ColumnType.DECIMAL: "decimal with at most 28 digits before the point and 10 after it",
}


@dataclass(frozen=True)
class Misfit:
    """The first value of a row that is not of its column's type; `row` is the row's index in its batch."""

    row: int
    reason: str


def convert(texts: pa.Array, kind: ColumnType) -> pa.Array:
    """The values of texts that all fit. Raises `pa.ArrowException` when one does not."""
    if kind is ColumnType.STRING:
        return texts
    values = pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)
    if kind is ColumnType.TIMESTAMP:
        return _timestamps(values)
    return values.cast(ARROW_TYPES[kind])


def _timestamps(values: pa.Array) -> pa.Array:
    zoned = pc.match_substring_regex(values, _WITH_ZONE_AFTER_TIME)
    nothing = pa.scalar(None, pa.string())
    with_zone = pc.if_else(zoned, values, nothing).cast(ARROW_TYPES[ColumnType.TIMESTAMP])
    without = pc.if_else(zoned, nothing, values).cast(pa.timestamp("us"))
    return pc.coalesce(with_zone, pc.assume_timezone(without, "UTC"))


# A date ends in what looks like a zone: 2025-12-15.
_WITH_ZONE_AFTER_TIME = rf"[T ][0-9:.]+{_ZONE}$"


def fits(texts: pa.Array, kind: ColumnType) -> pa.Array:
    """Which texts are of the type, as booleans; null and empty text are."""
    empty = pc.fill_null(pc.equal(texts, ""), True)
    formed = pc.or_(empty, pc.fill_null(pc.match_substring_regex(texts, _FORMS[kind]), True))
    # Of the right form is not yet of the type: the 30th of February, or 20 digits.
    candidates = pc.if_else(formed, texts, pa.scalar(None, pa.string()))
    if _converts(candidates, kind):
        return formed
    wrong = {
        value for value in pc.unique(candidates).to_pylist() if not _converts(pa.array([value], pa.string()), kind)
    }
    return pc.and_not(formed, pc.is_in(candidates, pa.array(sorted(wrong), pa.string())))


def _converts(texts: pa.Array, kind: ColumnType) -> bool:
    try:
        convert(texts, kind)
    except pa.ArrowException:
        return False
    return True


def misfits(texts: Mapping[str, pa.Array], kinds: Mapping[str, ColumnType]) -> list[Misfit]:
    """The rows of a batch, given as its columns of text, that have a value of the wrong type, in their order."""
    first: dict[int, str] = {}
    for name, kind in kinds.items():
        if kind is ColumnType.STRING or name not in texts:
            continue
        fitting = fits(texts[name], kind)
        if fitting.true_count == len(fitting):
            continue
        for row in pc.indices_nonzero(pc.invert(fitting)).to_pylist():
            first.setdefault(row, reason_of(name, texts[name][row].as_py(), kind))
    return [Misfit(row, reason) for row, reason in sorted(first.items())]


def reason_of(name: str, value: str, kind: ColumnType) -> str:
    """Why a value makes its row bad."""
    return f"column {short(name)}: '{short(value)}' is no {_WANTED[kind]}"


def infer(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """The texts as integers, numbers, booleans, dates or timestamps, where all of them are; else as they are.

    What would lose its leading zeros stays text. A column without any value stays text, too.
    """
    if not pc.any(pc.not_equal(texts, "")).as_py() or _any(texts, r"^-?0[0-9]"):
        return texts
    for kind in (ColumnType.INTEGER, ColumnType.NUMBER, ColumnType.BOOLEAN, ColumnType.DATE, ColumnType.TIMESTAMP):
        if all(_all_fit(chunk, kind) for chunk in texts.chunks):
            return pa.chunked_array([convert(chunk, kind) for chunk in texts.chunks], ARROW_TYPES[kind])
    return texts


def _any(texts: pa.ChunkedArray, form: str) -> bool:
    return bool(pc.any(pc.match_substring_regex(texts, form)).as_py())


def _all_fit(texts: pa.Array, kind: ColumnType) -> bool:
    formed = pc.or_kleene(pc.equal(texts, ""), pc.match_substring_regex(texts, _FORMS[kind]))
    return pc.all(pc.fill_null(formed, True)).as_py() is not False and _converts(texts, kind)
