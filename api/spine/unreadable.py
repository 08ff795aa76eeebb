"""What a column gives when its row holds something else than the column's type.

Reading such a row must not fail: that would stop the statement, and with it all other rows. The value in its place is
of the right type, and is the one that grants and keeps the least: the beginning of 1970, zero, an empty list. Each row
that has such a value names itself when it is loaded: see `spine.tables.base`.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Boolean, DateTime, Dialect, Integer, LargeBinary, String, Uuid
from sqlalchemy.dialects.sqlite import DATETIME


class Unreadable:
    """Marks a value that is in the place of one that could not be read."""


class UnreadableTime(Unreadable, datetime):
    """In the place of a time: long past, so that what ends then has ended."""


class UnreadableUuid(Unreadable, UUID):
    """In the place of a UUID: the id of nothing."""


class UnreadableNumber(Unreadable, int):
    """In the place of a number, or of true and false: zero, or false."""


class UnreadableText(Unreadable, str):
    """In the place of a text: what can be read of it."""


class UnreadableBytes(Unreadable, bytes):
    """In the place of bytes: none."""


class UnreadableObject(Unreadable, dict[str, Any]):
    """In the place of a JSON object: an empty one."""


class UnreadableList(Unreadable, list[Any]):
    """In the place of a JSON array: an empty one."""


NO_TIME = UnreadableTime(1970, 1, 1, tzinfo=UTC)
NO_UUID = UnreadableUuid(int=0)
NO_NUMBER = UnreadableNumber(0)
NO_BYTES = UnreadableBytes()

Read = Callable[[Any], Any]


def read_text(stored: bytes) -> str:
    """Text as SQLite stores it, which can be any bytes."""
    try:
        return stored.decode()
    except UnicodeDecodeError:
        return UnreadableText(stored.decode(errors="replace"))


def _whole(stored: float) -> int:
    """A whole number; SQLite sums up a column as a float if one of its values is not a number."""
    number = int(stored)
    if number != stored:
        raise ValueError("not a whole number")
    return number


def _or(read: Read | None, instead: Any, types: type | tuple[type, ...] = object) -> Read:
    """`read`, with `instead` for what is not of these types or cannot be read."""

    def reading(stored: Any) -> Any:
        if stored is None:
            return None
        if not isinstance(stored, types):
            return instead
        try:
            return stored if read is None else read(stored)
        except (ValueError, TypeError, LookupError, AttributeError, OverflowError):
            return instead

    return reading


class _Time(DATETIME):
    def result_processor(self, dialect: Dialect, coltype: object) -> Read:
        return _or(super().result_processor(dialect, coltype), NO_TIME, str)


class _Uuid(Uuid[UUID]):
    def result_processor(self, dialect: Dialect, coltype: object) -> Read:
        read: Read | None = super().result_processor(dialect, coltype)  # type: ignore[no-untyped-call]
        return _or(read, NO_UUID, str)


class _Integer(Integer):
    def result_processor(self, dialect: Dialect, coltype: object) -> Read:
        return _or(_whole, NO_NUMBER, (int, float))


class _Boolean(Boolean):
    def result_processor(self, dialect: Dialect, coltype: object) -> Read:
        return _or({0: False, 1: True}.__getitem__, NO_NUMBER, int)


class _Bytes(LargeBinary):
    def result_processor(self, dialect: Dialect, coltype: object) -> Read:
        read: Read | None = super().result_processor(dialect, coltype)  # type: ignore[no-untyped-call]
        return _or(read, NO_BYTES, bytes)


class _Text(String):
    def result_processor(self, dialect: Dialect, coltype: object) -> Read:
        return lambda stored: read_text(stored) if isinstance(stored, bytes) else stored


# SQLite stores any value in any column.
SQLITE_TYPES = {
    DateTime: _Time,
    Uuid: _Uuid,
    Integer: _Integer,
    Boolean: _Boolean,
    LargeBinary: _Bytes,
    String: _Text,
}
