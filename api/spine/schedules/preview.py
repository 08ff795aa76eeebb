"""When schedules will run next: what Prefect has planned already, and what its schedule classes say beyond that.

Prefect plans each active schedule at least three runs and one hour ahead, but no further than a hundred days, and plans
a new one within seconds. It plans each time of each schedule once: where a run was cancelled, or began before it was
due, that time does not come again.
"""

import asyncio
import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from spine.prefect.client import MOST_ROWS, Deployment, FlowRun, Prefect, ScheduleRow
from spine.prefect.filters import Json, RunFilter
from spine.prefect.schedules import timing_of
from spine.schedules.deployments import find_schedule, is_enabled
from spine.schedules.planning import row_id
from spine.schedules.schemas import NextRunPreview
from spine.schedules.timing import describe
from spine.tables.base import utc_now

# Times of schedules, by the id of Prefect's row for each.
Times = Mapping[UUID, set[datetime]]

# A planned run that is fetched by a worker, which happens seconds before it is due, is PENDING.
_WILL_RUN: Json = {"type": {"any_": ["SCHEDULED", "PENDING"]}}
_WILL_NOT: Json = {"type": {"not_any_": ["SCHEDULED", "PENDING"]}}
_NOT_PAUSED: Json = {"deployments": {"paused": {"eq_": False}}}
# How many times of a schedule are computed at first; more where more are asked for.
_PORTION = 2


@dataclass(frozen=True)
class _Known:
    """What Prefect's runs tell of the time ahead: times at which schedules will run, and at which they will not."""

    planned: Times = field(default_factory=dict)
    dropped: Times = field(default_factory=dict)

    def tells_of(self, row: ScheduleRow) -> bool:
        """Whether the row's class alone does not have the answer."""
        return row.id in self.planned or row.id in self.dropped


async def next_runs(prefect: Prefect, deployments: Sequence[Deployment], now: datetime) -> dict[UUID, datetime | None]:
    """When each of these runs next; None for one that is disabled or has no time left.

    That is one call of Prefect, and a second one where there are intervals of days in a time zone, whose planned runs
    must be known.
    """
    enabled = [deployment for deployment in deployments if is_enabled(deployment)]
    by_days = [one for one in enabled if any(timing_of(row.schedule).depends_on_start for row in _active(one))]
    dropped, planned = await asyncio.gather(
        _times_of_runs(prefect, enabled, _WILL_NOT, now), _times_of_runs(prefect, by_days, _WILL_RUN, now)
    )
    known = _Known(planned, dropped)
    following: dict[UUID, datetime | None] = dict.fromkeys(deployment.id for deployment in deployments)
    for deployment in enabled:
        times = [await _first(row, known, now) for row in _active(deployment)]
        following[deployment.id] = min((time for time in times if time is not None), default=None)
    return following


async def preview_next(
    prefect: Prefect, count: int, id_or_name: str | None, now: datetime | None = None
) -> list[NextRunPreview]:
    """The soonest `count` runs from `now` on, over all enabled schedules or over one; in order of time, then name.

    Raises `NotFound` for an unknown schedule.
    """
    now = now or utc_now()
    if id_or_name is None:
        deployments, planned = await _soonest(prefect, count, now)
    else:
        deployments = [await find_schedule(prefect, id_or_name)]
        planned = await _planned(prefect, count, now, deployments[0].id)
    deployments = [deployment for deployment in deployments if is_enabled(deployment)]
    known = _Known(_by_row(planned), await _times_of_runs(prefect, deployments, _WILL_NOT, now))
    return await _merge(deployments, known, count, now)


async def _soonest(prefect: Prefect, count: int, now: datetime) -> tuple[Iterable[Deployment], Sequence[FlowRun]]:
    """Deployments among which the soonest `count` runs are, and the soonest runs that Prefect has planned.

    The planned runs are read in order of time, so `count` of them, of schedules that are on, all come to pass by the
    time U of the last one. A schedule that is not among them has nothing planned before U, and Prefect plans each
    schedule that is on from its next time on, without gaps: it cannot run before U, unless it was made so few seconds
    ago that Prefect has not planned it yet. Of those that run at U itself, the first `count` by name are read where not
    all can be among the planned runs. So the soonest runs are those of the deployments found here, whose own times are
    merged as far as is needed, also past the last that is planned of each.

    Where fewer are planned, all deployments are read: there are few schedules then, or they run more than a hundred
    days from now, or one was switched off between two calls.
    """
    planned = await _planned(prefect, count + 1, now)
    found = await prefect.deployments_by_id(list({run.deployment_id for run in planned if run.deployment_id}))
    on = {row.id for deployment in found.values() if is_enabled(deployment) for row in _active(deployment)}
    planned = [run for run in planned if row_id(run) in on]
    if len(planned) < count:
        return await prefect.deployments(_NOT_PAUSED), planned
    last = planned[count - 1].expected_start_time
    if planned[-1].expected_start_time == last and last is not None:
        at_last = _by_schedules(_WILL_RUN, last).between("expected_start_time", until=last)
        wanted = {**_NOT_PAUSED, **at_last.to_json()}
        at_once = await prefect.page_of_deployments(wanted, 0, count, "NAME_ASC")
        found |= {deployment.id: deployment for deployment in at_once}
    return found.values(), planned


async def _planned(prefect: Prefect, count: int, now: datetime, deployment_id: UUID | None = None) -> list[FlowRun]:
    """The soonest runs that schedules have planned.

    By the time when they are due: a run that waits for a retry or for its turn also has a scheduled time ahead.
    """
    wanted = _by_schedules(_WILL_RUN, now)
    if deployment_id is not None:
        wanted = wanted.where(deployment_id={"any_": [str(deployment_id)]})
    return await prefect.list_runs(wanted, "EXPECTED_START_TIME_ASC", limit=count)


async def _times_of_runs(prefect: Prefect, deployments: Sequence[Deployment], state: Json, now: datetime) -> Times:
    """The times ahead of all runs of these deployments' schedules whose state fits."""
    ids = [str(deployment.id) for deployment in deployments]
    parts = [ids[start : start + MOST_ROWS] for start in range(0, len(ids), MOST_ROWS)]
    wanted = _by_schedules(state, now)
    found = await asyncio.gather(*(prefect.all_runs(wanted.where(deployment_id={"any_": part})) for part in parts))
    return _by_row(run for runs in found for run in runs)


def _by_schedules(state: Json, now: datetime) -> RunFilter:
    by_schedules = RunFilter(runs={"created_by": {"type_": ["SCHEDULE"]}, "state": state})
    return by_schedules.between("expected_start_time", since=now)


def _by_row(runs: Iterable[FlowRun]) -> Times:
    times: dict[UUID, set[datetime]] = defaultdict(set)
    for run in runs:
        planned_for = row_id(run)
        if planned_for is not None and run.expected_start_time is not None:
            times[planned_for].add(run.expected_start_time)
    return dict(times)


def _active(deployment: Deployment) -> list[ScheduleRow]:
    return [row for row in deployment.schedules if row.active]


async def _first(row: ScheduleRow, known: _Known, now: datetime) -> datetime | None:
    if known.tells_of(row):
        return await _TimesAhead(row, known, now).take()
    return await timing_of(row.schedule).next_from(now)


class _TimesAhead:
    """The times of one schedule from a moment on, in order: planned and computed ones, without those dropped."""

    def __init__(self, row: ScheduleRow, known: _Known, now: datetime) -> None:
        self._timing = timing_of(row.schedule)
        self._now = now
        self._planned = known.planned.get(row.id, set())
        self._dropped = known.dropped.get(row.id, set())
        self._size = _PORTION + len(self._dropped)
        self._times: list[datetime] = []
        self._taken = 0
        self._ends = False

    async def take(self) -> datetime | None:
        """The next of them, or None after the last."""
        while self._taken == len(self._times):
            if self._ends:
                return None
            await self._compute_more()
        self._taken += 1
        return self._times[self._taken - 1]

    async def _compute_more(self) -> None:
        computed = await self._timing.dates_from(self._now, self._size)
        self._ends = len(computed) < self._size
        times = sorted(self._planned.union(computed) - self._dropped)
        # Before what is planned beyond the last computed one, the next portion may have others.
        self._times = times if self._ends else [time for time in times if time <= computed[-1]]
        self._size *= 4


async def _merge(deployments: Iterable[Deployment], known: _Known, count: int, now: datetime) -> list[NextRunPreview]:
    """The soonest `count` times of these deployments; of each schedule little more is computed than is shown."""
    rows = [(deployment, row) for deployment in deployments for row in _active(deployment)]
    ahead = [_TimesAhead(row, known, now) for _, row in rows]
    heads: list[tuple[datetime, str, UUID, int]] = []

    async def advance(position: int) -> None:
        if (time := await ahead[position].take()) is not None:
            deployment = rows[position][0]
            heapq.heappush(heads, (time, deployment.name, deployment.id, position))

    for position in range(len(rows)):
        await advance(position)
    shown: list[NextRunPreview] = []
    while heads and len(shown) < count:
        time, name, deployment_id, position = heapq.heappop(heads)
        timing = describe(rows[position][1])
        shown.append(
            NextRunPreview(
                schedule_id=deployment_id,
                schedule_name=name,
                next_run_at=time,
                cron_expression=timing.cron_expression,
                interval_seconds=timing.interval_seconds,
            )
        )
        await advance(position)
    return shown
