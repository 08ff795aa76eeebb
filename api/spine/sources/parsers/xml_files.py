"""XML: an element is a row; what it contains are columns. Document types and entities are refused."""

import codecs
import re
from collections.abc import Iterator
from xml.sax import SAXException

from defusedxml.common import DefusedXmlException
from defusedxml.expatreader import DefusedExpatParser

from spine.sources.parsers.compression import CHUNK, Readable
from spine.sources.parsers.config import ParserConfig
from spine.sources.parsers.parse_errors import ParseError
from spine.sources.parsers.records import Record
from spine.sources.parsers.text import LONGEST_LINE, marked_encoding
from spine.sources.parsers.xml_rows import Rows

# Expat rescans a token that does not end within a piece, so small pieces make long tokens slow.
_PIECE = CHUNK
_DECLARATION = re.compile(rb"<\?xml\s[^>]*\?>")
_ENCODING = re.compile(rb"<\?xml\s[^>]*?\sencoding\s*=\s*[\"']([A-Za-z0-9._-]{1,40})[\"']")
_LONGEST_DECLARATION = 1_000


def read_xml(text: Readable, config: ParserConfig, *, transcoded: bool) -> Iterator[Record]:
    """The rows of a document and the lines where they begin. Raises `ParseError`.

    Columns are named by path: `id` is an attribute or a child of the row, `author.name` an element in a child,
    `link.href` an attribute of a child. A name has a prefix (`dc:creator`, `xml:lang`) if its namespace is not that of
    the row. If a document has an attribute and a child of the same name, the child is `id.text()`, or the attribute is
    `@id` if a child came first. The text of the row itself has the name of the row.

    The first of several children of the same name has the columns of one child; the others are a list in JSON, in
    `author[2..]`. An element with text and elements side by side is one column with the XML in it.

    Text is as it is in the document, with its white space. An empty element is empty text. An absent one is null, and
    so is one with `xsi:nil` or `m:null`. Other attributes about types (`xsi:type`, `m:type`) are not columns.

    If `transcoded`, the text is UTF-8 whatever it declares.
    """
    parser = DefusedExpatParser(forbid_dtd=True)
    rows = Rows(config, parser.getLineNumber)
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
        rows.end()
    except DefusedXmlException:
        raise ParseError("it has a document type or entities, which are refused") from None
    except SAXException as error:
        line = getattr(error, "getLineNumber", lambda: None)() or 1
        raise ParseError(f"line {line:,} is not well-formed XML") from None
    except (ValueError, LookupError):
        raise ParseError("it declares an unknown or wrong encoding") from None
    yield from rows.take()


def encoding_to_transcode(content: Readable) -> str | None:
    """The encoding that a byte-order mark shows, else the declared one if Python reads it but the XML parser does not.

    The parser believes the declaration and not the mark.
    """
    head = content.read(_LONGEST_DECLARATION)
    marked, _ = marked_encoding(head)
    if marked is not None:
        return marked
    name = _declared_encoding(head)
    if name is None:
        return None
    try:
        # The parser reads UTF-8, UTF-16, and encodings with one byte for each character.
        is_known = len(bytes(range(256)).decode(name, "replace")) == 256
    except (LookupError, ValueError):
        return None
    return None if is_known or codecs.lookup(name).name.startswith("utf") else name


def declares_encoding(content: Readable) -> bool:
    """Whether a document begins with a declaration of its encoding."""
    return _declared_encoding(content.read(_LONGEST_DECLARATION)) is not None


def _declared_encoding(head: bytes) -> str | None:
    found = _ENCODING.match(head)
    return None if found is None else found[1].decode()


def _without_declaration(start: bytes) -> bytes:
    found = _DECLARATION.match(start)
    return start if found is None else b"\n" * found.group().count(b"\n") + start[found.end() :]
