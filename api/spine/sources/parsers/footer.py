"""The footer of delimited text: rows at its end that are no data, such as a count or the time of the file."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.compute as pc

from spine.sources.parsers.compression import CHUNK, Readable
from spine.sources.parsers.config import MOST_FOOTER_ROWS, ParserConfig
from spine.sources.parsers.csv_tokenizer import Dialect
from spine.sources.parsers.parse_errors import ParseError, excerpt, plural
from spine.sources.parsers.text import OpenText

# In bytes, and with empty lines between its rows.
_LONGEST_FOOTER = CHUNK
_COUNT = re.compile(rb"[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]{1,18}")


class TextBeforeFooter:
    """Opens a text without its footer, whose rows are in `rows` once the text was read to its end."""

    def __init__(self, text: OpenText, config: ParserConfig) -> None:
        self._text = text
        self._config = config
        self.rows: list[bytes] = []

    @contextmanager
    def __call__(self) -> Iterator[Readable]:
        """Open the text at its beginning."""
        with self._text() as stream:
            yield stream if _has_no_footer(self._config) else _BeforeFooter(stream, self)

    def taken_from(self, end: bytes, is_whole: bool) -> bytes:
        """The end of a text without the footer; `is_whole` if it is the whole text. Raises `ParseError`."""
        lines = end.splitlines(keepends=True)
        # From the last one.
        filled = [at for at in reversed(range(len(lines))) if lines[at].strip(b"\r\n")][: MOST_FOOTER_ROWS + 1]
        number = self._length([lines[at].strip(b"\r\n") for at in filled])
        if number and not is_whole and (number > len(filled) or filled[number - 1] == 0):
            raise ParseError(f"its footer is longer than {_LONGEST_FOOTER // 2**20} MB")
        if number > len(filled):
            raise ParseError(f"it has fewer rows than the {number:,} of its footer")
        first = filled[number - 1] if number else len(lines)
        self.rows = [lines[at].strip(b"\r\n") for at in reversed(filled[:number])]
        return b"".join(lines[:first])

    def _length(self, last_rows: list[bytes]) -> int:
        """How many of the last rows are the footer."""
        pattern, number = self._config.footer_pattern, self._config.skip_footer_rows
        if pattern is None:
            return number or 1
        texts = pa.array([row.decode("utf-8", "replace") for row in last_rows], pa.string())
        found = pc.match_substring_regex(texts, pattern).to_pylist()
        matching = next((at for at, matches in enumerate(found) if not matches), len(found))
        if matching < number:
            raise ParseError(f"not all of the last {plural(number, 'row')} match footer_pattern")
        if number == 0 and matching > MOST_FOOTER_ROWS:
            raise ParseError(f"more than {MOST_FOOTER_ROWS:,} rows at the end match footer_pattern")
        return number or matching

    def check(self, rows: int, dialect: Dialect) -> None:
        """Check the footer against the number of rows before it, invalid ones included. Raises `ParseError`."""
        by_pattern_alone = self._config.footer_pattern is not None and not self._config.skip_footer_rows
        if by_pattern_alone and rows == 0 and len(self.rows) > 1:
            raise ParseError(f"all of its {len(self.rows):,} rows match footer_pattern")
        field = self._config.footer_count_field
        if field is None:
            return
        if not self.rows:
            raise ParseError("it has no footer with a count: no row at its end matches footer_pattern")
        counts = [count for row in self.rows if (count := _count_in(dialect.split(row), field)) is not None]
        if len(counts) != 1:
            shown = excerpt(self.rows[-1].decode())
            raise ParseError(f"field {field:,} of its footer '{shown}' is not one count")
        if counts[0] != rows:
            raise ParseError(f"its footer counts {plural(counts[0], 'row')}, but it has {rows:,}")


def _has_no_footer(config: ParserConfig) -> bool:
    return not config.skip_footer_rows and config.footer_pattern is None and config.footer_count_field is None


def _count_in(fields: list[bytes], field: int) -> int | None:
    """The only number in a field, from 1."""
    found = _COUNT.findall(fields[field - 1]) if field <= len(fields) else []
    return int(found[0].replace(b",", b"")) if len(found) == 1 else None


class _BeforeFooter:
    """A text whose end is held back until it is known where the footer begins."""

    def __init__(self, text: Readable, opened: TextBeforeFooter) -> None:
        self._text = text
        self._opened = opened
        self._held = self._ready = b""
        self._is_whole = True
        self._ended = False

    def read(self, size: int, /) -> bytes:
        while not self._ready and not self._ended:
            data = self._text.read(CHUNK)
            self._ended = not data
            self._held += data
            if self._ended:
                self._ready = self._opened.taken_from(self._held, self._is_whole)
            elif len(self._held) > _LONGEST_FOOTER + CHUNK:
                self._is_whole = False
                self._ready, self._held = self._held[:-_LONGEST_FOOTER], self._held[-_LONGEST_FOOTER:]
        piece, self._ready = self._ready[:size], self._ready[size:]
        return piece
