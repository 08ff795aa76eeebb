"""Keeping the cache in order in the background of an API process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from spine.background import repeat
from spine.cache.eviction import evict
from spine.cache.reconciling import Reconciled, reconcile
from spine.cache.store import BlobStore
from spine.database import SessionFactory
from spine.egress.fetch_failure import FetchFailure
from spine.errors import Unavailable
from spine.log_throttle import LogThrottle

log = structlog.get_logger("spine.cache")

SECONDS_BETWEEN = 3600.0
SECONDS_AFTER_AN_ERROR = 60.0
NOTHING = Reconciled(0, 0, 0, 0, 0)


class Tidying:
    """Reconciles store and rows when the process starts and every hour, and keeps the cache within its limit."""

    def __init__(self, sessions: SessionFactory, store: BlobStore, max_bytes: int | None) -> None:
        self._sessions = sessions
        self._store = store
        self._max_bytes = max_bytes
        self._log_throttle = LogThrottle("cache")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Tidy up in the background for as long as the block lasts."""
        tidying = asyncio.create_task(repeat(self._reconcile_and_wait, self._log_throttle, SECONDS_AFTER_AN_ERROR))
        try:
            yield
        finally:
            tidying.cancel()
            await asyncio.wait([tidying], timeout=1)

    async def _reconcile_and_wait(self) -> None:
        try:
            done = await reconcile(self._sessions, self._store)
            if self._max_bytes is not None:
                await evict(self._sessions, self._store, self._max_bytes)
        except FetchFailure as failure:
            # The storage is out of reach, which is no defect.
            raise Unavailable(failure.sentence) from failure
        self._log_throttle.recovered(self._reconcile_and_wait.__name__)
        if done != NOTHING:
            log.info("cache_reconciled", **vars(done))
        await asyncio.sleep(SECONDS_BETWEEN)
