"""Holds of readers, for as long as they read."""

import asyncio
from contextlib import suppress

import structlog

from spine.cache.holds import release, renew_holds
from spine.database import SessionFactory, database_errors, transaction
from spine.errors import SpineError

log = structlog.get_logger("spine.cache")

LEASE_SECONDS = 60.0
SECONDS_BETWEEN_RENEWALS = 15.0


class Lease:
    """What one reader holds, or is going to, for `LEASE_SECONDS` each time; renewed until it is ended."""

    def __init__(self, sessions: SessionFactory, holder: str) -> None:
        self._sessions = sessions
        self._holder = holder
        self._renewing = asyncio.create_task(self._renew())

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(SECONDS_BETWEEN_RENEWALS)
            try:
                async with transaction(self._sessions) as session:
                    await renew_holds(session, self._holder, LEASE_SECONDS)
            except SpineError as error:
                log.warning("a reader's hold could not be renewed", reason=error.detail)

    async def end(self) -> None:
        """Let go; what the database does not take now runs out by itself."""
        self._renewing.cancel()
        await asyncio.wait([self._renewing])
        with suppress(SpineError), database_errors():
            async with self._sessions.begin() as session:
                await release(session, self._holder)
