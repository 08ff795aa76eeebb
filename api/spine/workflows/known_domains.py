"""The names of all domains, to which patterns such as `finra.*` expand: Prefect filters by whole tags only.

They are those of all deployments, and those that runs had when they ended. A name that no longer occurs does no harm.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import select

from spine.auth.domains import Domains
from spine.database import SessionFactory, reading
from spine.names import DOMAIN_TAG_PREFIX, domains_in
from spine.prefect.client import MOST_ROWS, Prefect
from spine.tables.domains import SeenDomain

LAST_UPDATED_FIRST = "UPDATED_DESC"
FIRST_PAGE = 3
# Prefect's transactions can become visible in another order than their timestamps.
OVERLAP = timedelta(seconds=10)

# The tags of which an object must have one; None: no condition.
DomainTags = Sequence[str] | None


class KnownDomains:
    """The domains that this process knows; make one for each process. Each call reads what has changed since."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._read_until: datetime | None = None

    async def tags(self, prefect: Prefect, sessions: SessionFactory, domains: Domains) -> DomainTags:
        """The tags of the domains that a credential may see; None if it is not limited."""
        if domains.patterns is None:
            return None
        exact = {pattern for pattern in domains.patterns if "*" not in pattern}
        if len(exact) < len(domains.patterns):
            await self._read_deployments(prefect)
            async with reading(sessions) as session:
                self._names |= set(await session.scalars(select(SeenDomain.name)))
        return [f"{DOMAIN_TAG_PREFIX}{name}" for name in sorted(exact | set(filter(domains.allow, self._names)))]

    async def _read_deployments(self, prefect: Prefect) -> None:
        """Add the domains of the deployments that were updated since the last time."""
        since, newest = self._read_until, self._read_until
        offset, size = 0, FIRST_PAGE
        while True:
            page = await prefect.page_of_deployments({}, offset, size, LAST_UPDATED_FIRST)
            for deployment in page:
                self._names |= domains_in(deployment.tags)
            newest = max([deployment.updated for deployment in page] + ([newest] if newest else []), default=None)
            if page.held < size or (since is not None and page and page[-1].updated < since - OVERLAP):
                break
            offset, size = offset + page.held, MOST_ROWS
        self._read_until = newest
