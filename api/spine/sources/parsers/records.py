"""Records with named fields, as in JSON and XML."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa

from spine.sources.parsers.columns import InvalidValue, invalid_reason, invalid_values
from spine.sources.parsers.config import ColumnType
from spine.sources.parsers.json_values import json_text
from spine.sources.parsers.parse_errors import excerpt
from spine.sources.parsers.row_counter import RowCounter

# The most records in memory at once: enough for Arrow to be fast, and fewer if they are large.
MOST_HELD = 5_000
MOST_HELD_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Record:
    """A record or the value in its place: the line where it begins, the value, and its approximate size in bytes."""

    line: int
    value: Any
    size: int = 0


@dataclass(frozen=True)
class Header:
    """In the place of a value: the names of columns, which a file without records has, too."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class BadRecord:
    """In the place of a value that cannot be read, with the reason."""

    reason: str


def good_records(records: Iterator[Record], counter: RowCounter) -> Iterator[list[Mapping[str, Any]]]:
    """The valid records in batches, counted in `counter`; a record whose value is a `BadRecord` is invalid.

    Fields that are absent are null. Columns with a configured type are columns of every file.
    """
    has_header = False
    while batch := _next_batch(records):
        mappings: list[Record] = []
        bad: list[tuple[int, str]] = []
        for record in batch:
            if isinstance(record.value, Header):
                has_header = True
                counter.add_columns(record.value.names)
            elif isinstance(record.value, Mapping):
                mappings.append(record)
            else:
                bad.append((record.line, _not_an_object(record.value)))
        # Most records have the same field names in the same order.
        for names in dict.fromkeys(tuple(record.value) for record in mappings):
            counter.add_columns(names)
        found = _invalid_values([record.value for record in mappings], counter.config.columns or {})
        bad += [(mappings[invalid.row].line, invalid.reason) for invalid in found]
        for line, reason in sorted(bad):
            counter.add_bad_row(line, reason)
        left_out = {invalid.row for invalid in found}
        good = [record.value for at, record in enumerate(mappings) if at not in left_out]
        counter.rows += len(good)
        yield good
    if counter.rows or counter.bad_rows or has_header:
        counter.check_columns()
    counter.add_columns(counter.config.columns or ())


def _next_batch(records: Iterator[Record]) -> list[Record]:
    batch, size = [], 0
    for record in islice(records, MOST_HELD):
        batch.append(record)
        size += record.size
        if size > MOST_HELD_BYTES:
            break
    return batch


def _not_an_object(value: Any) -> str:
    if isinstance(value, BadRecord):
        return value.reason
    kinds: dict[type, str] = {str: "a string", bool: "a boolean", list: "a list", type(None): "null"}
    return f"is not an object but {kinds.get(type(value), 'a number')}"


def _invalid_values(records: list[Mapping[str, Any]], kinds: Mapping[str, ColumnType]) -> list[InvalidValue]:
    columns = {name: [record.get(name) for record in records] for name in kinds}
    texts = {name: text_array(values) for name, values in columns.items()}
    found = {invalid.row: invalid for invalid in invalid_values(texts, kinds)}
    for name, kind in kinds.items():
        if kind is ColumnType.STRING:
            for row, value in enumerate(columns[name]):
                if value is not None and not isinstance(value, str):
                    found.setdefault(row, InvalidValue(row, invalid_reason(name, str(as_text(value)), kind)))
    for row, record in enumerate(records):
        broken = next((name for name, value in record.items() if _is_half_a_character(value)), None)
        if broken is not None:
            found[row] = InvalidValue(row, f"column {excerpt(broken)}: the value is not valid text")
    return list(found.values())


def _is_half_a_character(value: Any) -> bool:
    if not isinstance(value, str) or value.isascii():
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return True
    return False


def text_array(values: list[Any]) -> pa.Array:
    """JSON values as text; null stays null."""
    return pa.array([as_text(value) for value in values], pa.string())


def as_text(value: Any) -> str | None:
    """A JSON value as text, numbers as they were written; lists and objects as JSON."""
    if value is None:
        return None
    if isinstance(value, str):
        # JSON can contain lone surrogates, which are not valid text. Such records are invalid.
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    return json_text(value)


def natural_array(values: list[Any]) -> pa.Array:
    """JSON values as booleans, 64-bit integers or text; numbers that are not such integers are text."""
    kinds = {type(value) for value in values} - {type(None)}
    if not kinds:
        return pa.nulls(len(values))
    if kinds == {bool}:
        return pa.array(values, pa.bool_())
    if kinds == {int} and all(value is None or -(2**63) <= value < 2**63 for value in values):
        return pa.array(values, pa.int64())
    return text_array(values)


def are_numbers(values: list[Any]) -> bool:
    """Whether all values are numbers or null, with at least one number."""
    kinds = {type(value) for value in values} - {type(None)}
    return bool(kinds) and kinds <= {int, bytes}
