"""Rows as answers: one that cannot be read is left out of a list, and is refused alone. Both name it."""

from collections.abc import Callable, Iterable
from typing import TypeVar

from spine.errors import Conflict
from spine.oddities import UNKNOWN_VALUE, make_each
from spine.tables.base import Base, unreadable_reason

Row = TypeVar("Row")
Made = TypeVar("Made")


def present_each(rows: Iterable[Row], present: Callable[[Row], Made], record_of: Callable[[Row], Base]) -> list[Made]:
    """`present` of each row of one table, without those that cannot be read."""
    readable = [row for row in rows if not record_of(row).unreadable_fields()]
    kind = record_of(readable[0]).record if readable else ""
    return make_each(kind, readable, present, lambda row: record_of(row).row_id())


def present_one(row: Base, present: Callable[[], Made]) -> Made:
    """`present()`, which shows one row. Raises `Conflict` that names a row that cannot be read."""
    refuse_unreadable(row)
    shown = make_each(row.record, [row], lambda _: present(), lambda one: one.row_id())
    if not shown:
        raise _refused(row, UNKNOWN_VALUE)
    return shown[0]


def refuse_unreadable(row: Base) -> None:
    """Raise `Conflict` for a row with a value that could not be read."""
    if fields := row.unreadable_fields():
        raise _refused(row, unreadable_reason(fields))


def _refused(row: Base, reason: str) -> Conflict:
    return Conflict(
        f"The {row.record} {row.row_id()} cannot be shown: {reason}. Correct the row in Spine's database, or delete it."
    )
