"""Values of JSON as they are written: numbers keep their digits, and nothing in an object is lost.

A decoded integer is an `int`, and a number with a point or an exponent is `bytes`: its text. No number goes through a
float.
"""

import json
from collections.abc import Mapping
from json.encoder import encode_basestring_ascii
from typing import Any, NoReturn

from spine.sources.parsers.parse_errors import excerpt

# The deepest nesting of a value. Python's decoder fails at a depth that depends on the caller.
DEEPEST = 200


class TooDeep(ValueError):
    """A value is nested too deeply."""


class Decoder:
    """Decodes one value after another."""

    def __init__(self) -> None:
        # A field that an object of the last value has more than once.
        self.twice: str | None = None
        self._decoder = json.JSONDecoder(
            parse_constant=_refuse, parse_float=str.encode, object_pairs_hook=self._object_of
        )

    def decode(self, text: str, at: int) -> tuple[Any, int]:
        """The value that begins at an index, and the index after it. Raises `TooDeep`, or another `ValueError`."""
        self.twice = None
        try:
            value, end = self._decoder.raw_decode(text, at)
        except RecursionError:
            raise TooDeep from None
        if text.count("[", at, end) + text.count("{", at, end) > DEEPEST and _is_too_deep(value):
            raise TooDeep
        return value, end

    def _object_of(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            seen: set[str] = set()
            for name, _ in pairs:
                if name in seen:
                    self.twice = name
                seen.add(name)
        return found


def reason_for_twice(name: str) -> str:
    """Why a record is invalid in which an object has a field more than once."""
    return f"has the field '{excerpt(name)}' twice in one object"


def json_text(value: Any) -> str:
    """A decoded value as JSON, with every number as it was written."""
    if isinstance(value, str):
        return encode_basestring_ascii(value)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, dict):
        members = [f"{encode_basestring_ascii(name)}: {json_text(member)}" for name, member in value.items()]
        return f"{{{', '.join(members)}}}"
    if isinstance(value, list):
        return f"[{', '.join([json_text(element) for element in value])}]"
    if value is None:
        return "null"
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def flattened(record: Mapping[str, Any]) -> dict[str, Any] | str:
    """The fields of a record and of the objects in it, by their path; or the name that two of them have.

    Lists and empty objects stay values.
    """
    found: dict[str, Any] = {}
    pending = [iter(record.items())]
    prefixes = [""]
    while pending:
        field = next(pending[-1], None)
        if field is None:
            pending.pop()
            prefixes.pop()
            continue
        name, value = f"{prefixes[-1]}{field[0]}", field[1]
        if isinstance(value, dict) and value:
            pending.append(iter(value.items()))
            prefixes.append(f"{name}.")
        elif name in found:
            return name
        else:
            found[name] = value
    return found


def _refuse(constant: str) -> NoReturn:
    # Python accepts NaN and Infinity, which are not JSON.
    raise ValueError(constant)


def _is_too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(DEEPEST):
        level = [inner for one in level if isinstance(one, (dict, list)) for inner in _inside(one)]
        if not level:
            return False
    return any(isinstance(one, (dict, list)) for one in level)


def _inside(value: dict[str, Any] | list[Any]) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value
