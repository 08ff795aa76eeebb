"""Times of PostgreSQL that no `datetime` can hold, such as `infinity`; only databases of PostgreSQL import psycopg."""

from datetime import datetime
from typing import Any

from psycopg import AsyncConnection, DataError
from psycopg.types.datetime import TimestamptzBinaryLoader, TimestamptzLoader

from spine.unreadable import NO_TIME


class _TimeOfText(TimestamptzLoader):
    def load(self, data: Any) -> datetime:
        try:
            return super().load(data)
        except DataError:
            return NO_TIME


class _TimeOfBytes(TimestamptzBinaryLoader):
    def load(self, data: Any) -> datetime:
        try:
            return super().load(data)
        except DataError:
            return NO_TIME


def read_every_time(connection: AsyncConnection[Any]) -> None:
    """Read such times as unreadable ones."""
    for loader in (_TimeOfText, _TimeOfBytes):
        connection.adapters.register_loader("timestamptz", loader)
