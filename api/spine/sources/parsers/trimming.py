"""Delimited text without the spaces and tabs around its names and values."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from spine.sources.parsers.compression import CHUNK, Readable
from spine.sources.parsers.csv_tokenizer import Dialect
from spine.sources.parsers.text import LONGEST_LINE, OpenText

_LINE_END = re.compile(rb"\r\n|\r(?=.)|\n", re.DOTALL)


def trimmed(text: OpenText, dialect: Dialect, skip_rows: int) -> OpenText:
    """Opens a text without the space around its fields; the first `skip_rows` lines and quoted text stay as they are.

    The lines stay the same, so their numbers do too.
    """

    @contextmanager
    def opened() -> Iterator[Readable]:
        with text() as stream:
            yield _Trimmed(stream, dialect, skip_rows)

    return opened


class _Trimmed:
    def __init__(self, text: Readable, dialect: Dialect, skip_rows: int) -> None:
        self._text = text
        self._lines_to_skip = skip_rows
        self._dialect = dialect
        self._space = b" \t".replace(dialect.delimiter, b"")
        space, delimiter = re.escape(self._space), re.escape(dialect.delimiter)
        before, after = rb"(?:\A|(?<=[%s\r\n]))[%s]++" % (delimiter, space), rb"(?=[%s\r\n])" % delimiter
        self._around = re.compile(rb"%s|(?<![%s])[%s]++%s" % (before, space, space, after))
        self._before = re.compile(rb"[%s]*+" % space)
        self._after = re.compile(rb"[^%s\r\n]*+(%s|\r\n|\r(?=.)|\n)" % (delimiter, delimiter), re.DOTALL)
        self._held = self._ready = b""
        self._ended = False

    def read(self, size: int, /) -> bytes:
        while not self._ready and not self._ended:
            data = self._text.read(CHUNK)
            self._ended = not data
            # The last line may lack a line end.
            self._held += data or b"\n"
            self._ready = self._skipped() + self._fields()
            if self._ended:
                # What is left begins with a quote that is never closed.
                self._ready = (self._ready + self._held.lstrip(self._space))[:-1]
            elif not self._ready and len(self._held) > LONGEST_LINE:
                # A row that is too long is refused later.
                self._ready, self._held = self._held, b""
        piece, self._ready = self._ready[:size], self._ready[size:]
        return piece

    def _skipped(self) -> bytes:
        at = 0
        while self._lines_to_skip and (end := _LINE_END.search(self._held, at)):
            self._lines_to_skip, at = self._lines_to_skip - 1, end.end()
        return self._take(at)

    def _fields(self) -> bytes:
        if self._lines_to_skip:
            return b""
        if self._dialect.quote is None or self._dialect.quote not in self._held:
            # A CR at the very end may be half of a line end.
            end = max(self._held.rfind(b"\n"), self._held.rfind(b"\r", 0, -1)) + 1
            return self._around.sub(b"", self._take(end))
        parts, at = [], 0
        while found := self._field(at):
            begin, after = found
            parts += [self._held[begin : after.start(1)].rstrip(self._space), after[1]]
            at = after.end()
        self._take(at)
        return b"".join(parts)

    def _field(self, at: int) -> tuple[int, re.Match[bytes]] | None:
        """Where a field begins after its space, and its end with what follows it; None if it does not end here."""
        before = self._before.match(self._held, at)
        begin = before.end() if before else at
        quoted = self._dialect.quoted_end(self._held, begin)
        after = None if quoted is None else self._after.match(self._held, quoted)
        return (begin, after) if after else None

    def _take(self, end: int) -> bytes:
        taken, self._held = self._held[:end], self._held[end:]
        return taken
