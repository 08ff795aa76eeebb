"""JSON: an array of records, a list of them within an object, one record; and one record per line."""

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from spine.sources.parsers.compression import CHUNK, Readable
from spine.sources.parsers.config import ParserConfig
from spine.sources.parsers.parse_errors import BrokenFile, short
from spine.sources.parsers.records import BadRecord, Record
from spine.sources.parsers.text import LONGEST_LINE

_PIECE = 256 * 1024
_SPACE = re.compile(r"[ \t\r\n]*")


def _refuse(constant: str) -> NoReturn:
    # Python takes NaN and Infinity, which JSON does not know.
    raise ValueError(constant)


_decoder = json.JSONDecoder(parse_constant=_refuse)


def read_json(text: Readable, config: ParserConfig) -> Iterator[Record]:
    """The records of a document, numbered from 1; one that is an object is one record. Raises `BrokenFile`."""
    document = _Document(text)
    path = config.records_path.split(".") if config.records_path is not None else []
    first = document.peek()
    if path and first != "{":
        raise BrokenFile(f"records_path is {short(config.records_path or '')}, but the document is no object")
    if path:
        yield from _below(document, path)
    elif first == "[":
        yield from _elements(document)
    else:
        value, size = document.value()
        yield Record(1, value, size)
    document.end()


def _below(document: "_Document", path: list[str]) -> Iterator[Record]:
    met = False
    for name in _names(document):
        if name != path[0] or met:
            document.value()
            continue
        met = True
        first = document.peek()
        if first != ("{" if path[1:] else "["):
            raise BrokenFile(f"records_path leads to no {'object' if path[1:] else 'list'} at {short(name)}")
        yield from _below(document, path[1:]) if path[1:] else _elements(document)
    if not met:
        raise BrokenFile(f"records_path leads to nothing at {short(path[0])}")


def _names(document: "_Document") -> Iterator[str]:
    """The names of an object; whoever takes one takes its value before the next."""
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
    """A document of JSON, of which only the value that is being read is held."""

    def __init__(self, text: Readable) -> None:
        self._text = text
        self._decode = codecs.getincrementaldecoder("utf-8")()
        self._held = ""
        self._at = 0
        self._ended = False
        # The number of the record that is being read.
        self.record = 0

    def peek(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            found = _SPACE.match(self._held, self._at)
            self._at = found.end() if found else self._at
            if self._at < len(self._held):
                return self._held[self._at]
            if self._ended:
                return ""
            self._more(_PIECE)

    def take(self, char: str) -> None:
        """Take this character, which must be next."""
        if self.peek() != char:
            raise self.malformed()
        self._at += 1

    def end(self) -> None:
        """Nothing may follow."""
        if self.peek():
            raise BrokenFile("something follows the end of the JSON")

    def value(self) -> tuple[Any, int]:
        """Take a whole value; also about how many bytes it is."""
        self.peek()
        piece = _PIECE
        while True:
            try:
                value, end = _decoder.raw_decode(self._held, self._at)
            except RecursionError:
                raise BrokenFile(f"it is nested too deeply{self._where()}") from None
            except ValueError:
                end = None
            # A number may go on in the next piece.
            if end is not None and (end < len(self._held) or self._ended):
                size, self._at = end - self._at, end
                return value, size
            if self._ended:
                raise self.malformed()
            if len(self._held) - self._at > LONGEST_LINE:
                raise BrokenFile(f"a value is longer than {LONGEST_LINE // 2**20} MB or not well-formed{self._where()}")
            self._more(piece)
            # What was read is looked at again from its beginning, so it grows ever faster.
            piece *= 2

    def malformed(self) -> BrokenFile:
        """Why the next value cannot be read."""
        try:
            _decoder.raw_decode(self._held, self._at)
        except json.JSONDecodeError as error:
            if self._ended and (error.pos >= len(self._held.rstrip()) or error.msg.startswith("Unterminated")):
                return BrokenFile(f"the JSON ends early{self._where()}")
        except (ValueError, RecursionError):
            pass
        return BrokenFile(f"it is not well-formed JSON{self._where()}")

    def _where(self) -> str:
        return f", in record {self.record:,}" if self.record else ""

    def _more(self, size: int) -> None:
        raw = self._text.read(min(size, CHUNK))
        self._ended = not raw
        self._held, self._at = self._held[self._at :] + self._decode.decode(raw), 0


def read_jsonl(text: Readable, config: ParserConfig) -> Iterator[Record]:
    """The records of a file with one on each line, and where they begin. Raises `BrokenFile`."""
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
            raise BrokenFile(f"line {number:,} is longer than {LONGEST_LINE // 2**20} MB")
    if rest:
        yield number, rest


def _parsed(line: bytes) -> Any:
    try:
        return _decoder.decode(line.decode())
    except (ValueError, RecursionError):
        return BadRecord("is no JSON")
