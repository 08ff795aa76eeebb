"""What all tables share: the declarative base, UTC times and ULIDs."""

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import JSON, DateTime, Dialect, MetaData, event, inspect
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import TypeDecorator
from ulid import ULID

from spine.database_clock import CLOCK
from spine.json_rule import presentable
from spine.oddities import ODDITIES
from spine.unreadable import Unreadable, UnreadableList, UnreadableObject


class Base(DeclarativeBase):
    """Base of all tables; the naming convention keeps constraint names equal on every database."""

    # What one row is, as a word for people.
    record: ClassVar[str]

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )

    def row_id(self) -> str:
        """The primary key as text."""
        return ":".join(str(part) for part in inspect(self).identity or ())

    def unreadable_fields(self) -> list[str]:
        """The fields whose stored values could not be read: see `spine.unreadable`."""
        return [name for name, value in self.__dict__.items() if isinstance(value, Unreadable)]


@event.listens_for(Base, "load", propagate=True)
@event.listens_for(Base, "refresh", propagate=True)
def _name_unreadable(row: Base, *_context: Any) -> None:
    if fields := row.unreadable_fields():
        ODDITIES.found(row.record, row.row_id(), unreadable_reason(fields))


def unreadable_reason(fields: list[str]) -> str:
    """Why a row is set aside."""
    return f"its {' and '.join(sorted(fields))} cannot be read"


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC time, which SQLite stores as naive UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert an aware time to UTC. Raises `ValueError` for a naive one."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive time cannot be stored")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return an aware time in UTC."""
        if value is None or isinstance(value, Unreadable):
            return value
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class FreeFormJson(TypeDecorator[Any]):
    """JSON whose keys Spine does not know; reads and writes only what every database and receiver accepts.

    SQLite has rows from before `spine.json_rule`, and details of internal alerts hold text of flows.
    """

    impl = JSON(none_as_null=True)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """Replace what cannot be stored."""
        return presentable(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """Replace what cannot be sent."""
        return presentable(value) if value is None or type(value) is dict else UnreadableObject()


class StoredJson(TypeDecorator[Any]):
    """A JSON object, or an array of `items`. What has another form is unreadable."""

    impl = JSON(none_as_null=True)
    cache_ok = True

    def __init__(self, form: type[dict[str, Any]] | type[list[Any]], *items: type, nullable: bool = False) -> None:
        super().__init__(none_as_null=True)
        self.form = form
        self.items = items
        self.nullable = nullable

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """Check the form."""
        if type(value) is self.form and (not self.items or all(isinstance(one, self.items) for one in value)):
            return value
        if value is None and self.nullable:
            return None
        return UnreadableObject() if self.form is dict else UnreadableList()


def new_id() -> str:
    """A new ULID: 26 characters, sortable by time of creation."""
    return str(ULID())


def utc_now() -> datetime:
    """The current time by the database's clock, aware, in UTC."""
    return CLOCK.now()
