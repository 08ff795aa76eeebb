"""Finds the rows of an XML document."""

from collections.abc import Callable, Mapping
from typing import Any
from xml.sax.handler import ContentHandler

from spine.sources.parsers.config import ColumnType, ParserConfig
from spine.sources.parsers.parse_errors import ParseError, excerpt
from spine.sources.parsers.records import Record
from spine.sources.parsers.row_counter import check_lengths
from spine.sources.parsers.xml_names import PARENT, Columns, Names, Start
from spine.sources.parsers.xml_records import Event, values_of_row

_DEEPEST = 200
# The parser keeps all names of elements and attributes in memory.
_MOST_NAMES = 100_000
_ROW_BYTES = 100


class Rows(ContentHandler):
    """Builds a record from each row; nothing outside of rows is kept."""

    def __init__(self, config: ParserConfig, where: Callable[[], int | None]) -> None:
        super().__init__()
        self.line = 1
        # The number of parser events so far.
        self.events = 0
        self.found: list[Record] = []
        self._where = where
        self._tag = config.row_tag
        self._path = _path_of(config)
        self._found_parent = self._found_row = False
        self._open: list[str] = []
        # The depth of the current row; 0 outside of rows.
        self._row_depth = 0
        self._row = Start("", "")
        self._row_events: list[Event] = []
        self._text: list[str] = []
        self._parents = _Parents(config.parent_attributes or [])
        self._seen: set[str] = set()
        self._names = Names(config.namespaces)
        self._columns = Columns()
        self._typed = [name for name, kind in (config.columns or {}).items() if kind is not ColumnType.STRING]

    @property
    def in_row(self) -> bool:
        """Whether a row is being read."""
        return self._row_depth > 0

    def take(self) -> list[Record]:
        """The complete rows, which are then forgotten."""
        found, self.found = self.found, []
        return found

    def end(self) -> None:
        """Raise `ParseError` if the document has no place for the rows of `row_path`."""
        if self._path is not None and not self._found_row and (len(self._path) == 1 or not self._found_parent):
            raise ParseError(f"row_path was not found: {excerpt('/'.join(self._path))}")

    def startElement(self, name: str, attrs: Any) -> None:
        """Begin an element."""
        self.events += 1
        attributes = attrs.items()
        if name not in self._seen or attributes:
            self._check(name, attributes)
        if len(self._open) == _DEEPEST:
            raise ParseError("it is nested too deeply")
        self._open.append(name)
        self._names.open(attributes)
        if self._begins_row(name):
            self._begin_row(name, attributes)
        elif self._row_depth:
            self._end_text()
            self._row_events.append(self._names.start(name, attributes))
        if self._parents.wanted:
            self._parents.open.append(dict(attributes))

    def endElement(self, name: str) -> None:
        """End an element; at the end of a row its record is complete."""
        self.events += 1
        if self._row_depth:
            self._end_text()
            if len(self._open) == self._row_depth:
                self._end_row()
            else:
                self._row_events.append(None)
        if self._parents.wanted:
            self._parents.open.pop()
        self._names.close()
        self._open.pop()

    def characters(self, content: str) -> None:
        """Take text, or a part of it."""
        self.events += 1
        if self._row_depth:
            self._text.append(content)

    def _check(self, name: str, attributes: list[tuple[str, str]]) -> None:
        new = {name, *(attribute for attribute, _ in attributes)} - self._seen
        check_lengths(new)
        self._seen |= new
        if len(self._seen) > _MOST_NAMES:
            raise ParseError("it has too many different names")

    def _begins_row(self, name: str) -> bool:
        if self._tag is not None:
            # Of nested elements of the name, the innermost is the row.
            return _is_named(name, self._tag)
        if self._row_depth:
            return False
        if self._path is None:
            return len(self._open) == 2
        if len(self._open) not in (len(self._path) - 1, len(self._path)):
            return False
        if not all(_is_named(one, wanted) for one, wanted in zip(self._open, self._path, strict=False)):
            return False
        self._found_parent = True
        return len(self._open) == len(self._path)

    def _begin_row(self, name: str, attributes: list[tuple[str, str]]) -> None:
        self._row_depth = len(self._open)
        self.line = self._where() or 1
        self._names.row_uri = self._names.namespace(name)
        self._row, self._row_events, self._text = self._names.start(name, attributes), [], []

    def _end_text(self) -> None:
        if self._text:
            self._row_events.append("".join(self._text))
            self._text = []

    def _end_row(self) -> None:
        events, self._row_events, self._row_depth = self._row_events, [], 0
        values = values_of_row(events, self._row)
        if self._parents.wanted:
            values = self._parents.values() | values
        record = {self._columns.name(path): value for path, value in values.items()}
        size = sum(len(value) for value in record.values() if value is not None)
        for name in self._typed:
            # White space is a part of text alone.
            if (value := record.get(name)) is not None:
                record[name] = value.strip(" \t\r\n")
        self.found.append(Record(self.line, record, _ROW_BYTES + size))
        self._found_row = True


class _Parents:
    """The attributes of the open elements, as far as attributes of the elements around a row are wanted."""

    def __init__(self, wanted: list[str]) -> None:
        self.wanted = wanted
        self.open: list[Mapping[str, str]] = []

    def values(self) -> dict[str, str | None]:
        """The values for a row that ends now, by path; those of the nearest element that has the attribute."""
        around = self.open[-2::-1]
        return {
            f"{PARENT}{name}": next((element[name] for element in around if name in element), None)
            for name in self.wanted
        }


def _path_of(config: ParserConfig) -> list[str] | None:
    return config.row_path.removeprefix("/").split("/") if config.row_path is not None else None


def _is_named(name: str, wanted: str) -> bool:
    """Whether an element has the wanted name, which may be without its prefix."""
    return wanted in (name, name.rpartition(":")[2])
