"""Whether the storage of the cache answers, and is that of the database."""

import asyncio

from spine.cache.ownership import require_own_store
from spine.cache.store import BlobStore
from spine.database import SessionFactory


class StorageCheck:
    """Checks one storage, one check after the other: a storage that hangs must not take a thread for each of them."""

    def __init__(self, sessions: SessionFactory, store: BlobStore) -> None:
        self._sessions = sessions
        self._store = store
        self._running: asyncio.Future[None] | None = None

    async def answers(self, seconds: float) -> bool:
        """Whether it answers within this time.

        Raises `StoreMismatch` if it is not that of the database, another `FetchFailure` if it cannot be reached, and
        `DatabaseUnavailable`.
        """
        if self._running is None:
            self._running = asyncio.ensure_future(require_own_store(self._sessions, self._store))
        done, _ = await asyncio.wait([self._running], timeout=seconds)
        if not done:
            return False
        finished, self._running = self._running, None
        finished.result()
        return True
