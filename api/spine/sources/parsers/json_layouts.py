"""Layouts of records in JSON other than a list of objects."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from spine.sources.parsers.config import ParserConfig
from spine.sources.parsers.json_document import Document, elements, member_names
from spine.sources.parsers.parse_errors import ParseError, excerpt, plural
from spine.sources.parsers.records import BadRecord, Header, Record
from spine.sources.parsers.row_counter import MOST_COLUMNS, check_lengths

# The memory of a value in a list.
_VALUE_BYTES = 50


def keyed_records(document: Document, key_column: str) -> Iterator[Record]:
    """The members of an object, with their names in a column of their own."""
    yield Record(0, Header((key_column,)))
    for key in member_names(document):
        record = document.next_record()
        value = record.value
        if isinstance(value, dict):
            taken = key_column in value
            value = (
                BadRecord(f"has a field '{excerpt(key_column)}' of its own; set key_column to another name")
                if taken
                else {key_column: key, **value}
            )
        yield Record(record.line, value, record.size + len(key))


def records_of_columns(document: Document) -> Iterator[Record]:
    """The rows of an object of lists, one for each column. The lists are in memory at once."""
    columns: dict[str, list[Any]] = {}
    for name in member_names(document):
        if name in columns:
            raise ParseError(f"it has the column '{excerpt(name)}' twice")
        check_lengths([name])
        if len(columns) == MOST_COLUMNS:
            raise ParseError(f"it has more than {MOST_COLUMNS:,} columns")
        if document.peek() != "[":
            raise ParseError(f"the column '{excerpt(name)}' is not a list; records_layout is columns")
        columns[name] = [record.value for record in elements(document)]
    _check_equal(columns)
    yield Record(0, Header(tuple(columns)))
    for number, values in enumerate(zip(*columns.values(), strict=True), start=1):
        bad = next((value for value in values if isinstance(value, BadRecord)), None)
        yield Record(number, bad or dict(zip(columns, values, strict=True)), _VALUE_BYTES * len(values))


def _check_equal(columns: dict[str, list[Any]]) -> None:
    first = next(iter(columns), "")
    for name, values in columns.items():
        if len(values) != len(columns[first]):
            raise ParseError(
                f"the column '{excerpt(name)}' has {plural(len(values), 'value')}, "
                f"but '{excerpt(first)}' has {len(columns[first]):,}"
            )


def from_arrays(arrays: Iterator[Record], config: ParserConfig, names: list[str] | None) -> Iterator[Record]:
    """Records from arrays of values; without `names`, the first has them, or `columns` if there is no header."""
    if names is None and not config.has_header and config.columns:
        names = list(config.columns)
    if names is not None:
        yield _header(0, names)
    for record in arrays:
        if names is None:
            names = _names_of(record.value, has_header=config.has_header)
            yield _header(record.line, names)
            if config.has_header:
                continue
        yield Record(record.line, _named(record.value, names), record.size)


def _header(line: int, names: list[str]) -> Record:
    if len(set(names)) < len(names):
        twice = next(name for name, times in Counter(names).items() if times > 1)
        raise ParseError(f"two columns are named '{excerpt(twice)}'")
    return Record(line, Header(tuple(names)))


def _names_of(first: Any, *, has_header: bool) -> list[str]:
    if not isinstance(first, list):
        raise ParseError("the first row is not an array; records_layout is arrays")
    if not has_header:
        return [f"column_{at}" for at, _ in enumerate(first, start=1)]
    if not all(isinstance(name, str) for name in first):
        raise ParseError("the first row is not an array of names; set names_path, or has_header to false")
    return first


def _named(values: Any, names: list[str]) -> Any:
    if not isinstance(values, list):
        return values if isinstance(values, BadRecord) else BadRecord("is not an array; records_layout is arrays")
    if len(values) != len(names):
        return BadRecord(f"has {plural(len(values), 'value')}, {len(names):,} are expected")
    return dict(zip(names, values, strict=True))
