"""The text of a file as UTF-8, whatever its encoding."""

import codecs
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from spine.sources.parsers.compression import CHUNK, File, Readable, content_of
from spine.sources.parsers.config import ParserConfig, is_utf8
from spine.sources.parsers.parse_errors import BrokenFile

LONGEST_LINE = 16 * 1024 * 1024
# A character takes at most so many times more bytes in UTF-8 than in another encoding.
_MOST_GROWTH = 4
_MARK = "\N{ZERO WIDTH NO-BREAK SPACE}"

# Opens the text of a file from its beginning; it can be called again.
OpenText = Callable[[], AbstractContextManager[Readable]]


def text_of(file: File, config: ParserConfig) -> OpenText:
    """What opens the text of a file: UTF-8 without a byte-order mark, `skip_rows` not yet left out.

    Reading it raises `BrokenFile`, which names the line, where the content is not in the configured encoding.
    """

    @contextmanager
    def opened() -> Iterator[Readable]:
        with content_of(file) as content:
            yield _Text(content, config.encoding, where)

    def where() -> int:
        with content_of(file) as content:
            return _first_wrong_line(content, config.encoding)

    return opened


class _Text:
    def __init__(self, content: Readable, encoding: str, where: Callable[[], int]) -> None:
        self._content = content
        self._encoding = encoding
        self._where = where
        self._as_is = is_utf8(encoding)
        self._decoder = codecs.getincrementaldecoder("utf-8" if self._as_is else encoding)()
        self._begun = self._ended = False

    def read(self, size: int, /) -> bytes:
        data = b""
        while not data and not self._ended:
            raw = self._raw(size)
            self._ended = not raw
            try:
                text = self._decoder.decode(raw, final=self._ended)
                data = raw if self._as_is else self._unmarked(text).encode()
            except UnicodeError:
                raise BrokenFile(f"line {self._where():,} is not valid {self._encoding}") from None
        return data

    def _raw(self, size: int) -> bytes:
        if not self._as_is:
            return self._content.read(max(1, size // _MOST_GROWTH))
        if self._begun:
            return self._content.read(size)
        self._begun = True
        head = b""
        while len(head) < len(codecs.BOM_UTF8) and (more := self._content.read(size)):
            head += more
        # A file may be no more than its mark.
        return head.removeprefix(codecs.BOM_UTF8) or self._content.read(size)

    def _unmarked(self, text: str) -> str:
        marked = not self._begun and text.startswith(_MARK)
        self._begun = self._begun or bool(text)
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
