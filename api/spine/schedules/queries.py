"""Read schedules: a page, and one."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from spine.auth.domains import Domains
from spine.database import SessionFactory
from spine.errors import Conflict
from spine.oddities import make_each
from spine.pagination import Page, PageRequest, make_page
from spine.prefect.client import Deployment, Prefect
from spine.prefect.filters import Json
from spine.run_history.statistics import Statistics, read_statistics
from spine.schedules.deployments import (
    CREATED_BY_LABEL,
    find_schedule,
    has_schedule,
    is_enabled,
    max_instances_of,
    overlap_policy_of,
    shown_description,
    shown_tags,
    target_type_of,
)
from spine.schedules.listing import ScheduleListing, with_any_tag
from spine.schedules.preview import next_runs
from spine.schedules.problems import problem_of
from spine.schedules.schemas import ScheduleResponse, TargetType
from spine.schedules.timing import describe
from spine.tables.base import utc_now
from spine.workflows.known_domains import DomainTags


@dataclass(frozen=True)
class ScheduleQuery:
    """The filters of `GET /schedules`, combined with AND."""

    enabled: bool | None = None
    target_type: TargetType | None = None
    target_name: str | None = None
    # Only schedules with one of these tags; None: all schedules.
    tags: DomainTags = None


async def list_schedules(
    prefect: Prefect, sessions: SessionFactory, listing: ScheduleListing, query: ScheduleQuery, page: PageRequest
) -> Page[ScheduleResponse]:
    """A page of schedules, newest first."""
    flows: Json = {} if query.target_name is None else {"flows": {"name": {"any_": [query.target_name]}}}
    if query.tags is not None and not query.tags:
        return make_page([], 0, page)
    if query.enabled is None and query.target_type is None:
        rows, total = await listing.page(prefect, flows, query.tags, page)
    else:
        # Prefect cannot filter by these, so all that could match are read.
        not_paused: Json = {"paused": {"eq_": False}} if query.enabled else {}
        wanted = {"deployments": {**not_paused, **with_any_tag(query.tags)}, **flows}
        matching = [one for one in await prefect.deployments(wanted) if _matches(one, query)]
        rows, total = matching[page.offset : page.offset + page.limit], len(matching)
    return make_page(await present(prefect, sessions, listing, rows), total, page)


async def read_schedule(
    prefect: Prefect, sessions: SessionFactory, listing: ScheduleListing, domains: Domains, id_or_name: str
) -> ScheduleResponse:
    """One schedule. Raises `NotFound`."""
    return await present_one(prefect, sessions, listing, await find_schedule(prefect, domains, id_or_name))


async def present_one(
    prefect: Prefect, sessions: SessionFactory, listing: ScheduleListing, deployment: Deployment
) -> ScheduleResponse:
    """One schedule. Raises `Conflict` if it has a value that Spine does not know."""
    shown = await present(prefect, sessions, listing, [deployment])
    if not shown:
        raise Conflict(f"The schedule {deployment.name!r} has a value in Prefect that Spine does not know.")
    return shown[0]


async def present(
    prefect: Prefect, sessions: SessionFactory, listing: ScheduleListing, rows: Sequence[Deployment]
) -> list[ScheduleResponse]:
    """Schedules with their statistics and next run times; the number of calls does not depend on how many there are."""
    if not rows:
        return []
    statistics, following, names = await asyncio.gather(
        read_statistics(prefect, sessions, [row.id for row in rows]),
        next_runs(prefect, rows, utc_now()),
        prefect.flow_names({row.flow_id for row in rows}),
    )
    return make_each(
        "schedule",
        rows,
        lambda row: _to_response(row, names.get(row.flow_id, str(row.flow_id)), statistics[row.id], following[row.id]),
        lambda row: row.id,
    )


def _matches(deployment: Deployment, query: ScheduleQuery) -> bool:
    return (
        has_schedule(deployment)
        and query.enabled in (None, is_enabled(deployment))
        and query.target_type in (None, target_type_of(deployment))
    )


def _to_response(
    deployment: Deployment, flow_name: str, statistics: Statistics, next_run_at: datetime | None
) -> ScheduleResponse:
    timings = [describe(row) for row in deployment.schedules]
    # With several timings these fields are null, and `timings` has them all.
    only = timings[0] if len(timings) == 1 else None
    zones = {timing.timezone for timing in timings}
    of_row = deployment.schedules[0].parameters if only else {}
    changed = [row.updated for row in deployment.schedules if row.updated is not None]
    creator = deployment.labels.get(CREATED_BY_LABEL)
    return ScheduleResponse(
        id=deployment.id,
        name=deployment.name,
        target_type=target_type_of(deployment),
        target_name=flow_name,
        target_params={**deployment.parameters, **of_row} or None,
        cron_expression=only.cron_expression if only else None,
        interval_seconds=only.interval_seconds if only else None,
        timezone=zones.pop() if len(zones) == 1 else "UTC",
        enabled=is_enabled(deployment),
        description=shown_description(deployment),
        tags=shown_tags(deployment),
        max_instances=max_instances_of(deployment),
        overlap_policy=overlap_policy_of(deployment),
        last_run_at=statistics.last_run_at,
        next_run_at=next_run_at,
        run_count=statistics.run_count,
        success_count=statistics.success_count,
        failure_count=statistics.failure_count,
        consecutive_failures=statistics.consecutive_failures,
        created_at=deployment.created,
        updated_at=max([deployment.updated, *changed]),
        created_by=None if creator is None else str(creator),
        timings=timings,
        problem=problem_of(deployment),
    )
