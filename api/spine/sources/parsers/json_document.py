"""A JSON document that is read value by value."""

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any

from spine.sources.parsers.compression import CHUNK, Readable
from spine.sources.parsers.json_values import Decoder, TooDeep, reason_for_twice
from spine.sources.parsers.parse_errors import ParseError, excerpt
from spine.sources.parsers.records import BadRecord, Record
from spine.sources.parsers.text import LONGEST_LINE

_PIECE = 256 * 1024
_SPACE = re.compile(r"[ \t\r\n]*")


def member_names(document: "Document") -> Iterator[str]:
    """The member names of an object; the caller must consume the value of each before the next."""
    document.take("{")
    if document.peek() != "}":
        while True:
            name, _ = document.value()
            if not isinstance(name, str):
                raise document.malformed()
            document.take(":")
            yield name
            if document.peek() != ",":
                break
            document.take(",")
    document.take("}")


def elements(document: "Document") -> Iterator[Record]:
    """The elements of a list as records."""
    document.take("[")
    if document.peek() != "]":
        while True:
            yield document.next_record()
            if document.peek() != ",":
                break
            document.take(",")
    document.take("]")


class Document:
    """A JSON document, of which only the current value is in memory."""

    def __init__(self, text: Readable) -> None:
        self._source = text
        self._decode = codecs.getincrementaldecoder("utf-8")()
        self._decoder = Decoder()
        self._text = ""
        self._at = 0
        self._ended = False
        # The number of the current record.
        self._record = 0

    def peek(self) -> str:
        """The next character that is not whitespace; empty at the end."""
        while True:
            found = _SPACE.match(self._text, self._at)
            self._at = found.end() if found else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if self._ended:
                return ""
            self._read_more(_PIECE)

    def take(self, char: str) -> None:
        """Consume this character. Raises `ParseError` if it is not next."""
        if self.peek() != char:
            raise self.malformed()
        self._at += 1

    def end(self) -> None:
        """Raise `ParseError` if anything follows."""
        if self.peek():
            raise ParseError("there is text after the end of the JSON")

    def next_record(self) -> Record:
        """Consume one value, which is a record."""
        self._record += 1
        value, size = self.value()
        if self._decoder.twice is not None:
            value = BadRecord(reason_for_twice(self._decoder.twice))
        return Record(self._record, value, size)

    def whole(self) -> Record:
        """The document, which is one record. Raises `ParseError` if an object has a field more than once."""
        value, size = self.value()
        if self._decoder.twice is not None:
            raise ParseError(f"it has the field '{excerpt(self._decoder.twice)}' twice in one object")
        return Record(1, value, size)

    def value(self) -> tuple[Any, int]:
        """Consume one value; also return its approximate size in bytes."""
        self.peek()
        piece = _PIECE
        while True:
            try:
                value, end = self._decoder.decode(self._text, self._at)
            except TooDeep:
                raise ParseError(f"it is nested too deeply{self._where()}") from None
            except ValueError:
                end = -1
            # A number may continue in the next piece.
            if end >= 0 and (end < len(self._text) or self._ended):
                size, self._at = end - self._at, end
                return value, size
            if self._ended:
                raise self.malformed()
            if len(self._text) - self._at > LONGEST_LINE:
                raise ParseError(f"a value is longer than {LONGEST_LINE // 2**20} MB or not well-formed{self._where()}")
            self._read_more(piece)
            # Each try decodes the value from its beginning, so pieces double in size.
            piece *= 2

    def malformed(self) -> ParseError:
        """The error for a value that cannot be decoded."""
        try:
            self._decoder.decode(self._text, self._at)
        except json.JSONDecodeError as error:
            if self._ended and (error.pos >= len(self._text.rstrip()) or error.msg.startswith("Unterminated")):
                return ParseError(f"the JSON ends early{self._where()}")
        except ValueError:
            pass
        return ParseError(f"it is not well-formed JSON{self._where()}")

    def _where(self) -> str:
        return f", in record {self._record:,}" if self._record else ""

    def _read_more(self, size: int) -> None:
        raw = self._source.read(min(size, CHUNK))
        self._ended = not raw
        self._text, self._at = self._text[self._at :] + self._decode.decode(raw), 0
