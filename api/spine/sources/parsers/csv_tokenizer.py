"""Splits delimited text into rows as Arrow does, and finds the line at which each row begins, which Arrow does not
report.

A quote opens a quoted value only at the beginning of a field. In a quoted value, a doubled quote is one quote. Text
after the closing quote belongs to the field. Empty lines are not rows. Lines end with LF, CRLF or CR.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from spine.sources.parsers.compression import CHUNK, Readable
from spine.sources.parsers.parse_errors import ParseError
from spine.sources.parsers.text import LONGEST_LINE

_Ends = Callable[[bytes, int], int | None]
_LINE_END = re.compile(rb"\r\n|\r|\n")
# One match skips this many rows: 2.4 million rows a second instead of 0.9 million with one match for each row.
_MANY = 100
# A repetition in a regular expression keeps some hundred bytes of memory for each time, so those here are limited. A
# row with more of them is split field by field.
_MOST_FIELDS = 1_000
_MOST_QUOTES = 100


@dataclass(frozen=True)
class Dialect:
    """The delimiter and the quote character, which may be None; each is one byte."""

    delimiter: bytes
    quote: bytes | None

    @property
    def row(self) -> re.Pattern[bytes]:
        """The regular expression of most rows with their line ends; it has one way only to match a text.

        It has no possessive groups: before Python 3.11.5 these match what they should not.
        """
        delimiter = re.escape(self.delimiter)
        field = plain = rb"[^%s\r\n]*+" % delimiter
        if self.quote is not None:
            quote = re.escape(self.quote)
            # A field without its closing quote does not match, because the rest of it may be in the next block.
            inner = rb"[^%s]*+(?:%s%s[^%s]*+){0,%d}" % (quote, quote, quote, quote, _MOST_QUOTES)
            field = rb"(?:%s%s%s(?!%s)%s|(?!%s)%s)" % (quote, inner, quote, quote, plain, quote, plain)
        return re.compile(rb"%s(?:%s%s){0,%d}(?:\r\n|\r|\n)" % (field, delimiter, field, _MOST_FIELDS))

    @property
    def field_end(self) -> re.Pattern[bytes]:
        """The regular expression of what ends a field outside quotes: a delimiter or a line end."""
        return re.compile(rb"%s|\r\n|\r|\n" % re.escape(self.delimiter))

    def quoted_end(self, text: bytes, at: int) -> int | None:
        """Where the quoted part of the field at `at` ends: `at` itself if it has none, None if it is not closed."""
        if self.quote is None or not text.startswith(self.quote, at):
            return at
        while (at := text.find(self.quote, at + 1)) >= 0:
            if text[at + 1 : at + 2] != self.quote:
                return at + 1
            at += 1
        return None

    def split(self, row: bytes) -> list[bytes]:
        """The values of a row without its line end."""
        at, values = 0, []
        while True:
            quoted = self.quoted_end(row, at)
            end = row.find(self.delimiter, len(row) if quoted is None else quoted)
            value = row[at : end if end >= 0 else len(row)]
            values.append(self._unquoted(value, quoted - at) if quoted else value)
            if end < 0:
                return values
            at = end + 1

    def _unquoted(self, value: bytes, end: int) -> bytes:
        if self.quote is None or end == 0:
            return value
        return value[1 : end - 1].replace(self.quote * 2, self.quote) + value[end:]


@dataclass
class Rows:
    """The rows of a text from its beginning.

    `line` is the number, from 1, of the line after the rows that were taken.
    """

    text: Readable
    dialect: Dialect
    line: int = 1
    _held: bytes = b""
    _at: int = 0
    _ended: bool = False
    # Where the first field begins that is not known to end, from `_at` on; only of a row that is split field by field.
    _field_at: int = 0

    def __post_init__(self) -> None:
        self._row = self.dialect.row
        self._field_end = self.dialect.field_end
        self._many = re.compile(rb"(?:[\r\n]*+%s){%d}(?=.)" % (self._row.pattern, _MANY), re.DOTALL)

    def skip_lines(self, count: int) -> None:
        """Skip lines, whatever they contain."""
        for _ in range(count):
            end = self._find(_end_of_line)
            if end is None:
                return
            self._at = end
            self.line += 1

    def next(self) -> tuple[int, bytes] | None:
        """The next row: its line and its text without the line end; None at the end. Raises `ParseError`."""
        while (end := self._find(self._end_of_row)) is not None:
            line, row = self.line, self._held[self._at : end]
            self._at, self._field_at = end, 0
            self.line += len(_LINE_END.findall(row))
            if content := _without_end(row):
                return line, content
        if self._held[self._at :].strip(b"\r\n"):
            raise ParseError(f"a quote is opened in the row at line {self.line:,} and never closed{self._advice()}")
        return None

    def skip_rows(self, count: int) -> None:
        """Skip rows; blocks without quotes are skipped at once. Raises `ParseError`."""
        while count > 0:
            if (quick := self._skip_block(count)) is not None:
                count -= quick
                continue
            block = self._held
            while count >= _MANY and (many := self._many.match(block, self._at)) is not None:
                self.line += _line_ends_in(many.group())
                self._at = many.end()
                count -= _MANY
            while count > 0 and self._held is block:
                if self.next() is None:
                    return
                count -= 1

    def _skip_block(self, most: int) -> int | None:
        if self._at == len(self._held) and not self._ended:
            self._more()
        quote = self.dialect.quote
        end = self._held.rfind(b"\n") + 1
        if end <= self._at or (quote is not None and quote in self._held):
            return None
        lines = self._held[self._at : end].splitlines()
        rows = len(lines) - lines.count(b"")
        if rows > most:
            return None
        self._at = end
        self.line += len(lines)
        return rows

    def put_back(self, line: int, row: bytes) -> None:
        """Make a row that was taken the next one again."""
        self._held, self._at, self.line = row + b"\n" + self._held[self._at :], 0, line

    def rest(self) -> bytes:
        """The text that was read but not taken; the caller continues to read from `text`."""
        return self._held[self._at :]

    def _find(self, ends: _Ends) -> int | None:
        while True:
            end = ends(self._held, self._at)
            # A CR at the very end may be half of a line end.
            if end is not None and (self._ended or end < len(self._held) or self._held[-1:] != b"\r"):
                return end
            if self._ended:
                return None
            if len(self._held) - self._at > LONGEST_LINE:
                raise ParseError(self.too_long())
            self._more()

    def _end_of_row(self, text: bytes, at: int) -> int | None:
        """Where the row at `at` ends, with its line end; None if it does not end in this text."""
        if not self._field_at and (found := self._row.match(text, at)) is not None:
            return found.end()
        while (quoted := self.dialect.quoted_end(text, at + self._field_at)) is not None:
            found = self._field_end.search(text, quoted)
            if found is None:
                return None
            if found.group() != self.dialect.delimiter:
                return found.end()
            self._field_at = found.end() - at
        return None

    def _more(self) -> None:
        data = self.text.read(CHUNK)
        if not data:
            self._ended = True
            # The last line may lack a line end.
            data = b"\n"
        self._held, self._at = self._held[self._at :] + data, 0

    def too_long(self) -> str:
        """The reason to refuse the next row if it does not end within the limit."""
        limit = f"the row at line {self.line:,} is longer than {LONGEST_LINE // 2**20} MB"
        return limit if self.dialect.quote is None else f"{limit}, or a quote in it is never closed{self._advice()}"

    def _advice(self) -> str:
        return "; set quote_char to null for a file without quotes"


@dataclass
class LineCount:
    """Counts the lines of a text that is added in pieces, without blank lines at its end."""

    _ends: int = 0
    # The line ends after the last character that is none.
    _last_ends: int = 0
    _before: bytes = b""
    _has_text: bool = False

    def add(self, piece: bytes) -> None:
        """Count the line ends of the next piece."""
        if not piece:
            return
        text = piece.rstrip(b"\r\n")
        last = _line_ends_in(piece[len(text) :])
        # CR and LF in two pieces are one line end.
        halved = self._before == b"\r" and piece.startswith(b"\n")
        self._ends += _line_ends_in(text) + last - halved
        self._last_ends = last if text else self._last_ends + last - halved
        self._before = piece[-1:]
        self._has_text = self._has_text or bool(text)

    @property
    def lines(self) -> int:
        """The lines so far; the last one may lack its line end."""
        return self._ends - self._last_ends + self._has_text


def _end_of_line(text: bytes, at: int) -> int | None:
    found = _LINE_END.search(text, at)
    return None if found is None else found.end()


def _line_ends_in(text: bytes) -> int:
    return text.count(b"\n") + text.count(b"\r") - text.count(b"\r\n")


def _without_end(row: bytes) -> bytes:
    return row[:-2] if row.endswith(b"\r\n") else row[:-1]
