"""When schedules will run next: the runs that Prefect has planned, and beyond them the dates of its schedule classes.

Prefect plans each active schedule at least three runs and one hour ahead, but no further than a hundred days, and plans
a new schedule within seconds. It plans each date of each schedule once: if that run was cancelled, or started before it
was due, the date is not planned again.
"""

import asyncio
import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

from spine.auth.domains import Domains
from spine.oddities import ODDITIES
from spine.prefect.client import MOST_ROWS, Deployment, DueRun, FlowRun, Prefect, ScheduleRow
from spine.prefect.filters import Json, RunFilter
from spine.prefect.schedules import timing_of
from spine.schedules.deployments import find_schedule, is_enabled
from spine.schedules.listing import with_any_tag
from spine.schedules.planned_runs import planned_for
from spine.schedules.schemas import NextRunPreview
from spine.schedules.timing import describe
from spine.tables.base import utc_now
from spine.workflows.known_domains import DomainTags

# Dates of schedules, by the id of Prefect's row for each.
Times = Mapping[UUID, set[datetime]]

# A worker fetches a planned run seconds before it is due; the run is then PENDING.
_WILL_RUN: Json = {"type": {"any_": ["SCHEDULED", "PENDING"]}}
_WILL_NOT: Json = {"type": {"not_any_": ["SCHEDULED", "PENDING"]}}
_NOT_PAUSED: Json = {"paused": {"eq_": False}}
# How many dates of a schedule are computed at first; more are computed when needed.
_FIRST_BATCH = 2


@dataclass(frozen=True)
class _Known:
    """What Prefect's runs show about the future: dates at which schedules will run, and dates when they will not."""

    planned: Times = field(default_factory=dict)
    dropped: Times = field(default_factory=dict)

    def has(self, row: ScheduleRow) -> bool:
        """Whether a schedule has such runs, so that its class alone does not give its next date."""
        return row.id in self.planned or row.id in self.dropped


async def next_runs(prefect: Prefect, deployments: Sequence[Deployment], now: datetime) -> dict[UUID, datetime | None]:
    """When each of these runs next; None if it is disabled or has no date left.

    This takes one call of Prefect, and a second one if there are intervals of days in a time zone, whose next date
    depends on the planned runs.
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
    prefect: Prefect,
    count: int,
    id_or_name: str | None,
    domains: Domains,
    tags: DomainTags,
    now: datetime | None = None,
) -> list[NextRunPreview]:
    """The next `count` runs from `now` on, of one schedule of these domains or of all enabled ones with these tags.

    They are in order of time, then name. Raises `NotFound` for an unknown schedule.
    """
    now = now or utc_now()
    if id_or_name is None:
        if tags is not None and not tags:
            return []
        deployments, planned = await _soonest(prefect, count, tags, now)
    else:
        deployments = [await find_schedule(prefect, domains, id_or_name)]
        planned = await _planned(prefect, count, now, {"id": {"any_": [str(deployments[0].id)]}})
    deployments = [deployment for deployment in deployments if is_enabled(deployment)]
    known = _Known(_by_row(planned), await _times_of_runs(prefect, deployments, _WILL_NOT, now))
    return await _merge(deployments, known, count, now)


async def _soonest(
    prefect: Prefect, count: int, tags: DomainTags, now: datetime
) -> tuple[Iterable[Deployment], Sequence[DueRun]]:
    """The deployments that have the next `count` runs, and the next runs that Prefect has planned.

    Only those with one of the `tags` count.

    Planned runs are read in order of time. Let U be the time of the `count`-th planned run of active schedules: all of
    these runs are due by U. A schedule that is not among them has nothing planned before U, and Prefect plans each
    active schedule from its next date on, without gaps. So that schedule cannot run before U, unless it was created so
    few seconds ago that Prefect has not planned it yet. If the planned runs may not include all schedules that run at U
    itself, the first `count` of these by name are read. The next runs are therefore those of the deployments returned
    here; their own dates are merged as far as needed, also beyond the last planned run of each.

    If fewer than `count` runs are planned, all deployments are read: either there are few schedules, or they run more
    than a hundred days from now, or one was disabled between two calls.
    """
    tagged = with_any_tag(tags)
    planned = await _planned(prefect, count + 1, now, tagged)
    found = await prefect.deployments_by_id(list({run.deployment_id for run in planned if run.deployment_id}))
    active = {row.id for deployment in found.values() if is_enabled(deployment) for row in _active(deployment)}
    planned = [run for run in planned if planned_for(run) in active]
    if len(planned) < count:
        return await prefect.deployments({"deployments": {**_NOT_PAUSED, **tagged}}), planned
    last = planned[count - 1].expected_start_time
    if planned[-1].expected_start_time == last and last is not None:
        at_last = _by_schedules(_WILL_RUN, last).between("expected_start_time", until=last)
        wanted = {"deployments": {**_NOT_PAUSED, **tagged}, **at_last.to_json()}
        due_then = await prefect.page_of_deployments(wanted, 0, count, "NAME_ASC")
        found |= {deployment.id: deployment for deployment in due_then}
    return found.values(), planned


async def _planned(prefect: Prefect, count: int, now: datetime, deployments: Json) -> list[DueRun]:
    """The next runs that Prefect has planned for the schedules of matching deployments, by due time.

    Not by scheduled time, which is in the future also for a run that waits for a retry or for a concurrency slot.
    """
    wanted = replace(_by_schedules(_WILL_RUN, now), deployments=deployments)
    return await prefect.due_runs(wanted, count)


async def _times_of_runs(prefect: Prefect, deployments: Sequence[Deployment], state: Json, now: datetime) -> Times:
    """The future due times of all runs of these deployments' schedules in a matching state."""
    ids = [str(deployment.id) for deployment in deployments]
    batches = [ids[start : start + MOST_ROWS] for start in range(0, len(ids), MOST_ROWS)]
    wanted = _by_schedules(state, now)
    found = await asyncio.gather(*(prefect.all_runs(wanted.where(deployment_id={"any_": batch})) for batch in batches))
    return _by_row(run for runs in found for run in runs)


def _by_schedules(state: Json, now: datetime) -> RunFilter:
    by_schedules = RunFilter(runs={"created_by": {"type_": ["SCHEDULE"]}, "state": state})
    return by_schedules.between("expected_start_time", since=now)


def _by_row(runs: Iterable[FlowRun | DueRun]) -> Times:
    times: dict[UUID, set[datetime]] = defaultdict(set)
    for run in runs:
        row_id = planned_for(run)
        if row_id is not None and run.expected_start_time is not None:
            times[row_id].add(run.expected_start_time)
    return dict(times)


def _active(deployment: Deployment) -> list[ScheduleRow]:
    """The active schedules whose dates can be computed; others are set aside."""
    return [row for row in deployment.schedules if row.active and _is_known(row)]


def _is_known(row: ScheduleRow) -> bool:
    try:
        timing_of(row.schedule)
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError) as error:
        ODDITIES.found("schedule", row.id, f"its timing is not one that Spine knows ({type(error).__name__})")
        return False
    return True


async def _first(row: ScheduleRow, known: _Known, now: datetime) -> datetime | None:
    if known.has(row):
        return await _TimesAhead(row, known, now).take()
    return await timing_of(row.schedule).next_from(now)


class _TimesAhead:
    """The dates of one schedule from a time on, in order: planned and computed dates without the dropped ones."""

    def __init__(self, row: ScheduleRow, known: _Known, now: datetime) -> None:
        self._timing = timing_of(row.schedule)
        self._now = now
        self._planned = known.planned.get(row.id, set())
        self._dropped = known.dropped.get(row.id, set())
        self._size = _FIRST_BATCH + len(self._dropped)
        self._times: list[datetime] = []
        self._taken = 0
        self._ends = False

    async def take(self) -> datetime | None:
        """The next date, or None after the last."""
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
        # The next batch may have dates before those that are planned beyond the last computed date.
        self._times = times if self._ends else [time for time in times if time <= computed[-1]]
        self._size *= 4


async def _merge(deployments: Iterable[Deployment], known: _Known, count: int, now: datetime) -> list[NextRunPreview]:
    """The next `count` dates of these deployments; for each schedule, few more are computed than are shown."""
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
