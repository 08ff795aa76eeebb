"""Read files of every format, to count their rows or to make a table of them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from spine.sources.parsers.arrow_files import batch_file, write_batches
from spine.sources.parsers.arrow_tables import TableColumns, batch_of
from spine.sources.parsers.compression import Check, File, content_of, no_check
from spine.sources.parsers.config import ColumnType, ParserConfig, ParserType
from spine.sources.parsers.delimited import read_delimited
from spine.sources.parsers.error_documents import check_message
from spine.sources.parsers.extremes import Extremes
from spine.sources.parsers.json_files import names_at_path, read_json, read_jsonl
from spine.sources.parsers.other_documents import check_document, is_empty
from spine.sources.parsers.parquet_files import read_parquet
from spine.sources.parsers.parse_errors import ParseError, parse_failures
from spine.sources.parsers.records import Record, good_records
from spine.sources.parsers.row_counter import Parsed, RowCounter
from spine.sources.parsers.text import text_of
from spine.sources.parsers.xml_files import declares_encoding, encoding_to_transcode, read_xml

# The result for a file that is empty.
NO_ROWS = Parsed(0, 0, (), ())
_DELIMITED = (ParserType.CSV, ParserType.PSV, ParserType.TSV)
# For each byte that a file may expand to. An empty value in a column of decimals is one comma, and 16 bytes in a table.
_MOST_TABLE_BYTES = 20
# In these formats every value is text, from which types are inferred.
_TEXTS = (*_DELIMITED, ParserType.XML)


def parse(
    path: Path,
    name: str,
    parser_type: ParserType,
    config: ParserConfig,
    check: Check = no_check,
    *,
    may_be_empty: bool = False,
) -> Parsed:
    """Count and validate the rows of a file, in memory that does not grow with it.

    `name` shows the compression, and `check` is called regularly, to raise when parsing takes too long. With
    `may_be_empty`, an empty file has no rows in every format. Raises `FetchFailure` of category PARSE for a file that
    does not parse, or SOURCE for one that is another document, and `OSError` if the disk fails.
    """
    counter, extremes = RowCounter(config), Extremes()
    file = _file(path, name, config, check)
    with parse_failures(name):
        if may_be_empty and is_empty(file):
            return NO_ROWS
        check_document(file, parser_type, config)
        for batch in _batches(file, parser_type, counter, whole=False):
            extremes.add(batch)
        if parser_type in _DELIMITED:
            check_message(counter)
        return replace(counter.result(), extremes=extremes.described())


def shows_encoding(path: Path, name: str, kind: ParserType, config: ParserConfig) -> bool:
    """Whether a document shows its own encoding, so that what a server says of it does not count.

    JSON is always UTF-8 (RFC 8259, section 8.1), and XML may declare its encoding.
    """
    if kind is not ParserType.XML:
        return kind in (ParserType.JSON, ParserType.JSONL)
    with suppress(ParseError), content_of(_file(path, name, config)) as content:
        return declares_encoding(content)
    return False


def _file(path: Path, name: str, config: ParserConfig, check: Check = no_check) -> File:
    return File(path, name, config.max_expanded_bytes, check, config.archive_member)


@dataclass(frozen=True)
class FileToParse:
    """A file and how it is parsed; the fields are the arguments of `parse`."""

    path: Path
    name: str
    parser_type: ParserType
    config: ParserConfig


def write_table(files: Sequence[FileToParse], output: Path) -> None:
    """Write the valid rows of files, in order, as one table into an Arrow file, in memory that does not grow with them.

    A column that a file does not have is null there. Formats and encodings may differ. An empty file among several has
    no rows.

    Columns have the types in `config.columns`. Other columns of delimited text and XML become integers, numbers,
    decimals, booleans, dates or timestamps if these hold all values exactly, else strings; those of JSON and Parquet
    keep their types, and nested JSON becomes a string of JSON. If formats are mixed, the type is inferred from all
    strings of a column. Raises `FetchFailure` as `parse` does, also for a table that is far larger than the files.
    """
    names: dict[str, None] = {}
    types: dict[str, ColumnType] = {}
    with batch_file(output.parent) as batches:
        for one in files:
            file = _file(one.path, one.name, one.config)
            counter = RowCounter(one.config)
            with parse_failures(one.name):
                if len(files) > 1 and is_empty(file):
                    continue
                batches.limit += _MOST_TABLE_BYTES * file.expansion_limit
                for batch in _batches(file, one.parser_type, counter, whole=True):
                    batches.append(batch)
                counter.result()
            names |= counter.columns
            types |= one.config.columns or {}
        inferred = any(one.parser_type in _TEXTS for one in files)
        with parse_failures(files[-1].name if files else ""):
            columns = TableColumns(batches.read(), names, types, inferred=inferred)
            write_batches(output, columns.schema, batches.released(columns.batches()), batches.limit)


def _batches(file: File, kind: ParserType, counter: RowCounter, *, whole: bool) -> Iterator[pa.RecordBatch]:
    """The valid rows of a file, counted in `counter`; JSON and XML make batches only if `whole`."""
    config = counter.config
    if kind is ParserType.PARQUET:
        yield from read_parquet(file, counter)
        return
    if kind in _DELIMITED:
        yield from read_delimited(text_of(file, config), kind, config, counter, whole=whole)
        return
    with _records(file, kind, config) as records:
        for good in good_records(records, counter):
            if whole and good:
                yield batch_of(good, config.columns or {}, as_text=kind in _TEXTS)


@contextmanager
def _records(file: File, kind: ParserType, config: ParserConfig) -> Iterator[Iterator[Record]]:
    # XML shows its own encoding, which a configured one overrides.
    if kind is ParserType.XML and "encoding" not in config.model_fields_set:
        with content_of(file) as content:
            shown = encoding_to_transcode(content)
        if shown is None:
            with content_of(file) as content:
                yield read_xml(content, config, transcoded=False)
            return
        config = config.model_copy(update={"encoding": shown})
    open_text = text_of(file, config)
    names = names_at_path(open_text, config) if kind is ParserType.JSON else None
    with open_text() as text:
        if kind is ParserType.XML:
            yield read_xml(text, config, transcoded=True)
        else:
            yield read_json(text, config, names) if kind is ParserType.JSON else read_jsonl(text, config)
