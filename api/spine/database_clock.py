"""The time that all processes of Spine share: that of PostgreSQL's server, where the clock of this machine differs.

Leases, deadlines and the order of rows compare times that different machines have written. A machine whose clock is
ahead would take the live leases of the others for expired.
"""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

log = structlog.get_logger("spine.database")

SECONDS_BETWEEN_MEASUREMENTS = 60.0
# Clocks that are kept by NTP agree much better. A smaller difference is left alone: every lease is longer.
LEAST_DIFFERENCE = timedelta(seconds=1)


class DatabaseClock:
    """How far the clock of the database's server is ahead of this machine's; zero until it was measured."""

    def __init__(self) -> None:
        self._ahead = timedelta()
        self._measured = float("-inf")

    def now(self) -> datetime:
        """The current time of the database's server, aware, in UTC."""
        return local_now() + self._ahead

    @property
    def is_due(self) -> bool:
        """Whether the last measurement is a minute old."""
        return time.monotonic() - self._measured >= SECONDS_BETWEEN_MEASUREMENTS

    def measure(self, connection: Any) -> None:
        """Read the server's time with a connection of PostgreSQL's driver that is in no transaction."""
        cursor = connection.cursor()
        try:
            before = local_now()
            cursor.execute("SELECT extract(epoch FROM clock_timestamp())")
            there = datetime.fromtimestamp(float(cursor.fetchone()[0]), UTC)
            after = local_now()
        finally:
            cursor.close()
        connection.rollback()
        self._measured = time.monotonic()
        self._keep(there - (before + (after - before) / 2))

    def _keep(self, ahead: timedelta) -> None:
        kept = ahead if abs(ahead) >= LEAST_DIFFERENCE else timedelta()
        if abs(kept - self._ahead) >= LEAST_DIFFERENCE:
            log.warning("clock_differs_from_database", database_is_ahead_seconds=round(kept.total_seconds(), 1))
        self._ahead = kept


def local_now() -> datetime:
    """The current time of this machine's clock, aware, in UTC."""
    return datetime.now(UTC)


# The one of this process, which has one database.
CLOCK = DatabaseClock()
