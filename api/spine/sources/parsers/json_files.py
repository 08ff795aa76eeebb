"""JSON: an array of records, a list of records within an object, or one record; and JSON Lines."""

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from spine.sources.parsers.compression import CHUNK, Readable
from spine.sources.parsers.config import ParserConfig
from spine.sources.parsers.parse_errors import ParseError, excerpt
from spine.sources.parsers.records import BadRecord, Record
from spine.sources.parsers.text import LONGEST_LINE

_PIECE = 256 * 1024
_SPACE = re.compile(r"[ \t\r\n]*")


def _refuse(constant: str) -> NoReturn:
    # Python accepts NaN and Infinity, which are not JSON.
    raise ValueError(constant)


_decoder = json.JSONDecoder(parse_constant=_refuse)


def read_json(text: Readable, config: ParserConfig) -> Iterator[Record]:
    """The records of a document, numbered from 1; a top-level object is one record. Raises `ParseError`."""
    document = _Document(text)
    path = config.records_path.split(".") if config.records_path is not None else []
    first = document.peek()
    if path and first != "{":
        raise ParseError(f"records_path is {excerpt(config.records_path or '')}, but the document is not an object")
    if path:
        yield from _records_at(document, path)
    elif first == "[":
        yield from _elements(document)
    else:
        value, size = document.value()
        yield Record(1, value, size)
    document.end()


def _records_at(document: "_Document", path: list[str]) -> Iterator[Record]:
    found = False
    for name in _member_names(document):
        if name != path[0] or found:
            document.value()
            continue
        found = True
        first = document.peek()
        if first != ("{" if path[1:] else "["):
            raise ParseError(
                f"records_path does not lead to {'an object' if path[1:] else 'a list'} at {excerpt(name)}"
            )
        yield from _records_at(document, path[1:]) if path[1:] else _elements(document)
    if not found:
        raise ParseError(f"records_path does not lead to a list: {excerpt(path[0])} was not found")


def _member_names(document: "_Document") -> Iterator[str]:
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


def _elements(document: "_Document") -> Iterator[Record]:
    document.take("[")
    if document.peek() != "]":
        while True:
            document.record += 1
            value, size = document.value()
            yield Record(document.record, value, size)
            if document.peek() != ",":
                break
            document.take(",")
    document.take("]")


class _Document:
    """A JSON document, of which only the current value is in memory."""

    def __init__(self, text: Readable) -> None:
        self._source = text
        self._decode = codecs.getincrementaldecoder("utf-8")()
        self._text = ""
        self._at = 0
        self._ended = False
        # The number of the current record.
        self.record = 0

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

    def value(self) -> tuple[Any, int]:
        """Consume one value; also return its approximate size in bytes."""
        self.peek()
        piece = _PIECE
        while True:
            try:
                value, end = _decoder.raw_decode(self._text, self._at)
            except RecursionError:
                raise ParseError(f"it is nested too deeply{self._where()}") from None
            except ValueError:
                end = None
            # A number may continue in the next piece.
            if end is not None and (end < len(self._text) or self._ended):
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
            _decoder.raw_decode(self._text, self._at)
        except json.JSONDecodeError as error:
            if self._ended and (error.pos >= len(self._text.rstrip()) or error.msg.startswith("Unterminated")):
                return ParseError(f"the JSON ends early{self._where()}")
        except (ValueError, RecursionError):
            pass
        return ParseError(f"it is not well-formed JSON{self._where()}")

    def _where(self) -> str:
        return f", in record {self.record:,}" if self.record else ""

    def _read_more(self, size: int) -> None:
        raw = self._source.read(min(size, CHUNK))
        self._ended = not raw
        self._text, self._at = self._text[self._at :] + self._decode.decode(raw), 0


def read_jsonl(text: Readable, config: ParserConfig) -> Iterator[Record]:
    """The records of a file with one per line, and their line numbers. Raises `ParseError`."""
    for number, line in _lines(text):
        if number > config.skip_rows and not line.isspace():
            yield Record(number, _parsed(line), len(line))


def _lines(text: Readable) -> Iterator[tuple[int, bytes]]:
    number, rest = 1, b""
    while data := text.read(CHUNK):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if line:
                yield number, line
            number += 1
        if len(rest) > LONGEST_LINE:
            raise ParseError(f"line {number:,} is longer than {LONGEST_LINE // 2**20} MB")
    if rest:
        yield number, rest


def _parsed(line: bytes) -> Any:
    try:
        return _decoder.decode(line.decode())
    except (ValueError, RecursionError):
        return BadRecord("is not valid JSON")
