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
_MARK = "\N{ZERO WIDTH NO-BREAK SPACE}"

# Opens the text of a file at its beginning; can be called repeatedly.
OpenText = Callable[[], AbstractContextManager[Readable]]


def text_of(file: File, config: ParserConfig) -> OpenText:
    """Opens the text of a file as UTF-8 without a byte-order mark, including the lines that `skip_rows` skips.

    Reading it raises `ParseError`, which names the line, if the content is not in the configured encoding.
    """

    @contextmanager
    def opened() -> Iterator[Readable]:
        with content_of(file) as content:
            yield _Text(content, config.encoding, find_line)

    def find_line() -> int:
        with content_of(file) as content:
            return _first_wrong_line(content, config.encoding)

    return opened


class _Text:
    def __init__(self, content: Readable, encoding: str, find_line: Callable[[], int]) -> None:
        self._content = content
        self._encoding = encoding
        self._find_line = find_line
        self._as_is = is_utf8(encoding)
        self._decoder = codecs.getincrementaldecoder("utf-8" if self._as_is else encoding)()
        self._started = self._ended = False

    def read(self, size: int, /) -> bytes:
        data = b""
        while not data and not self._ended:
            raw = self._raw(size)
            self._ended = not raw
            try:
                text = self._decoder.decode(raw, final=self._ended)
                data = raw if self._as_is else self._without_mark(text).encode()
            except UnicodeError:
                raise ParseError(f"line {self._find_line():,} is not valid {self._encoding}") from None
        return data

    def _raw(self, size: int) -> bytes:
        if not self._as_is:
            return self._content.read(max(1, size // _MOST_GROWTH))
        if self._started:
            return self._content.read(size)
        self._started = True
        head = b""
        while len(head) < len(codecs.BOM_UTF8) and (more := self._content.read(size)):
            head += more
        # A file may consist of its byte-order mark alone.
        return head.removeprefix(codecs.BOM_UTF8) or self._content.read(size)

    def _without_mark(self, text: str) -> str:
        marked = not self._started and text.startswith(_MARK)
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
