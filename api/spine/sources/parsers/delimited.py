"""Rows with a character between the fields: Arrow reads them, and what it cannot take is looked at again."""

import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from spine.sources.parsers.columns import InvalidValue, invalid_values
from spine.sources.parsers.compression import CHUNK
from spine.sources.parsers.config import ColumnType, ParserConfig, ParserType
from spine.sources.parsers.csv_tokenizer import Dialect, Rows
from spine.sources.parsers.parse_errors import ParseError, excerpt, plural
from spine.sources.parsers.row_counter import MOST_EXAMPLES, BadRow, RowCounter
from spine.sources.parsers.text import LONGEST_LINE, OpenText

_DELIMITERS = {ParserType.CSV: ",", ParserType.PSV: "|", ParserType.TSV: "\t"}


def dialect_of(kind: ParserType, config: ParserConfig) -> Dialect:
    """How the fields of files of a type are told apart."""
    delimiter = config.delimiter or _DELIMITERS[kind]
    quote = config.quote_char if config.quote_char != delimiter else None
    return Dialect(delimiter.encode(), quote.encode() if quote else None)


def read_delimited(
    text: OpenText, kind: ParserType, config: ParserConfig, counter: RowCounter, *, whole: bool
) -> Iterator[pa.RecordBatch]:
    """The good rows of a file as batches of text, counted in `counter`; all columns when `whole`, else those needed.

    Raises `ParseError`. The count is final only when the last batch was taken.
    """
    scan = _Scan(text, dialect_of(kind, config), config, counter, whole)
    done = 0
    # A line must fit into a block. Most files have short lines, which small blocks serve in less memory.
    for block in (CHUNK, LONGEST_LINE):
        try:
            for batch in scan.batches(block, skip=done):
                done += batch.num_rows
                yield batch
        except _LineTooLong:
            continue
        scan.find_examples()
        return
    scan.find_long_line()


class _LineTooLong(Exception):
    """A line does not fit into a block."""


class _Source:
    """What Arrow reads: the rest of the text, then a row that tells whether the text has ended outside of quotes."""

    closed = False

    def __init__(self, rows: Rows, last_row: bytes) -> None:
        self._head = rows.rest()
        self._text = rows.text
        self._last_row = b"\n" + last_row + b"\n"
        self.failure: BaseException | None = None

    def read(self, size: int = CHUNK) -> bytes:
        pieces = []
        while size > 0 and (piece := self._piece(size)):
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def _piece(self, size: int) -> bytes:
        if self._head:
            piece, self._head = self._head[:size], self._head[size:]
            return piece
        try:
            piece = self._text.read(size)
        except BaseException as failure:
            # Arrow may wrap it in an error of its own.
            self.failure = failure
            raise
        if not piece:
            piece, self._last_row = self._last_row, b""
        return piece

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self.closed = True


class _Scan:
    """One file, read by Arrow as often as it takes, and by us where Arrow does not tell enough."""

    def __init__(
        self, text: OpenText, dialect: Dialect, config: ParserConfig, counter: RowCounter, whole: bool
    ) -> None:
        self._text = text
        self._dialect = dialect
        self._config = config
        self._counter = counter
        self._whole = whole
        # The first rows with a wrong number of fields: the row's number, from 1 after the header, and what is wrong.
        self._misshapen: list[tuple[int, str]] = []
        # The first rows with a wrong value; they are numbered without the misshapen ones.
        self._unfitting: list[tuple[int, str]] = []
        self._seen = 0

    def batches(self, block: int, skip: int) -> Iterator[pa.RecordBatch]:
        """The good rows but for the first `skip`. Raises `_LineTooLong` when a line does not fit into a block."""
        self._start_again()
        with self._text() as stream:
            rows = Rows(stream, self._dialect)
            names = self._names(rows)
            if not names:
                return
            for batch in self._read(rows, names, block):
                good = self._good(batch)
                self._counter.rows += good.num_rows
                passed = min(skip, good.num_rows)
                skip -= passed
                yield good.slice(passed)

    def _start_again(self) -> None:
        self._counter.rows = self._counter.bad_rows = self._seen = 0
        self._misshapen.clear()
        self._unfitting.clear()

    def _names(self, rows: Rows) -> list[str]:
        """Take what is before the rows, and tell the columns; none in an empty file without a header."""
        rows.skip_lines(self._config.skip_rows)
        first = rows.next()
        if self._config.has_header:
            if first is None:
                raise ParseError("it has no header")
            names = [name.decode() for name in self._dialect.split(first[1])]
            self._check_names(names)
        else:
            names = list(self._config.columns or ())
            if first is not None:
                rows.put_back(*first)
                names = names or [f"column_{at}" for at, _ in enumerate(self._dialect.split(first[1]), start=1)]
        self._counter.add_columns(names)
        self._counter.check_columns()
        return names

    def _check_names(self, names: list[str]) -> None:
        if len(set(names)) < len(names):
            twice = next(name for at, name in enumerate(names) if name in names[:at])
            raise ParseError(f"two columns are named '{excerpt(twice)}'")
        other = next((char for char in "|\t;," if char in names[0]), None)
        if len(names) == 1 and other and self._config.delimiter is None:
            used = self._dialect.delimiter.decode()
            raise ParseError(f"the header has no {used!r} but {other!r}; set parser_type or delimiter to what it is")

    def _read(self, rows: Rows, names: list[str], block: int) -> Iterator[pa.RecordBatch]:
        # No text of a file can be the same as this.
        token = secrets.token_hex(16)
        last_row = token + self._dialect.delimiter.decode() * len(names)
        outside = False

        def misshapen(row: csv.InvalidRow) -> str:
            nonlocal outside
            if row.text == last_row:
                outside = True
            else:
                self._take_misshapen(row)
            return "skip"

        source = _Source(rows, last_row.encode())
        try:
            yield from csv.open_csv(pa.PythonFile(source, mode="r"), **self._options(names, block, misshapen))
        except pa.ArrowInvalid as error:
            if source.failure is not None:
                raise source.failure from None
            if "straddl" in str(error):
                raise _LineTooLong from None
            raise ParseError("its rows cannot be told apart") from None
        if not outside:
            self._find_endless_row()

    def _options(self, names: list[str], block: int, misshapen: Callable[[csv.InvalidRow], str]) -> dict[str, Any]:
        typed = self._config.columns or {}
        wanted = [name for name in names if self._whole or typed.get(name, ColumnType.STRING) is not ColumnType.STRING]
        quote = self._dialect.quote.decode() if self._dialect.quote else False
        return {
            # Only without threads are rows numbered.
            "read_options": csv.ReadOptions(column_names=names, block_size=block, use_threads=False),
            "parse_options": csv.ParseOptions(
                delimiter=self._dialect.delimiter.decode(),
                quote_char=quote,
                newlines_in_values=bool(quote),
                invalid_row_handler=misshapen,
            ),
            # What is read is valid UTF-8 already. Rows count only in a column that is read.
            "convert_options": csv.ConvertOptions(
                include_columns=wanted or names[:1],
                column_types=dict.fromkeys(names, pa.string()),
                strings_can_be_null=False,
                check_utf8=False,
            ),
        }

    def _take_misshapen(self, row: csv.InvalidRow) -> None:
        self._counter.bad_rows += 1
        if len(self._misshapen) < MOST_EXAMPLES:
            expected = (
                f"the header has {row.expected_columns:,}"
                if self._config.has_header
                else (f"{row.expected_columns:,} are expected")
            )
            self._misshapen.append((row.number, f"has {plural(row.actual_columns, 'field')}, {expected}"))

    def _good(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        texts = dict(zip(batch.schema.names, batch.columns, strict=True))
        found = invalid_values(texts, self._config.columns or {})
        for invalid in found[: MOST_EXAMPLES - len(self._unfitting)]:
            self._unfitting.append((self._seen + invalid.row + 1, invalid.reason))
        self._seen += batch.num_rows
        self._counter.bad_rows += len(found)
        return without_rows(batch, found)

    def find_examples(self) -> None:
        """Find the lines of the first bad rows, which Arrow does not tell."""
        wanted = sorted([*self._misshapen, *self._numbered()])[:MOST_EXAMPLES]
        if not wanted:
            return
        with self._text() as stream:
            rows, taken = Rows(stream, self._dialect), 0
            self._names(rows)
            for number, reason in wanted:
                rows.skip_rows(number - 1 - taken)
                found = rows.next()
                taken = number
                self._counter.examples.append(BadRow(found[0] if found else rows.line, reason))

    def _numbered(self) -> Iterator[tuple[int, str]]:
        """The rows with a wrong value, numbered among all rows.

        Only the first misshapen rows are known; a row beyond the last of them is numbered too low, but still beyond it.
        """
        for number, reason in self._unfitting:
            for misshapen, _ in self._misshapen:
                number += misshapen <= number
            yield number, reason

    def find_long_line(self) -> None:
        """Raise `ParseError` for the row that is too long."""
        self._find_endless_row()
        raise ParseError(f"a row is longer than {LONGEST_LINE // 2**20} MB")

    def _find_endless_row(self) -> None:
        with self._text() as stream:
            rows = Rows(stream, self._dialect)
            self._names(rows)
            while rows.next() is not None:
                pass


def without_rows(batch: pa.RecordBatch, found: list[InvalidValue]) -> pa.RecordBatch:
    """The batch without the rows that do not fit."""
    if not found:
        return batch
    bad = pa.array([invalid.row for invalid in found], pa.int64())
    rows = pa.array(range(batch.num_rows), pa.int64())
    return batch.filter(pc.invert(pc.is_in(rows, bad)))
