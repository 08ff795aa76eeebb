"""Names of elements and attributes of XML, and of the columns that they become.

A name has a prefix if its namespace is not that of the row. Two names in a document never become one: where prefixes
do not keep them apart, the second has its namespace in braces.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from spine.sources.parsers.parse_errors import ParseError, excerpt
from spine.sources.parsers.row_counter import MOST_COLUMNS, check_lengths

# Separates the names in the path of a value; no name has it.
SEPARATOR = "\0"
ATTRIBUTE = "@"
PARENT = "^"
REPEATED = "[2..]"
_INSTANCE = "http://www.w3.org/2001/XMLSchema-instance"
_DATA_SERVICES = "http://schemas.microsoft.com/ado/2007/08/dataservices/metadata"
_XML = "http://www.w3.org/XML/1998/namespace"
_NULLS = ((_INSTANCE, "nil"), (_DATA_SERVICES, "null"))
_TRUE = ("true", "1")


@dataclass(frozen=True)
class Start:
    """The beginning of an element: its name in a path and as it is written, its attributes, and whether it is null."""

    label: str
    written: str
    attributes: tuple[tuple[str, str], ...] = ()
    is_null: bool = False


@dataclass
class Scope:
    """The namespaces of an element by their prefix, and the beginnings of elements in it, by namespace and name."""

    uris: Mapping[str, str]
    starts: dict[tuple[str, str], Start] = field(default_factory=dict)


class Names:
    """The names of one document."""

    def __init__(self, configured: Mapping[str, str] | None) -> None:
        self._configured = {uri: prefix for prefix, uri in (configured or {}).items()}
        # Of each namespace, the first prefix that no other had before.
        self._prefixes: dict[str, str] = {}
        self._uris = dict(configured or {})
        # Which name of which namespace each label is.
        self._owners: dict[str, tuple[str, str]] = {}
        self._scopes = [Scope({"xml": _XML})]
        # The namespace of the row.
        self.row_uri = ""

    def open(self, attributes: Iterable[tuple[str, str]]) -> None:
        """Begin an element, which can declare namespaces."""
        scope = self._scopes[-1]
        if attributes and (declared := {name[6:]: uri for name, uri in attributes if _declares(name)}):
            scope = Scope({**scope.uris, **declared})
        self._scopes.append(scope)

    def close(self) -> None:
        """End an element."""
        self._scopes.pop()

    def namespace(self, name: str) -> str:
        """The namespace of the element of this name; empty without one."""
        prefix = name.rpartition(":")[0]
        # A prefix without a declaration is a namespace of its own.
        return self._scopes[-1].uris.get(prefix, prefix)

    def start(self, name: str, attributes: Iterable[tuple[str, str]]) -> Start:
        """The beginning of an element in a row."""
        starts = self._scopes[-1].starts
        plain = starts.get((self.row_uri, name))
        if plain is None:
            plain = starts[self.row_uri, name] = Start(self._label(name, self.namespace(name)), name)
        if not attributes:
            return plain
        is_null, found = False, []
        for attribute, value in attributes:
            uri, local = self._attribute(attribute)
            if _means_null(attribute, uri, local):
                is_null = is_null or value.strip() in _TRUE
            elif uri != _INSTANCE and (uri, local) != (_DATA_SERVICES, "type") and not _declares(attribute):
                found.append((self._label_of_attribute(attribute, uri, local), value))
        return Start(plain.label, name, tuple(found), is_null)

    def _attribute(self, name: str) -> tuple[str, str]:
        prefix, _, local = name.rpartition(":")
        return self._scopes[-1].uris.get(prefix, prefix) if prefix else "", local

    def _label(self, name: str, uri: str) -> str:
        prefix, _, local = name.rpartition(":")
        if uri in self._configured:
            return self._owned(uri, local, self._configured[uri], _prefixed(self._configured[uri], local))
        return self._owned(uri, local, prefix, local if uri in ("", self.row_uri) else None)

    def _label_of_attribute(self, name: str, uri: str, local: str) -> str:
        if not uri:
            return local
        prefix = self._configured.get(uri) or name.rpartition(":")[0]
        return self._owned(uri, local, prefix, None)

    def _owned(self, uri: str, local: str, prefix: str, wanted: str | None) -> str:
        """The first label that this name has already, or that no other has."""
        if prefix and self._uris.setdefault(prefix, uri) == uri:
            self._prefixes.setdefault(uri, prefix)
        prefix = self._prefixes.get(uri, "")
        candidates = [wanted, f"{prefix}:{local}" if prefix else None, f"{{{uri}}}{local}"]
        return next(one for one in candidates if one and self._owners.setdefault(one, (uri, local)) == (uri, local))


def _prefixed(prefix: str, local: str) -> str:
    return f"{prefix}:{local}" if prefix else local


def _declares(attribute: str) -> bool:
    return attribute == "xmlns" or attribute.startswith("xmlns:")


def _means_null(attribute: str, uri: str, local: str) -> bool:
    return (uri, local) in _NULLS or attribute == "xsi:nil"


class Columns:
    """The names of columns by the path of their values. Raises `ParseError` if there are too many."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._paths: dict[str, str] = {}

    def name(self, path: str) -> str:
        """The name of the column for a path: its names, separated by dots."""
        known = self._names.get(path)
        if known is not None:
            return known
        if len(self._names) == MOST_COLUMNS:
            raise ParseError(f"it has more than {MOST_COLUMNS:,} columns")
        found = next((one for one in _possible(path) if self._paths.setdefault(one, path) == path), None)
        if found is None:
            raise ParseError(f"two different values have the path '{excerpt(_possible(path)[0])}'")
        check_lengths([found])
        self._names[path] = found
        return found


def _possible(path: str) -> tuple[str, str]:
    """The usual name of the column for a path, and the name if another value has that already."""
    # The path of the text of a row begins with the separator.
    *parents, last = path.removeprefix(SEPARATOR).split(SEPARATOR)
    if last.startswith(REPEATED):
        return f"{'.'.join(parents)}{REPEATED}", f"{'.'.join(parents)}.text(){REPEATED}"
    usual = ".".join([*parents, last.removeprefix(ATTRIBUTE).removeprefix(PARENT)])
    if last.startswith(ATTRIBUTE):
        return usual, ".".join([*parents, last])
    return usual, f"../{usual}" if last.startswith(PARENT) else f"{usual}.text()"
