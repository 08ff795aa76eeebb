"""Watches deployments: schedules get the code of their workflow, and what an operator disabled stays disabled."""

import time
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from spine.database import SessionFactory
from spine.prefect.client import MOST_ROWS, Deployment, Prefect
from spine.schedules.code_sync import sync_code
from spine.schedules.copied_variables import delete_copied_except
from spine.schedules.deploy_guard.guard import DeployGuard, delete_records_except
from spine.schedules.planned_runs import SCHEDULER_LAG, delete_outdated
from spine.workflows.deployments import is_schedule as made_over_api
from spine.workflows.deployments import own_deployment

# All deployments are read this often, in case a change was missed in between; less often if that takes long.
SECONDS_BETWEEN_SCANS = 60.0
MOST_TIME_FOR_SCANS = 0.05

# Prefect's transactions can become visible in another order than their timestamps.
OVERLAP = timedelta(seconds=10)

LAST_UPDATED_FIRST = "UPDATED_DESC"
FIRST_PAGE = 10


class ScheduleWatcher:
    """A chore of the follower that checks the deployments changed since the last time; make one for each process.

    Switching a single schedule in Prefect's UI changes only the schedule itself, so the deployments whose schedules CI
    defines are read each time, or in turn if there are many.
    """

    def __init__(self) -> None:
        self._guard = DeployGuard()
        self._next_scan = 0.0
        self._updated: dict[UUID, datetime] = {}
        self._own: dict[UUID, Deployment] = {}
        self._defined_by_ci: dict[UUID, None] = {}
        # Until when, by the monotonic clock, runs of an old timing can still appear.
        self._unsettled: dict[UUID, float] = {}

    async def run(self, prefect: Prefect, sessions: SessionFactory) -> None:
        """Check once. Raises `Unavailable` if Prefect or the database is out of reach."""
        began = time.monotonic()
        if began >= self._next_scan:
            await self._scan(prefect, sessions)
            spent = time.monotonic() - began
            self._next_scan = began + max(SECONDS_BETWEEN_SCANS, spent / MOST_TIME_FOR_SCANS)
            return
        changed = {one.id: one for one in await self._read_changed(prefect)}
        defined = await self._read_some_defined_by_ci(prefect)
        await self._guard.check(prefect, sessions, list({**changed, **defined}.values()))
        await self._sync_changed(prefect, sessions, list(changed.values()))
        await self._settle(prefect, changed.values())
        # Last, so that the next check repeats what an error interrupted.
        self._remember(changed.values())

    async def _scan(self, prefect: Prefect, sessions: SessionFactory) -> None:
        everything = await prefect.deployments({})
        await delete_records_except(sessions, everything)
        await delete_copied_except(sessions, everything)
        await self._guard.check(prefect, sessions, everything)
        await self._sync_all(prefect, sessions, everything)
        self._updated, self._defined_by_ci = {}, {}
        self._remember(everything)

    async def _settle(self, prefect: Prefect, changed: Iterable[Deployment]) -> None:
        """For some seconds after each change, delete runs that Prefect's scheduler still planned for the old timing."""
        now = time.monotonic()
        until = now + SCHEDULER_LAG.total_seconds()
        self._unsettled |= {one.id: until for one in changed if one.schedules}
        for start in range(0, len(self._unsettled), MOST_ROWS):
            await delete_outdated(prefect, list(self._unsettled)[start : start + MOST_ROWS])
        self._unsettled = {one: until for one, until in self._unsettled.items() if until > now}

    def _remember(self, deployments: Iterable[Deployment]) -> None:
        for one in deployments:
            self._updated[one.id] = one.updated
            if one.schedules and not made_over_api(one):
                self._defined_by_ci[one.id] = None

    async def _read_changed(self, prefect: Prefect) -> list[Deployment]:
        """The new deployments, and those that were updated since they were last read."""
        since = max(self._updated.values(), default=None)
        found: list[Deployment] = []
        offset, size = 0, FIRST_PAGE
        while True:
            page = await prefect.page_of_deployments({}, offset, size, LAST_UPDATED_FIRST)
            found += page
            if page.held < size or (since is not None and page and page[-1].updated < since - OVERLAP):
                return [one for one in found if self._updated.get(one.id) != one.updated]
            offset, size = offset + page.held, MOST_ROWS

    async def _read_some_defined_by_ci(self, prefect: Prefect) -> dict[UUID, Deployment]:
        turn = list(self._defined_by_ci)[:MOST_ROWS]
        for deployment_id in turn:
            # Move it to the end of the queue.
            self._defined_by_ci[deployment_id] = self._defined_by_ci.pop(deployment_id)
        return await prefect.deployments_by_id(turn) if turn else {}

    async def _sync_changed(self, prefect: Prefect, sessions: SessionFactory, changed: Sequence[Deployment]) -> None:
        """Sync the code of the schedules that a change may have affected."""
        alone = [one for one in changed if made_over_api(one) and one.flow_id in self._own]
        whole = {one.flow_id for one in changed if not made_over_api(one)}
        whole |= {one.flow_id for one in changed if one.flow_id not in self._own}
        for one in alone:
            if one.flow_id not in whole:
                await sync_code(prefect, sessions, self._own[one.flow_id], [one])
        if whole:
            flow_ids = [str(flow_id) for flow_id in whole]
            of_flows = await prefect.deployments({"flows": {"id": {"any_": flow_ids}}})
            await self._sync_all(prefect, sessions, of_flows)

    async def _sync_all(self, prefect: Prefect, sessions: SessionFactory, deployments: Sequence[Deployment]) -> None:
        """Sync the code of the schedules among these; all deployments of their flows must be among them."""
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
                await sync_code(prefect, sessions, own, schedules, before.tags if before else ())
                self._own[flow_id] = own
