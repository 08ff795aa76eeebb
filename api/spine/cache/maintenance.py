"""Background maintenance of the cache in an API process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Never

import structlog

from spine.background import repeat
from spine.cache.eviction import evict
from spine.cache.garbage_collection import delete_unreferenced
from spine.cache.reconciling import ReconcileResult, reconcile
from spine.cache.store import BlobStore
from spine.database import SessionFactory
from spine.egress.fetch_failure import FetchFailure
from spine.errors import Unavailable
from spine.log_throttle import LogThrottle

log = structlog.get_logger("spine.cache")

SECONDS_BETWEEN_RUNS = 3600.0
SECONDS_AFTER_AN_ERROR = 60.0
NOTHING = ReconcileResult(0, 0, 0, 0, 0)


class CacheMaintenance:
    """Reconciles store and rows at the start of the process and every hour, and enforces the size limit.

    In between it deletes what a request has left.
    """

    def __init__(self, sessions: SessionFactory, store: BlobStore, max_bytes: int | None) -> None:
        self._sessions = sessions
        self._store = store
        self._max_bytes = max_bytes
        self._woken = asyncio.Event()
        self._log_throttle = LogThrottle("cache")

    def wake(self) -> None:
        """Delete content without an entry now, which would else wait for an hour."""
        self._woken.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Maintain the cache in the background within the block."""
        maintaining = asyncio.create_task(repeat(self._maintain_and_wait, self._log_throttle, SECONDS_AFTER_AN_ERROR))
        try:
            yield
        finally:
            maintaining.cancel()
            await asyncio.wait([maintaining], timeout=1)

    async def _maintain_and_wait(self) -> None:
        try:
            done = await reconcile(self._sessions, self._store)
            if self._max_bytes is not None:
                await evict(self._sessions, self._store, self._max_bytes)
        except FetchFailure as failure:
            # An unavailable storage is not a defect of Spine.
            raise Unavailable(failure.sentence) from failure
        self._log_throttle.recovered(self._maintain_and_wait.__name__)
        if done != NOTHING:
            log.info("cache_reconciled", **vars(done))
        with suppress(TimeoutError):
            async with asyncio.timeout(SECONDS_BETWEEN_RUNS):
                await self._delete_when_woken()

    async def _delete_when_woken(self) -> Never:
        while True:
            await self._woken.wait()
            self._woken.clear()
            try:
                deleted = await delete_unreferenced(self._sessions, self._store)
            except FetchFailure as failure:
                raise Unavailable(failure.sentence) from failure
            log.info("cache_cleared", bytes=deleted)
