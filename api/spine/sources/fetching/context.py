"""What a process needs to run fetches: the settings, the database, Prefect, the cache, and the renewal of leases."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from spine.cache.leases import renew_leases
from spine.cache.store import BlobStore
from spine.database import SessionFactory, make_engine, make_sessions, transaction
from spine.egress.fetch_failure import FetchFailure, FetchLost
from spine.egress.own_services import own_endpoints, protected
from spine.errors import DatabaseUnavailable, SpineError, Unavailable
from spine.log_throttle import LogThrottle
from spine.own_settings import own_settings
from spine.prefect.client import Prefect
from spine.schemas import ErrorCategory
from spine.secrets.refs import resolve_ref
from spine.settings import Settings
from spine.sources.fetch_state import LEASE, renew_lease
from spine.sources.types.base import SourceConfig

# Longer than the pauses between renewals can be.
CONTENT_LEASE_SECONDS = 120.0


@dataclass(frozen=True)
class FetchContext:
    """What every fetch of this process uses."""

    settings: Settings
    sessions: SessionFactory
    prefect: Prefect
    store: BlobStore

    async def secrets(self, config: SourceConfig) -> dict[str, str]:
        """The secrets that a configuration refers to, by the path of their field. Raises `FetchFailure`."""
        with as_fetch_failures():
            refs = config.secret_refs()
            return {path: await resolve_ref(ref, self.prefect, self.settings) for path, ref in refs.items()}

    @asynccontextmanager
    async def leased(self, fetch_id: str) -> AsyncIterator[None]:
        """Renew the lease of a fetch, and its leases on content, while the block runs.

        Cancels the block and raises `FetchLost` when another process has given the fetch up.
        """
        try:
            async with asyncio.timeout(None) as until_lost:
                renewing = asyncio.create_task(self._renew(fetch_id, until_lost))
                try:
                    yield
                finally:
                    renewing.cancel()
                    await asyncio.wait([renewing])
        except TimeoutError:
            if until_lost.expired():
                raise FetchLost from None
            raise

    async def _renew(self, fetch_id: str, until_lost: asyncio.Timeout) -> None:
        throttle = LogThrottle("fetch")
        while True:
            await asyncio.sleep(LEASE.total_seconds() / 5)
            try:
                if not await renew_lease(self.sessions, fetch_id):
                    until_lost.reschedule(asyncio.get_running_loop().time())
                    return
                async with transaction(self.sessions) as session:
                    await renew_leases(session, fetch_id, CONTENT_LEASE_SECONDS)
            except Exception as error:
                # While the database is down, no other fetch can claim the source.
                throttle.failed("renewing", error)
            else:
                throttle.recovered("renewing")


@asynccontextmanager
async def open_fetch_context() -> AsyncIterator[FetchContext]:
    """The context of this process, from the settings of Spine's own flows."""
    settings = own_settings()
    engine = make_engine(settings.sqlalchemy_url)
    try:
        async with Prefect.connect(settings.prefect_deadline_seconds) as prefect:
            with protected(own_endpoints(settings, prefect.api_url, os.environ)):
                yield FetchContext(settings, make_sessions(engine), prefect, BlobStore.from_settings(settings))
    finally:
        await engine.dispose()


@contextmanager
def as_fetch_failures() -> Iterator[None]:
    """Translate errors that prevent a source from being opened; an unreachable secret store may recover soon."""
    try:
        yield
    except DatabaseUnavailable:
        raise
    except Unavailable as reason:
        raise FetchFailure(ErrorCategory.NETWORK, reason.detail, transient=True) from None
    except SpineError as reason:
        raise FetchFailure(ErrorCategory.CONFIG, reason.detail) from None
