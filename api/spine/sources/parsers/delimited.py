"""Delimited text: Arrow reads the rows. Files with invalid rows are read again to find the lines of these rows."""

import secrets
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
from pyarrow import csv

from spine.sources.parsers.columns import invalid_values, without_rows
from spine.sources.parsers.compression import CHUNK
from spine.sources.parsers.config import ColumnType, ParserConfig, ParserType
from spine.sources.parsers.csv_tokenizer import Dialect, LineCount, Rows
from spine.sources.parsers.footer import TextBeforeFooter
from spine.sources.parsers.parse_errors import ParseError, excerpt, plural
from spine.sources.parsers.row_counter import MOST_EXAMPLES, BadRow, RowCounter
from spine.sources.parsers.text import BYTE_ORDER_MARK, LONGEST_LINE, OpenText
from spine.sources.parsers.trimming import trimmed

_DELIMITERS = {ParserType.CSV: ",", ParserType.PSV: "|", ParserType.TSV: "\t"}


def dialect_of(kind: ParserType, config: ParserConfig) -> Dialect:
    """The delimiter and quote character for a format and its configuration."""
    delimiter = config.delimiter or _DELIMITERS[kind]
    quote = config.quote_char if config.quote_char != delimiter else None
    return Dialect(delimiter.encode(), quote.encode() if quote else None)


def read_delimited(
    text: OpenText, kind: ParserType, config: ParserConfig, counter: RowCounter, *, whole: bool
) -> Iterator[pa.RecordBatch]:
    """The valid rows of a file as batches of text, counted in `counter`; all columns if `whole`, else those needed.

    Raises `ParseError`. The count is final only after the last batch.
    """
    dialect = dialect_of(kind, config)
    before_footer = TextBeforeFooter(trimmed(text, dialect, config.skip_rows) if config.trim else text, config)
    file = _File(before_footer, dialect, config, counter, whole)
    done = 0
    # A line must fit into a block. Most files have short lines, for which small blocks need less memory.
    for block in (CHUNK, LONGEST_LINE):
        try:
            for batch in file.batches(block, skip=done):
                done += batch.num_rows
                yield batch
        except _LineTooLong:
            continue
        before_footer.check(counter.rows + counter.bad_rows, dialect)
        file.locate_examples()
        return
    file.raise_for_long_line()


def _check_characters(first_row: bytes) -> None:
    """Raise `ParseError` for UTF-16 that was read as another encoding: each of its characters has a NUL."""
    nuls = first_row.count(b"\0")
    if nuls > 1 and nuls * 3 >= len(first_row):
        raise ParseError("a third of its first row are NULs; set encoding to that of the file, such as utf-16-le")


class _LineTooLong(Exception):
    """A line does not fit into a block."""


class _ArrowInput:
    """The input of Arrow: the rest of the text, then a row that shows whether the text ended outside quotes."""

    closed = False

    def __init__(self, rows: Rows, last_row: bytes) -> None:
        self._head = rows.rest()
        self._text = rows.text
        self._last_row = b"\n" + last_row + b"\n"
        self.line_count = LineCount()
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
            self.line_count.add(piece)
            return piece
        try:
            piece = self._text.read(size)
        except BaseException as failure:
            # Arrow may wrap it in another error.
            self.failure = failure
            raise
        self.line_count.add(piece)
        if not piece:
            piece, self._last_row = self._last_row, b""
        return piece

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self.closed = True


class _File:
    """One file. Arrow reads it; `Rows` finds what Arrow does not report."""

    def __init__(
        self, text: OpenText, dialect: Dialect, config: ParserConfig, counter: RowCounter, whole: bool
    ) -> None:
        self._text = text
        self._dialect = dialect
        self._config = config
        self._counter = counter
        self._whole = whole
        # The first rows with a wrong number of fields: the row number, from 1 after the header, and the reason.
        self._wrong_width: list[tuple[int, str]] = []
        # The first rows with an invalid value; their numbers do not count rows of a wrong width.
        self._wrong_values: list[tuple[int, str]] = []
        self._seen = 0
        # The lines from the first row on.
        self._lines = 0

    def batches(self, block: int, skip: int) -> Iterator[pa.RecordBatch]:
        """The valid rows except for the first `skip`. Raises `_LineTooLong` if a line does not fit into a block."""
        self._start_again()
        with self._text() as stream:
            rows = Rows(stream, self._dialect)
            names = self._names(rows)
            if not names:
                return
            for batch in self._read(rows, names, block):
                good = self._valid_rows(batch)
                self._counter.rows += good.num_rows
                passed = min(skip, good.num_rows)
                skip -= passed
                yield good.slice(passed)

    def _start_again(self) -> None:
        self._counter.rows = self._counter.bad_rows = self._seen = 0
        self._wrong_width.clear()
        self._wrong_values.clear()

    def _names(self, rows: Rows) -> list[str]:
        """Skip the lines before the rows, and return the column names; none for an empty file without a header."""
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
                _check_characters(first[1])
                rows.put_back(*first)
                names = names or [f"column_{at}" for at, _ in enumerate(self._dialect.split(first[1]), start=1)]
        self._counter.add_columns(names)
        self._counter.check_columns()
        return names

    def _check_names(self, names: list[str]) -> None:
        if any(BYTE_ORDER_MARK in name for name in names):
            raise ParseError("the name of a column contains a byte-order mark")
        if any("\0" in name for name in names):
            raise ParseError("the name of a column contains a NUL; set encoding to that of the file, such as utf-16-le")
        if names[0].lower().startswith("sep="):
            raise ParseError("its first line names the delimiter; set skip_rows to 1, and delimiter")
        if len(set(names)) < len(names):
            twice = next(name for at, name in enumerate(names) if name in names[:at])
            raise ParseError(f"two columns are named '{excerpt(twice)}'")
        other = next((char for char in "|\t;," if char in names[0]), None)
        if len(names) == 1 and other and self._config.delimiter is None:
            used = self._dialect.delimiter.decode()
            raise ParseError(f"the header has no {used!r} but {other!r}; set parser_type or delimiter accordingly")

    def _read(self, rows: Rows, names: list[str], block: int) -> Iterator[pa.RecordBatch]:
        # A random value, which does not occur in the file.
        token = secrets.token_hex(16)
        last_row = token + self._dialect.delimiter.decode() * len(names)
        outside = False

        def wrong_width(row: csv.InvalidRow) -> str:
            nonlocal outside
            if row.text == last_row:
                outside = True
            else:
                self._add_wrong_width(row)
            return "skip"

        source = _ArrowInput(rows, last_row.encode())
        try:
            yield from csv.open_csv(pa.PythonFile(source, mode="r"), **self._options(names, block, wrong_width))
        except pa.ArrowInvalid as error:
            if source.failure is not None:
                raise source.failure from None
            if "straddl" in str(error):
                raise _LineTooLong from None
            raise ParseError("it cannot be split into rows") from None
        if not outside:
            self._raise_for_endless_row()
        self._lines = source.line_count.lines

    def _options(self, names: list[str], block: int, wrong_width: Callable[[csv.InvalidRow], str]) -> dict[str, Any]:
        typed = self._config.columns or {}
        wanted = [name for name in names if self._whole or typed.get(name, ColumnType.STRING) is not ColumnType.STRING]
        quote = self._dialect.quote.decode() if self._dialect.quote else False
        return {
            # Arrow numbers rows only without threads.
            "read_options": csv.ReadOptions(column_names=names, block_size=block, use_threads=False),
            "parse_options": csv.ParseOptions(
                delimiter=self._dialect.delimiter.decode(),
                quote_char=quote,
                newlines_in_values=bool(quote),
                invalid_row_handler=wrong_width,
            ),
            # The text is known to be valid UTF-8. At least one column is needed to count rows.
            "convert_options": csv.ConvertOptions(
                include_columns=wanted or names[:1],
                column_types=dict.fromkeys(names, pa.string()),
                strings_can_be_null=False,
                check_utf8=False,
            ),
        }

    def _add_wrong_width(self, row: csv.InvalidRow) -> None:
        self._counter.bad_rows += 1
        if len(self._wrong_width) < MOST_EXAMPLES:
            expected = (
                f"the header has {row.expected_columns:,}"
                if self._config.has_header
                else (f"{row.expected_columns:,} are expected")
            )
            self._wrong_width.append((row.number, f"has {plural(row.actual_columns, 'field')}, {expected}"))

    def _valid_rows(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        texts = dict(zip(batch.schema.names, batch.columns, strict=True))
        found = invalid_values(texts, self._config.columns or {})
        for invalid in found[: MOST_EXAMPLES - len(self._wrong_values)]:
            self._wrong_values.append((self._seen + invalid.row + 1, invalid.reason))
        self._seen += batch.num_rows
        self._counter.bad_rows += len(found)
        return without_rows(batch, found)

    def locate_examples(self) -> None:
        """Find the lines of the first invalid rows, which Arrow does not report."""
        wanted = sorted([*self._wrong_width, *self._numbered()])[:MOST_EXAMPLES]
        if not wanted:
            return
        with self._text() as stream:
            rows, taken = Rows(stream, self._dialect), 0
            self._names(rows)
            if self._lines == self._counter.rows + self._counter.bad_rows:
                # Each row is one line: there are neither blank lines nor line ends in values.
                self._counter.examples += [BadRow(rows.line + number - 1, reason) for number, reason in wanted]
                return
            for number, reason in wanted:
                rows.skip_rows(number - 1 - taken)
                found = rows.next()
                taken = number
                self._counter.examples.append(BadRow(found[0] if found else rows.line, reason))

    def _numbered(self) -> Iterator[tuple[int, str]]:
        """The rows with an invalid value, numbered among all rows.

        Only the first rows of a wrong width are known. A row after the last of them can get a number that is too low,
        but its number is still higher than the number of that last row.
        """
        for number, reason in self._wrong_values:
            for wrong_width, _ in self._wrong_width:
                number += wrong_width <= number
            yield number, reason

    def raise_for_long_line(self) -> None:
        """Raise `ParseError` for the row that is too long."""
        self._raise_for_endless_row()
        raise ParseError(f"a row is longer than {LONGEST_LINE // 2**20} MB")

    def _raise_for_endless_row(self) -> None:
        with self._text() as stream:
            rows = Rows(stream, self._dialect)
            self._names(rows)
            rows.skip_rows(sys.maxsize)
