"""Schedules of sources: for each source with a cron expression, a Prefect schedule of `spine.fetch_source`.

Only Prefect stores the timing, so that a change in Prefect's UI changes the source. The source's row stores which
schedule is its own.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from spine.audit.trail import within_another_change
from spine.auth.callers import Caller
from spine.auth.domains import EVERY_DOMAIN
from spine.database import SessionFactory, reading
from spine.errors import Conflict, NotFound
from spine.names import DOMAIN_TAG_PREFIX, looks_like_an_id
from spine.prefect.client import Deployment, Prefect
from spine.schedules.commands import create_schedule, delete_schedule, disable_schedule, enable_schedule
from spine.schedules.deployments import shown_tags
from spine.schedules.listing import ScheduleListing
from spine.schedules.names import refuse_taken
from spine.schedules.preview import next_runs
from spine.schedules.schemas import ScheduleCreate, ScheduleUpdate, TargetType
from spine.schedules.timing import describe, make_timing
from spine.schedules.update import update_schedule
from spine.sources.fetch_requests import FETCH_FLOW, SOURCE_TAG_PREFIX, find_fetch_flow, source_tag, source_tags
from spine.tables.base import utc_now
from spine.tables.sources import Source
from spine.workflows.deployments import is_schedule as made_over_api

_OWN_DESCRIPTION = re.compile(r"Fetches the source .*\.")
_OWN_TAGS = (SOURCE_TAG_PREFIX, DOMAIN_TAG_PREFIX)


@dataclass(frozen=True)
class FetchSchedule:
    """When a source is fetched: no cron expression without a schedule, and no next fetch while it is paused."""

    cron_expression: str | None = None
    next_fetch_at: datetime | None = None


class SourceSchedules:
    """Creates, changes and deletes the schedules of sources in Prefect, as parts of a change of the source."""

    def __init__(self, prefect: Prefect, sessions: SessionFactory, listing: ScheduleListing, caller: Caller) -> None:
        self._prefect = prefect
        self._sessions = sessions
        self._listing = listing
        self._caller = caller

    async def check(self, source_name: str, cron: str, *, is_new: bool) -> None:
        """Check a cron expression and, with `is_new`, the name that the schedule will have.

        Raises `BadRequest`, `Conflict` for a name that is taken, and `Unavailable` when the flow is not deployed.
        """
        await make_timing(cron, None, "UTC", utc_now())
        own = await find_fetch_flow(self._prefect)
        if is_new:
            await self._delete_leftover(own.flow_id, source_name)
            await refuse_taken(self._prefect, schedule_name(source_name))

    async def set(self, source: Source, cron: str | None) -> UUID | None:
        """Schedule a source by a cron expression in UTC, or remove its schedule; the schedule's id. Safe to repeat."""
        if cron is None:
            await self.remove(source)
            return None
        schedule = await self.schedule_of(source)
        if schedule is None:
            return await self._create(source, cron)
        await self._change(schedule, ScheduleUpdate(cron_expression=cron))
        return schedule.id

    async def update_labels(self, source: Source) -> None:
        """Write the source's current name and domain to its schedule, if it has one; safe to repeat.

        A description and other tags that were given in Prefect stay.
        """
        schedule = await self.schedule_of(source)
        if schedule is None:
            return
        labels = _labels(source)
        if not _OWN_DESCRIPTION.fullmatch(schedule.description or ""):
            del labels["description"]
        labels["tags"] += [tag for tag in shown_tags(schedule) or [] if not tag.startswith(_OWN_TAGS)]
        await self._change(schedule, ScheduleUpdate(**labels))

    async def refuse_unchangeable(self, source: Source) -> None:
        """Raise `Conflict` if a new cron expression cannot be set, because there are several schedules in Prefect."""
        schedule = await self.schedule_of(source)
        if schedule is not None and len(schedule.schedules) > 1:
            raise Conflict(
                f"The schedule {schedule.name!r} of the source has {len(schedule.schedules)} timings in Prefect; "
                "change them there."
            )

    async def switch(self, source: Source) -> None:
        """Pause the schedule of a source that is disabled, and resume that of one that is enabled."""
        schedule = await self.schedule_of(source)
        if schedule is None or not schedule.schedules:
            return
        switch = enable_schedule if source.enabled else disable_schedule
        with within_another_change():
            await switch(self._prefect, self._sessions, EVERY_DOMAIN, str(schedule.id))

    async def remove(self, source: Source) -> None:
        """Delete the schedule of a source, if it has one."""
        schedule = await self.schedule_of(source)
        if schedule is not None:
            await self._delete(schedule)

    async def schedule_of(self, source: Source) -> Deployment | None:
        """The schedule of a source; None when it has none, or when it was deleted in Prefect."""
        if source.schedule_id is None:
            return None
        try:
            return await self._prefect.read_deployment(source.schedule_id)
        except NotFound:
            return None

    async def read(self, source: Source) -> FetchSchedule:
        """When a source is fetched, according to Prefect."""
        schedule = await self.schedule_of(source)
        if schedule is None or not schedule.schedules:
            return FetchSchedule()
        following = await next_runs(self._prefect, [schedule], utc_now())
        return FetchSchedule(describe(schedule.schedules[0]).cron_expression, following[schedule.id])

    async def _create(self, source: Source, cron: str) -> UUID:
        body = ScheduleCreate(
            name=schedule_name(source.name),
            target_type=TargetType.WORKFLOW,
            target_name=FETCH_FLOW,
            target_params={"source": source.id},
            cron_expression=cron,
            enabled=source.enabled,
            **_labels(source),
        )
        with within_another_change():
            made = await create_schedule(self._prefect, self._sessions, self._caller, body, EVERY_DOMAIN)
        return UUID(made.id)

    async def _change(self, schedule: Deployment, changes: ScheduleUpdate) -> None:
        with within_another_change():
            await update_schedule(self._prefect, self._sessions, self._listing, EVERY_DOMAIN, str(schedule.id), changes)

    async def _delete(self, schedule: Deployment) -> None:
        with within_another_change():
            await delete_schedule(self._prefect, self._listing, EVERY_DOMAIN, str(schedule.id))

    async def _delete_leftover(self, fetch_flow_id: UUID, source_name: str) -> None:
        """Delete the schedule of a source that was never created, because Prefect's answer came too late.

        Schedules that were not made for a source stay, even when they have the same name.
        """
        found = await self._prefect.deployments({"deployments": {"name": {"any_": [schedule_name(source_name)]}}})
        for one in found:
            is_of_source = made_over_api(one) and one.flow_id == fetch_flow_id and source_tag(source_name) in one.tags
            if is_of_source and not await self._source_may_exist(one.parameters.get("source")):
                await self._delete(one)

    async def _source_may_exist(self, source_id: object) -> bool:
        """Whether there is a source with this id. True for a value that is not an id, as it may be a name."""
        if not isinstance(source_id, str) or not looks_like_an_id(source_id):
            return True
        async with reading(self._sessions) as session:
            return await session.get(Source, source_id.upper()) is not None


def schedule_name(source_name: str) -> str:
    """The name of a source's schedule in Prefect. It stays the same when the source is renamed."""
    return f"fetch-{source_name}"


def _labels(source: Source) -> dict[str, Any]:
    tags = source_tags(source.name, source.domain)
    return {"description": f"Fetches the source {source.name}.", "tags": tags}
