"""XML: an element is a row; its children and attributes are columns. Document types and entities are refused."""

import re
from collections.abc import Callable, Iterator
from typing import Any
from xml.sax import SAXException
from xml.sax.handler import ContentHandler

from defusedxml.common import DefusedXmlException
from defusedxml.expatreader import DefusedExpatParser

from spine.sources.parsers.compression import CHUNK, Readable
from spine.sources.parsers.config import ParserConfig
from spine.sources.parsers.parse_errors import ParseError
from spine.sources.parsers.records import Record
from spine.sources.parsers.row_counter import check_lengths
from spine.sources.parsers.text import LONGEST_LINE

# Expat rescans a token that does not end within a piece, so small pieces make long tokens slow.
_PIECE = CHUNK
_DECLARATION = re.compile(rb"<\?xml\s[^>]*\?>")
_DEEPEST = 200
# The parser keeps all names of elements and attributes in memory.
_MOST_NAMES = 100_000


def read_xml(text: Readable, config: ParserConfig, *, transcoded: bool) -> Iterator[Record]:
    """The rows of a document and the lines where they begin. Raises `ParseError`.

    The columns of a row are the local names of its attributes and children. The value of a child is its whole text; the
    texts of children with the same name are joined by line ends. If `transcoded`, the text is UTF-8 whatever it
    declares.
    """
    parser = DefusedExpatParser(forbid_dtd=True)
    rows = _Rows(config.row_tag, parser.getLineNumber)
    parser.setContentHandler(rows)
    since, events = 0, -1
    try:
        while piece := text.read(_PIECE):
            events = rows.events
            parser.feed(_without_declaration(piece) if transcoded and not since and not events else piece)
            # Expat buffers an incomplete token, and `rows` an incomplete row.
            since = 0 if rows.found or (rows.events > events and not rows.in_row) else since + len(piece)
            if since > LONGEST_LINE:
                raise ParseError(f"the row at line {rows.line:,} is longer than {LONGEST_LINE // 2**20} MB")
            yield from rows.take()
        if events < 0:
            raise ParseError("it is empty, which is not XML")
        parser.close()
    except DefusedXmlException:
        raise ParseError("it has a document type or entities, which are refused") from None
    except SAXException as error:
        line = getattr(error, "getLineNumber", lambda: None)() or 1
        raise ParseError(f"line {line:,} is not well-formed XML") from None
    except (ValueError, LookupError):
        raise ParseError("it declares an unknown or wrong encoding") from None
    yield from rows.take()


def _without_declaration(start: bytes) -> bytes:
    found = _DECLARATION.match(start)
    return start if found is None else b"\n" * found.group().count(b"\n") + start[found.end() :]


def _local(name: str) -> str:
    return name.rpartition(":")[2]


class _Rows(ContentHandler):
    """Builds a record from each row; nothing outside of rows is kept."""

    def __init__(self, row_tag: str | None, where: Callable[[], int | None]) -> None:
        super().__init__()
        self.line = 1
        # The number of parser events so far.
        self.events = 0
        self._where = where
        self.found: list[Record] = []
        self._row_tag = row_tag
        self._depth = 0
        # The depth of the current row; 0 outside of rows.
        self._row_depth = 0
        # The values of the row by column; several are joined at its end, so that many take linear time.
        self._row: dict[str, list[str]] = {}
        self._text: list[str] = []
        self._names: set[str] = set()

    @property
    def in_row(self) -> bool:
        """Whether a row is being read."""
        return self._row_depth > 0

    def take(self) -> list[Record]:
        """The complete rows, which are then forgotten."""
        found, self.found = self.found, []
        return found

    def startElement(self, name: str, attrs: Any) -> None:
        self.events += 1
        self._depth += 1
        new = {name, *attrs.getNames()} - self._names
        check_lengths(new)
        self._names |= new
        if self._depth > _DEEPEST or len(self._names) > _MOST_NAMES:
            raise ParseError("it is nested too deeply" if self._depth > _DEEPEST else "it has too many different names")
        if not self._row_depth and self._is_row(name):
            self._row_depth = self._depth
            self.line = self._where() or 1
            self._row = {_local(key): [value] for key, value in attrs.items() if not key.startswith("xmlns")}
            self._text = []
        elif self._depth == self._row_depth + 1:
            self._text = []

    def endElement(self, name: str) -> None:
        self.events += 1
        if self._row_depth and self._depth == self._row_depth + 1:
            self._add(_local(name), "".join(self._text).strip())
            self._text = []
        elif self._depth == self._row_depth:
            value = "".join(self._text).strip()
            if value:
                self._add(_local(name), value)
            row = {name: "\n".join(values) for name, values in self._row.items()}
            self.found.append(Record(self.line, row, 100 + sum(map(len, row.values()))))
            self._row_depth = 0
        self._depth -= 1

    def characters(self, content: str) -> None:
        self.events += 1
        if self._row_depth:
            self._text.append(content)

    def _is_row(self, name: str) -> bool:
        if self._row_tag is None:
            return self._depth == 2
        return self._row_tag in (name, _local(name))

    def _add(self, name: str, value: str) -> None:
        self._row.setdefault(name, []).append(value)
