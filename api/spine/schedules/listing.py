"""Pages of schedules from Prefect's list of deployments, which has no filter for deployments that have a schedule.

The few deployments without a schedule (plain workflows) are known by their ids and excluded by Prefect's own filter.
Each page checks that knowledge with two small calls: one for new deployments, one for whether those few still have no
schedule. So a page is never stale, and it costs the same number of calls for ten schedules and for ten thousand.
"""

import asyncio
from collections.abc import Iterable, Sequence
from uuid import UUID

from spine.pagination import PageRequest
from spine.prefect.around import Rows
from spine.prefect.client import MOST_ROWS, Deployment, Prefect
from spine.prefect.filters import Json
from spine.schedules.deployments import has_schedule
from spine.workflows.known_domains import DomainTags

# Deployments may become visible in another order than they were created; this many of the newest are read each time.
NEWEST = 3

# Another attempt is needed only if something changed during the one before, so these are far more than enough.
MOST_ATTEMPTS = 10


class ScheduleListing:
    """Lists schedules page by page; make one for each process, which remembers which deployments have no schedule."""

    def __init__(self) -> None:
        self._known: set[UUID] = set()
        self._without_schedule: set[UUID] = set()

    async def page(
        self, prefect: Prefect, flows: Json, tags: DomainTags, page: PageRequest
    ) -> tuple[list[Deployment], int]:
        """A page of schedules, newest first, and their exact number.

        They are those of the flows that match (`{}` for all) with one of these `tags`.
        """
        # The first page of all has the new deployments, if it has one that is known or is not full.
        has_newest = not page.offset and page.limit >= NEWEST and not flows and tags is None
        for _ in range(MOST_ATTEMPTS):
            excluded = set(self._without_schedule)
            wanted = {"deployments": {"id": {"not_any_": _texts(excluded)}, **with_any_tag(tags)}, **flows}
            (rows, total), new, known = await asyncio.gather(
                self._read(prefect, wanted, page),
                _nothing() if has_newest else self._new(prefect),
                prefect.deployments_by_id(list(excluded)),
            )
            if has_newest:
                shows_all = rows.held < page.limit or any(row.id in self._known for row in rows)
                new = [row for row in rows if row.id not in self._known] if shows_all else await self._new(prefect)
            current = self._learn(excluded, new, known.values())
            found_without = [row.id for row in rows if not has_schedule(row)]
            # Another request may have found the new deployments, so only the set itself shows whether it changed.
            if current == excluded and not found_without:
                break
            self._without_schedule |= set(found_without)
        return rows, total

    def schedule_removed(self, deployment_id: UUID) -> None:
        """Record that a deployment no longer has a schedule, which the check for new deployments would not find."""
        self._without_schedule.add(deployment_id)

    @staticmethod
    async def _read(prefect: Prefect, wanted: Json, page: PageRequest) -> tuple[Rows[Deployment], int]:
        return await asyncio.gather(
            prefect.page_of_deployments(wanted, page.offset, page.limit), prefect.count_deployments(wanted)
        )

    def _learn(self, checked: set[UUID], new: Sequence[Deployment], known: Iterable[Deployment]) -> set[UUID]:
        """Update what is known; return the ids of all deployments without a schedule."""
        self._known |= {deployment.id for deployment in new}
        without = {deployment.id for deployment in [*new, *known] if not has_schedule(deployment)}
        # What other requests have added meanwhile was not checked here, and stays.
        self._without_schedule = self._without_schedule - checked | without
        return set(self._without_schedule)

    async def _new(self, prefect: Prefect) -> list[Deployment]:
        """The new deployments, read from the newest on until one is known."""
        new: list[Deployment] = []
        offset, size = 0, NEWEST
        while True:
            rows = await prefect.page_of_deployments({}, offset, size)
            new += [row for row in rows if row.id not in self._known]
            if rows.held < size or any(row.id in self._known for row in rows):
                return new
            offset, size = offset + rows.held, MOST_ROWS


async def _nothing() -> list[Deployment]:
    return []


def with_any_tag(tags: DomainTags) -> Json:
    """The part of a filter of deployments that selects those with one of these tags."""
    return {} if tags is None else {"tags": {"any_": list(tags)}}


def _texts(ids: Iterable[UUID]) -> list[str]:
    return [str(one) for one in ids]
