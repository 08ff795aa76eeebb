"""JSON: records in one of the layouts of `records_layout`, anywhere in a document; and JSON Lines."""

from collections.abc import Iterator
from typing import Any

from spine.sources.parsers.compression import CHUNK, Readable
from spine.sources.parsers.config import ParserConfig, RecordsLayout
from spine.sources.parsers.json_document import Document, elements, member_names
from spine.sources.parsers.json_layouts import from_arrays, keyed_records, records_of_columns
from spine.sources.parsers.json_values import Decoder, TooDeep, flattened, reason_for_twice
from spine.sources.parsers.parse_errors import ParseError, excerpt
from spine.sources.parsers.records import BadRecord, Record
from spine.sources.parsers.text import LONGEST_LINE, OpenText

_OBJECTS = (RecordsLayout.KEYED, RecordsLayout.COLUMNS)


def read_json(text: Readable, config: ParserConfig, names: list[str] | None) -> Iterator[Record]:
    """The records of a document, numbered from 1; a top-level object is one record in the layout `rows`.

    `names` are those of `names_path`. Raises `ParseError`.
    """
    document = Document(text)
    opening = "{" if config.records_layout in _OBJECTS else "["
    first = document.peek()
    if config.records_path is not None:
        if first != "{":
            raise ParseError(f"records_path is {excerpt(config.records_path)}, but the document is not an object")
        found = _records_at(document, config.records_path.split("."), config, names)
    elif first == opening:
        found = _records(document, config, names)
    elif config.records_layout is RecordsLayout.ROWS:
        found = iter([document.whole()])
    else:
        expected = "an object" if opening == "{" else "a list"
        raise ParseError(f"records_layout is {config.records_layout.value}, but the document is not {expected}")
    yield from _flattened(found) if config.flatten else found
    document.end()


def _records_at(document: Document, path: list[str], config: ParserConfig, names: list[str] | None) -> Iterator[Record]:
    opening = "{" if path[1:] or config.records_layout in _OBJECTS else "["
    found = False
    for name in member_names(document):
        if name != path[0]:
            document.value()
            continue
        if found:
            raise ParseError(f"it has {excerpt(name)} of records_path twice")
        found = True
        if document.peek() != opening:
            expected = "an object" if opening == "{" else "a list"
            raise ParseError(f"records_path does not lead to {expected} at {excerpt(name)}")
        yield from (_records_at(document, path[1:], config, names) if path[1:] else _records(document, config, names))
    if not found:
        kind = "an object" if config.records_layout in _OBJECTS else "a list"
        raise ParseError(f"records_path does not lead to {kind}: {excerpt(path[0])} was not found")


def _records(document: Document, config: ParserConfig, names: list[str] | None) -> Iterator[Record]:
    match config.records_layout:
        case RecordsLayout.KEYED:
            return keyed_records(document, config.key_column)
        case RecordsLayout.COLUMNS:
            return records_of_columns(document)
        case RecordsLayout.ARRAYS:
            return from_arrays(elements(document), config, names)
        case _:
            return elements(document)


def _flattened(records: Iterator[Record]) -> Iterator[Record]:
    for record in records:
        flat = flattened(record.value) if isinstance(record.value, dict) else record.value
        if isinstance(flat, str):
            flat = BadRecord(f"has two values for the column {excerpt(flat)}")
        yield Record(record.line, flat, record.size)


def names_at_path(open_text: OpenText, config: ParserConfig) -> list[str] | None:
    """The column names at `names_path`; None if it is not set. Raises `ParseError`."""
    if config.names_path is None:
        return None
    first, *rest = config.names_path.split(".")
    with open_text() as text:
        document = Document(text)
        if document.peek() != "{":
            raise ParseError(f"names_path is {excerpt(config.names_path)}, but the document is not an object")
        for name in member_names(document):
            value, _ = document.value()
            if name == first:
                return _names_in(value, rest, config.names_path)
    raise ParseError(f"names_path does not lead to a list: {excerpt(first)} was not found")


def _names_in(value: Any, path: list[str], whole: str) -> list[str]:
    for name in path:
        if isinstance(value, list):
            value = [one.get(name) if isinstance(one, dict) else None for one in value]
        else:
            value = value.get(name) if isinstance(value, dict) else None
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ParseError(f"names_path does not lead to a list of names: {excerpt(whole)}")
    return value


def read_jsonl(text: Readable, config: ParserConfig) -> Iterator[Record]:
    """The records of a file with one per line, and their line numbers. Raises `ParseError`."""
    if config.records_layout in _OBJECTS:
        raise ParseError(f"JSON Lines have no records_layout {config.records_layout.value}")
    found = _lines_parsed(text, config)
    if config.records_layout is RecordsLayout.ARRAYS:
        found = from_arrays(found, config, None)
    yield from _flattened(found) if config.flatten else found


def _lines_parsed(text: Readable, config: ParserConfig) -> Iterator[Record]:
    decoder = Decoder()
    for number, line in _lines(text):
        if number > config.skip_rows and not line.isspace():
            yield Record(number, _parsed(line, decoder), len(line))


def _lines(text: Readable) -> Iterator[tuple[int, bytes]]:
    number, rest = 1, b""
    while data := text.read(CHUNK):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if line:
                yield number, line
            number += 1
        if len(rest) > LONGEST_LINE:
            raise ParseError(f"line {number:,} is longer than {LONGEST_LINE // 2**20} MB")
    if rest:
        yield number, rest


def _parsed(line: bytes, decoder: Decoder) -> Any:
    text = line.decode().strip(" \t\r\n")
    try:
        value, end = decoder.decode(text, 0)
    except TooDeep:
        return BadRecord("is nested too deeply")
    except ValueError:
        end = -1
    if end < len(text):
        return BadRecord("is not valid JSON")
    return value if decoder.twice is None else BadRecord(reason_for_twice(decoder.twice))
