"""Records from the elements of a row."""

from collections.abc import Sequence
from html import escape

from spine.sources.parsers.json_values import json_text
from spine.sources.parsers.xml_names import ATTRIBUTE, REPEATED, SEPARATOR, Start

# In a row: the beginning of an element, text, and None at the end of an element.
Event = Start | str | None
# By path, relative to an element; that of its own text is empty.
_Values = dict[str, str | None]
_SPACE = " \t\r\n"


def values_of_row(events: Sequence[Event], row: Start) -> _Values:
    """The values within a row by their path, and the text of the row itself below its name.

    Of elements with the same name and parent, the second and all others are one value: a list in JSON. An element with
    text and elements side by side is one value: the XML in it.
    """
    opened = [_Element(row, 0)]
    at = 0
    while at < len(events):
        element, event = opened[-1], events[at]
        at += 1
        if isinstance(event, str):
            element.texts.append(event)
        elif event is None:
            opened.pop()
            opened[-1].add(element.start.label, element.values(events, at - 1))
        elif event.attributes or event.is_null or (length := _leaf_length(events, at)) is None:
            opened.append(_Element(event, at))
        else:
            text = events[at] if length == 2 else ""
            opened[-1].add(event.label, {"": text if isinstance(text, str) else ""})
            at += length
    return opened[0].values_of_row(events)


def _leaf_length(events: Sequence[Event], at: int) -> int | None:
    """The number of events to the end of an element that has text alone; None if it has more."""
    if events[at] is None:
        return 1
    return 2 if isinstance(events[at], str) and events[at + 1] is None else None


class _Element:
    """An element whose end was not read yet."""

    __slots__ = ("_begins_at", "_children", "_repeated", "_seen", "start", "texts")

    def __init__(self, start: Start, begins_at: int) -> None:
        self.start = start
        self.texts: list[str] = []
        self._begins_at = begins_at
        self._children: _Values = {}
        self._seen: set[str] = set()
        self._repeated: dict[str, list[str]] = {}

    def add(self, label: str, values: _Values) -> None:
        """Add the values of an element in this one."""
        if label in self._seen:
            self._repeated.setdefault(label, []).append(_as_json(values))
            return
        self._seen.add(label)
        for path, value in values.items():
            self._children[_joined(label, path)] = value

    def values(self, events: Sequence[Event], ends_at: int) -> _Values:
        """All values of the element."""
        text = "".join(self.texts)
        if not self._seen:
            own = None if self.start.is_null and not text else text
            is_without = own == "" and self.start.attributes
            return self._attributes() if is_without else self._attributes() | {"": own}
        if text.strip(_SPACE):
            return self._attributes() | {"": _xml(events[self._begins_at : ends_at])}
        return self._attributes() | self._all_children()

    def values_of_row(self, events: Sequence[Event]) -> _Values:
        """All values of the element, which is a row."""
        found = self._attributes() | self._all_children()
        text = "".join(self.texts)
        if text.strip(_SPACE):
            # The path of no child begins so.
            found[f"{SEPARATOR}{self.start.label}"] = _xml(events) if self._seen else text
        return found

    def _attributes(self) -> _Values:
        return {f"{ATTRIBUTE}{label}": value for label, value in self.start.attributes}

    def _all_children(self) -> _Values:
        for label, found in self._repeated.items():
            self._children[_joined(label, REPEATED)] = f"[{', '.join(found)}]"
        return self._children


def _joined(label: str, path: str) -> str:
    return f"{label}{SEPARATOR}{path}" if path else label


def _as_json(values: _Values) -> str:
    if list(values) == [""]:
        return json_text(values[""])
    named = {_named(path, "."): value for path, value in values.items()}
    # Names of elements can have dots.
    return json_text(named if len(named) == len(values) else {_named(path, "/"): one for path, one in values.items()})


def _named(path: str, separator: str) -> str:
    return path.replace(f"{SEPARATOR}{REPEATED}", REPEATED).replace(SEPARATOR, separator) or "text()"


def _xml(events: Sequence[Event]) -> str:
    """Events as XML, with the names as they are written."""
    pieces: list[str] = []
    opened: list[str] = []
    for event in events:
        if isinstance(event, str):
            pieces.append(escape(event, quote=False))
        elif event is None:
            pieces.append(f"</{opened.pop()}>")
        else:
            opened.append(event.written)
            attributes = [f' {label}="{escape(value)}"' for label, value in event.attributes]
            pieces.append(f"<{event.written}{''.join(attributes)}>")
    return "".join(pieces)
