"""What all tables share: the declarative base, UTC times and ULIDs."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, Dialect, MetaData
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import TypeDecorator
from ulid import ULID

from spine.json_rule import presentable


class Base(DeclarativeBase):
    """Base of all tables; the naming convention keeps constraint names equal on every database."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


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
        if value is None:
            return None
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
        return presentable(value)


def new_id() -> str:
    """A new ULID: 26 characters, sortable by time of creation."""
    return str(ULID())


def utc_now() -> datetime:
    """The current time, aware, in UTC."""
    return datetime.now(UTC)
