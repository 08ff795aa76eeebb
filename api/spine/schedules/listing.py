"""Pages of schedules out of Prefect's list of deployments, which cannot be asked for those that have a schedule.

The few deployments that are none (workflows without a schedule) are known by their ids and left out by Prefect's own
filter. What is known is checked at each page with two small calls: one for deployments that were not there before, one
for whether those few are still without a schedule. So nothing is kept that could be stale, and a page costs the same
number of calls at ten schedules and at ten thousand.
"""

import asyncio
from collections.abc import Iterable
from uuid import UUID

from spine.pagination import PageRequest
from spine.prefect.client import MOST_ROWS, Deployment, Prefect
from spine.prefect.filters import Json
from spine.schedules.deployments import has_schedule

# As many of the newest deployments as may well become visible out of the order in which they were made.
NEWEST = 3

# Far more than enough for changes to settle; each turn is only needed when something changed since the one before.
MOST_TURNS = 10


class Catalogue:
    """What one process knows about which deployments are schedules; make one for the application."""

    def __init__(self) -> None:
        self._known: set[UUID] = set()
        self._others: set[UUID] = set()
        self._flow_names: dict[UUID, str] = {}

    async def page(self, prefect: Prefect, flows: Json, page: PageRequest) -> tuple[list[Deployment], int]:
        """Some schedules of the flows that fit (`{}` for all), newest first, and the exact number of all."""
        for _ in range(MOST_TURNS):
            wanted = {"deployments": {"id": {"not_any_": _texts(self._others)}}, **flows}
            (rows, total), unchanged = await asyncio.gather(self._read(prefect, wanted, page), self._check(prefect))
            strangers = [row.id for row in rows if not has_schedule(row)]
            if unchanged and not strangers:
                break
            self._others |= set(strangers)
        return rows, total

    async def flow_names(self, prefect: Prefect, flow_ids: Iterable[UUID]) -> dict[UUID, str]:
        """The names of flows, which never change; a flow that was deleted keeps the name that it had."""
        unknown = [flow_id for flow_id in set(flow_ids) if flow_id not in self._flow_names]
        found = await prefect.flows_by_id(unknown)
        self._flow_names |= {flow_id: flow.name for flow_id, flow in found.items()}
        return self._flow_names

    def lost(self, deployment_id: UUID) -> None:
        """Take note that a deployment has no schedule any more, which the check of new ones would not find."""
        self._others.add(deployment_id)

    @staticmethod
    async def _read(prefect: Prefect, wanted: Json, page: PageRequest) -> tuple[list[Deployment], int]:
        rows, total = await asyncio.gather(
            prefect.page_of_deployments(wanted, page.offset, page.limit), prefect.count_deployments(wanted)
        )
        return rows, total

    async def _check(self, prefect: Prefect) -> bool:
        """Bring what is known up to date and tell whether it was."""
        new, others = await asyncio.gather(self._new(prefect), prefect.deployments_by_id(list(self._others)))
        self._known |= {deployment.id for deployment in new}
        now_others = {deployment.id for deployment in [*new, *others.values()] if not has_schedule(deployment)}
        unchanged = not new and now_others == self._others
        self._others = now_others
        return unchanged

    async def _new(self, prefect: Prefect) -> list[Deployment]:
        """The deployments that were not there before, read from the newest on until some are known."""
        new: list[Deployment] = []
        size = NEWEST
        while True:
            rows = await prefect.page_of_deployments({}, len(new), size)
            new += [row for row in rows if row.id not in self._known]
            if len(rows) < size or any(row.id in self._known for row in rows):
                return new
            size = MOST_ROWS


def _texts(ids: Iterable[UUID]) -> list[str]:
    return [str(one) for one in ids]
