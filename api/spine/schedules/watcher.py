"""A watchful eye on deployments: schedules follow their workflow's code, and what was switched off stays off."""

import time
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from spine.database import SessionFactory
from spine.prefect.client import MOST_ROWS, Deployment, Prefect
from spine.schedules.code_sync import follow
from spine.schedules.deploy_guard.guard import Holds, forget_all_but
from spine.schedules.planning import TIME_FOR_THE_SCHEDULER, delete_outdated
from spine.workflows.deployments import is_schedule as made_over_api
from spine.workflows.deployments import own_deployment

# Everything is looked at this often, in case something was overlooked in between; less often where it takes long.
SECONDS_BETWEEN_SCANS = 60.0
SCANS_TAKE_AT_MOST = 0.05

# Prefect's transactions can become visible in another order than that of their times.
OVERLAP = timedelta(seconds=10)

LAST_UPDATED_FIRST = "UPDATED_DESC"
FEW = 10


class ScheduleWatch:
    """A chore of the follower: looks at what has changed since the last time; make one for each process.

    The switch of a single schedule in Prefect's UI leaves no trace but in the schedule itself, so the deployments with
    schedules that CI defines are read each time, or in turns where they are many.
    """

    def __init__(self) -> None:
        self._holds = Holds()
        self._next_scan = 0.0
        self._updated: dict[UUID, datetime] = {}
        self._own: dict[UUID, Deployment] = {}
        self._defined_by_ci: dict[UUID, None] = {}
        # Until when runs of an old timing can still appear.
        self._unsettled: dict[UUID, float] = {}

    async def run(self, prefect: Prefect, sessions: SessionFactory) -> None:
        """Look once. Raises `Unavailable` when Prefect or the database is out of reach."""
        began = time.monotonic()
        if began >= self._next_scan:
            await self._scan(prefect, sessions)
            spent = time.monotonic() - began
            self._next_scan = began + max(SECONDS_BETWEEN_SCANS, spent / SCANS_TAKE_AT_MOST)
            return
        changed = {one.id: one for one in await self._read_changed(prefect)}
        defined = await self._read_some_defined_by_ci(prefect)
        await self._holds.keep(prefect, sessions, list({**changed, **defined}.values()))
        await self._follow_changed(prefect, list(changed.values()))
        await self._settle(prefect, changed.values())
        # Only now, so that what an error interrupted is met again.
        self._saw(changed.values())

    async def _scan(self, prefect: Prefect, sessions: SessionFactory) -> None:
        everything = await prefect.deployments({})
        await forget_all_but(sessions, everything)
        await self._holds.keep(prefect, sessions, everything)
        await self._follow_all(prefect, everything)
        self._updated, self._defined_by_ci = {}, {}
        self._saw(everything)

    async def _settle(self, prefect: Prefect, changed: Iterable[Deployment]) -> None:
        """Look for some seconds after each change whether Prefect's scheduler had been at work on what was before."""
        now = time.monotonic()
        until = now + TIME_FOR_THE_SCHEDULER.total_seconds()
        self._unsettled |= {one.id: until for one in changed if one.schedules}
        for start in range(0, len(self._unsettled), MOST_ROWS):
            await delete_outdated(prefect, list(self._unsettled)[start : start + MOST_ROWS])
        self._unsettled = {one: until for one, until in self._unsettled.items() if until > now}

    def _saw(self, deployments: Iterable[Deployment]) -> None:
        for one in deployments:
            self._updated[one.id] = one.updated
            if one.schedules and not made_over_api(one):
                self._defined_by_ci[one.id] = None

    async def _read_changed(self, prefect: Prefect) -> list[Deployment]:
        """The deployments that were updated since they were seen last, and new ones."""
        since = max(self._updated.values(), default=None)
        found: list[Deployment] = []
        size = FEW
        while True:
            page = await prefect.page_of_deployments({}, len(found), size, LAST_UPDATED_FIRST)
            found += page
            if len(page) < size or (since is not None and page[-1].updated < since - OVERLAP):
                return [one for one in found if self._updated.get(one.id) != one.updated]
            size = MOST_ROWS

    async def _read_some_defined_by_ci(self, prefect: Prefect) -> dict[UUID, Deployment]:
        turn = list(self._defined_by_ci)[:MOST_ROWS]
        for deployment_id in turn:
            # To the end of the queue.
            self._defined_by_ci[deployment_id] = self._defined_by_ci.pop(deployment_id)
        return await prefect.deployments_by_id(turn) if turn else {}

    async def _follow_changed(self, prefect: Prefect, changed: Sequence[Deployment]) -> None:
        """Bring the schedules in step that a change may have put out of step."""
        alone = [one for one in changed if made_over_api(one) and one.flow_id in self._own]
        whole = {one.flow_id for one in changed if not made_over_api(one)}
        whole |= {one.flow_id for one in changed if one.flow_id not in self._own}
        for one in alone:
            if one.flow_id not in whole:
                await follow(prefect, self._own[one.flow_id], [one])
        if whole:
            flow_ids = [str(flow_id) for flow_id in whole]
            await self._follow_all(prefect, await prefect.deployments({"flows": {"id": {"any_": flow_ids}}}))

    async def _follow_all(self, prefect: Prefect, deployments: Sequence[Deployment]) -> None:
        """Bring the schedules among these in step; all deployments of their flows must be among them."""
        of_flow: dict[UUID, list[Deployment]] = {}
        for one in deployments:
            of_flow.setdefault(one.flow_id, []).append(one)
        with_schedules = [flow_id for flow_id, those in of_flow.items() if any(made_over_api(one) for one in those)]
        flows = await prefect.flows_by_id(with_schedules) if with_schedules else {}
        for flow_id, flow in flows.items():
            own = own_deployment(flow.name, of_flow[flow_id])
            if own is not None:
                before = self._own.get(flow_id)
                schedules = [one for one in of_flow[flow_id] if made_over_api(one)]
                await follow(prefect, own, schedules, before.tags if before else ())
                self._own[flow_id] = own
