"""When keys were last used, written once in a while for all of them instead of once for each request."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime

from sqlalchemy import or_, update

from spine.background import repeat
from spine.database import SessionFactory, transaction
from spine.errors import DatabaseUnavailable
from spine.log_throttle import LogThrottle
from spine.tables.api_keys import ApiKey
from spine.tables.base import utc_now

SECONDS_BETWEEN_WRITES = 30.0


class KeyUses:
    """Collects the uses of keys in one process. A process that is killed loses those of its last half minute."""

    def __init__(self, sessions: SessionFactory) -> None:
        self._sessions = sessions
        self._used: dict[str, datetime] = {}
        self._log_throttle = LogThrottle("key_uses")

    def record(self, key_id: str) -> None:
        """Remember that a key was used now."""
        self._used[key_id] = utc_now()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write the collected uses in the background while the block runs, and the last of them after it."""
        writing = asyncio.create_task(repeat(self._wait_and_write, self._log_throttle, SECONDS_BETWEEN_WRITES))
        try:
            yield
        finally:
            writing.cancel()
            await asyncio.wait([writing], timeout=1)
            with suppress(DatabaseUnavailable, TimeoutError):
                await asyncio.wait_for(self.write(), 1)

    async def write(self) -> None:
        """Store the collected uses. Raises `DatabaseUnavailable`; the next call stores them then."""
        used, self._used = self._used, {}
        if not used:
            return
        try:
            async with transaction(self._sessions) as session:
                # In the order of ids, so that two processes never wait for each other.
                for key_id, at in sorted(used.items()):
                    older = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < at)
                    await session.execute(update(ApiKey).where(ApiKey.id == key_id, older).values(last_used_at=at))
        except BaseException:
            self._used = used | self._used
            raise

    async def _wait_and_write(self) -> None:
        await asyncio.sleep(SECONDS_BETWEEN_WRITES)
        await self.write()
