"""Records whose fields have names, as JSON and XML have them: what is common to all of them."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa

from spine.sources.parsers.columns import Misfit, misfits, reason_of
from spine.sources.parsers.config import ColumnType
from spine.sources.parsers.row_counter import Tally

# So many records are held at once: enough for Arrow to be quick. Large ones make fewer.
MOST_HELD = 5_000
MOST_HELD_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Record:
    """A record or what stands in its place: where it begins, what it holds, and about how many bytes that is."""

    line: int
    value: Any
    size: int = 0


def good_records(records: Iterator[Record], tally: Tally) -> Iterator[list[Mapping[str, Any]]]:
    """The good records, some at a time, counted in `tally`; `BadRecord` in the place of a value makes it a bad row."""
    while held := _some(records):
        mappings: list[Record] = []
        bad: list[tuple[int, str]] = []
        for record in held:
            if isinstance(record.value, Mapping):
                mappings.append(record)
            else:
                bad.append((record.line, _no_object(record.value)))
        # Most records have the same names, in the same order.
        for names in dict.fromkeys(tuple(record.value) for record in mappings):
            tally.meet(names)
        found = _misfits([record.value for record in mappings], tally.config.columns or {})
        bad += [(mappings[misfit.row].line, misfit.reason) for misfit in found]
        for line, reason in sorted(bad):
            tally.bad(line, reason)
        left_out = {misfit.row for misfit in found}
        good = [record.value for at, record in enumerate(mappings) if at not in left_out]
        tally.rows += len(good)
        yield good
    if tally.rows or tally.bad_rows:
        tally.check_columns()


@dataclass(frozen=True)
class BadRecord:
    """Stands for a record that cannot be read, with the reason."""

    reason: str


def _some(records: Iterator[Record]) -> list[Record]:
    held, size = [], 0
    for record in islice(records, MOST_HELD):
        held.append(record)
        size += record.size
        if size > MOST_HELD_BYTES:
            break
    return held


def _no_object(value: Any) -> str:
    if isinstance(value, BadRecord):
        return value.reason
    kinds: dict[type, str] = {str: "a string", bool: "a boolean", list: "a list", type(None): "null"}
    return f"is no object but {kinds.get(type(value), 'a number')}"


def _misfits(records: list[Mapping[str, Any]], kinds: Mapping[str, ColumnType]) -> list[Misfit]:
    columns = {name: [record.get(name) for record in records] for name in kinds}
    texts = {name: text_array(values) for name, values in columns.items()}
    found = {misfit.row: misfit for misfit in misfits(texts, kinds)}
    for name, kind in kinds.items():
        if kind is ColumnType.STRING:
            for row, value in enumerate(columns[name]):
                if value is not None and not isinstance(value, str):
                    found.setdefault(row, Misfit(row, reason_of(name, str(as_text(value)), kind)))
    return list(found.values())


def text_array(values: list[Any]) -> pa.Array:
    """Values of JSON as text, null where there is none."""
    return pa.array([as_text(value) for value in values], pa.string())


def as_text(value: Any) -> str | None:
    """A value of JSON as text; lists and objects as JSON."""
    if value is None:
        return None
    if isinstance(value, str):
        # JSON can spell halves of characters, which are no text.
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, dict)):
        return json.dumps(value, default=str)
    return str(value)


def natural_array(values: list[Any]) -> pa.Array:
    """Values of JSON as they are: booleans, integers, numbers or text, and text where they differ."""
    kinds = {type(value) for value in values} - {type(None)}
    if not kinds:
        return pa.nulls(len(values))
    if kinds == {bool}:
        return pa.array(values, pa.bool_())
    if kinds == {int} and all(value is None or -(2**63) <= value < 2**63 for value in values):
        return pa.array(values, pa.int64())
    if kinds <= {int, float}:
        return pa.array([None if value is None else _float(value) for value in values], pa.float64())
    return text_array(values)


def _float(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")
