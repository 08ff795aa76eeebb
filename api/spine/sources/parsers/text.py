"""The text of a file in any encoding, converted to UTF-8."""

import codecs
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from spine.sources.parsers.compression import CHUNK, File, Readable, content_of
from spine.sources.parsers.config import ParserConfig, is_utf8
from spine.sources.parsers.parse_errors import ParseError

LONGEST_LINE = 16 * 1024 * 1024
# The most bytes of UTF-8 for one byte of another encoding.
_MOST_GROWTH = 4
BYTE_ORDER_MARK = "\N{ZERO WIDTH NO-BREAK SPACE}"
# The mark of UTF-32 begins as that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_LONGEST_MARK = 4

# Opens the text of a file at its beginning; can be called repeatedly.
OpenText = Callable[[], AbstractContextManager[Readable]]


def text_of(file: File, config: ParserConfig) -> OpenText:
    """Opens the text of a file as UTF-8 without a byte-order mark, including the lines that `skip_rows` skips.

    A byte-order mark at the beginning shows the encoding, whichever is configured. Reading raises `ParseError`, which
    names the line, if the content is not in its encoding.
    """

    @contextmanager
    def opened() -> Iterator[Readable]:
        with content_of(file) as content:
            yield _Text(content, config.encoding, find_line)

    def find_line(encoding: str) -> int:
        with content_of(file) as content:
            return _first_wrong_line(content, encoding)

    return opened


def marked_encoding(head: bytes) -> tuple[str | None, bytes]:
    """The encoding that a byte-order mark at the beginning shows, None without one; and what follows the mark."""
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding, head[len(mark) :]
    return None, head


class _Text:
    def __init__(self, content: Readable, encoding: str, find_line: Callable[[str], int]) -> None:
        self._content = content
        self._encoding = encoding
        self._find_line = find_line
        self._decoder: codecs.IncrementalDecoder | None = None
        # What was read to find a mark, and not decoded yet.
        self._head = b""
        self._started = self._ended = False

    def read(self, size: int, /) -> bytes:
        decoder = self._decoder or self._begin(size)
        data = b""
        while not data and not self._ended:
            raw = self._raw(size)
            self._ended = not raw
            try:
                text = decoder.decode(raw, final=self._ended)
                data = raw if is_utf8(self._encoding) else self._without_mark(text).encode()
            except UnicodeError:
                raise ParseError(f"line {self._find_line(self._encoding):,} is not valid {self._encoding}") from None
        return data

    def _begin(self, size: int) -> codecs.IncrementalDecoder:
        head = b""
        while len(head) < _LONGEST_MARK and (more := self._content.read(min(size, CHUNK) // _MOST_GROWTH or 1)):
            head += more
        marked, self._head = marked_encoding(head)
        self._encoding = marked or self._encoding
        self._decoder = codecs.getincrementaldecoder("utf-8" if is_utf8(self._encoding) else self._encoding)()
        return self._decoder

    def _raw(self, size: int) -> bytes:
        most = size if is_utf8(self._encoding) else max(1, size // _MOST_GROWTH)
        if not self._head:
            return self._content.read(most)
        raw, self._head = self._head[:most], self._head[most:]
        return raw

    def _without_mark(self, text: str) -> str:
        marked = not self._started and text.startswith(BYTE_ORDER_MARK)
        self._started = self._started or bool(text)
        return text[1:] if marked else text


def _first_wrong_line(content: Readable, encoding: str) -> int:
    decoder = codecs.getincrementaldecoder("utf-8" if is_utf8(encoding) else encoding)()
    line, raw = 1, b"x"
    while raw:
        raw = content.read(CHUNK)
        try:
            text = decoder.decode(raw, final=not raw)
            text.encode()
            line += text.count("\n")
        except UnicodeDecodeError as error:
            return line + error.object[: error.start].decode(error.encoding, "ignore").count("\n")
        except UnicodeEncodeError as error:
            return line + error.object[: error.start].count("\n")
        except UnicodeError:
            return line
    return line
