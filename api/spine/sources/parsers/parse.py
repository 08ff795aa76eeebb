"""One way to read each kind of file, for counting its rows and for making a table of them."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from spine.sources.parsers.arrow import batch_of, table_of
from spine.sources.parsers.compression import Check, File, content_of, unchecked
from spine.sources.parsers.config import ColumnType, ParserConfig, ParserType
from spine.sources.parsers.delimited import read_delimited
from spine.sources.parsers.json_files import read_json, read_jsonl
from spine.sources.parsers.parquet_files import read_parquet
from spine.sources.parsers.parse_errors import failures_of
from spine.sources.parsers.records import Record, good_records
from spine.sources.parsers.row_counter import Parsed, Tally
from spine.sources.parsers.text import text_of
from spine.sources.parsers.xml_files import read_xml

_DELIMITED = (ParserType.CSV, ParserType.PSV, ParserType.TSV)
# Of these every value is text, and what it stands for is judged.
_TEXTS = (*_DELIMITED, ParserType.XML)


def parse(path: Path, name: str, parser_type: ParserType, config: ParserConfig, check: Check = unchecked) -> Parsed:
    """Count the rows of a file and check its shape, in memory that does not grow with it.

    `name` tells the compression, and `check` is called again and again, to raise when it takes too long. Raises
    `FetchFailure` of category PARSE for a file that does not parse, and `OSError` where the disk fails.
    """
    tally = Tally(config)
    with failures_of(name):
        for _ in _batches(File(path, name, config.max_expanded_bytes, check), parser_type, tally, whole=False):
            pass
        return tally.parsed()


def to_arrow(files: Iterable[tuple[Path, str, ParserType, ParserConfig]]) -> pa.Table:
    """The good rows of files, in their order, as one table; a column that a file does not have is null there.

    Each file is given as to `parse`, and may be of another type, or in another encoding.

    Columns are of the types in `config.columns`. Of the others, those of delimited text and XML are integers, numbers,
    booleans, dates or timestamps where all their values are, else strings; those of JSON and Parquet keep their types,
    and what JSON nests is a string of JSON. Where such files are mixed with text, strings of the same column are judged
    together. Raises `FetchFailure` as `parse` does.
    """
    batches: list[pa.RecordBatch] = []
    names: dict[str, None] = {}
    kinds: dict[str, ColumnType] = {}
    inferred = False
    last = ""
    for path, name, parser_type, config in files:
        tally = Tally(config)
        with failures_of(name):
            batches += _batches(File(path, name, config.max_expanded_bytes), parser_type, tally, whole=True)
            tally.parsed()
        names |= tally.columns
        kinds |= config.columns or {}
        inferred = inferred or parser_type in _TEXTS
        last = name
    with failures_of(last):
        return table_of(batches, names, kinds, inferred=inferred)


def _batches(file: File, kind: ParserType, tally: Tally, *, whole: bool) -> Iterator[pa.RecordBatch]:
    """The good rows of a file, counted in `tally`; of records there are no batches unless `whole`."""
    config = tally.config
    if kind is ParserType.PARQUET:
        yield from read_parquet(file, tally)
        return
    if kind in _DELIMITED:
        yield from read_delimited(text_of(file, config), kind, config, tally, whole=whole)
        return
    with _records(file, kind, config) as records:
        for good in good_records(records, tally):
            if whole and good:
                yield batch_of(good, config.columns or {}, as_text=kind in _TEXTS)


@contextmanager
def _records(file: File, kind: ParserType, config: ParserConfig) -> Iterator[Iterator[Record]]:
    # XML tells its own encoding, unless it was told from outside.
    if kind is ParserType.XML and "encoding" not in config.model_fields_set:
        with content_of(file) as content:
            yield read_xml(content, config, transcoded=False)
        return
    with text_of(file, config)() as text:
        if kind is ParserType.XML:
            yield read_xml(text, config, transcoded=True)
        else:
            yield read_json(text, config) if kind is ParserType.JSON else read_jsonl(text, config)
