"""Fetching by the clock: a Prefect schedule of `spine.fetch_source` for each source that has a cron expression.

Its timing is Prefect's alone, so that a change in Prefect's UI is a change of the source. The source's row only knows
which schedule is its own.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from spine.auth.callers import Caller
from spine.database import SessionFactory, reading
from spine.errors import NotFound
from spine.names import looks_like_an_id
from spine.prefect.client import Deployment, Prefect
from spine.schedules.commands import create_schedule, delete_schedule, disable_schedule, enable_schedule
from spine.schedules.listing import ScheduleListing
from spine.schedules.names import refuse_taken
from spine.schedules.preview import next_runs
from spine.schedules.schemas import ScheduleCreate, ScheduleUpdate, TargetType
from spine.schedules.timing import describe, make_timing
from spine.schedules.update import update_schedule
from spine.sources.fetch_requests import FETCH_FLOW, find_fetch_flow, source_tag
from spine.tables.base import utc_now
from spine.tables.sources import Source
from spine.workflows.deployments import is_schedule as made_over_api
from spine.workflows.labels import DOMAIN_TAG_PREFIX


@dataclass(frozen=True)
class FetchTimes:
    """When a source is fetched by the clock: nulls when it is not, or not now."""

    cron_expression: str | None = None
    next_fetch_at: datetime | None = None


class SourceSchedules:
    """The schedules of sources, as Prefect has them."""

    def __init__(self, prefect: Prefect, sessions: SessionFactory, listing: ScheduleListing, caller: Caller) -> None:
        self._prefect = prefect
        self._sessions = sessions
        self._listing = listing
        self._caller = caller

    async def check(self, source_name: str, cron: str, *, is_new: bool) -> None:
        """Refuse what could not be scheduled. Raises `BadRequest`, `Conflict`, and `Unavailable` without the flow."""
        await make_timing(cron, None, "UTC", utc_now())
        own = await find_fetch_flow(self._prefect)
        if is_new:
            await self._clear_up(own.flow_id, source_name)
            await refuse_taken(self._prefect, schedule_name(source_name))

    async def set(self, source: Source, cron: str | None) -> UUID | None:
        """Let a source be fetched by this cron expression in UTC, or not by the clock any more; its schedule's id.

        Safe to repeat.
        """
        present = await self.schedule_of(source)
        if cron is None:
            await self.remove(source)
            return None
        if present is None:
            return await self._create(source, cron)
        await self._change(present, ScheduleUpdate(cron_expression=cron, **_labels(source)))
        return present.id

    async def label(self, source: Source) -> None:
        """Let the schedule of a source, if it has one, say how the source is called now and where it belongs."""
        present = await self.schedule_of(source)
        if present is not None:
            await self._change(present, ScheduleUpdate(**_labels(source)))

    async def switch(self, source: Source) -> None:
        """Pause the schedule of a disabled source, and let that of an enabled one go on."""
        present = await self.schedule_of(source)
        if present is None or not present.schedules:
            return
        switch = enable_schedule if source.enabled else disable_schedule
        await switch(self._prefect, self._sessions, str(present.id))

    async def remove(self, source: Source) -> None:
        """Delete the schedule of a source, if it is still there."""
        present = await self.schedule_of(source)
        if present is not None:
            await delete_schedule(self._prefect, self._listing, str(present.id))

    async def schedule_of(self, source: Source) -> Deployment | None:
        """The schedule of a source; None without one, or when it was deleted in Prefect."""
        if source.schedule_id is None:
            return None
        try:
            return await self._prefect.read_deployment(source.schedule_id)
        except NotFound:
            return None

    async def read(self, source: Source) -> FetchTimes:
        """When a source is fetched, as Prefect has it now."""
        schedule = await self.schedule_of(source)
        if schedule is None or not schedule.schedules:
            return FetchTimes()
        following = await next_runs(self._prefect, [schedule], utc_now())
        return FetchTimes(describe(schedule.schedules[0]).cron_expression, following[schedule.id])

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
        made = await create_schedule(self._prefect, self._sessions, self._caller, body)
        return UUID(made.id)

    async def _change(self, schedule: Deployment, changes: ScheduleUpdate) -> None:
        await update_schedule(self._prefect, self._sessions, self._listing, str(schedule.id), changes)

    async def _clear_up(self, fetch_flow_id: UUID, source_name: str) -> None:
        """Delete a schedule whose source was never made, as Prefect's answer did not come in time.

        Somebody else's schedule can have this name, too.
        """
        found = await self._prefect.deployments({"deployments": {"name": {"any_": [schedule_name(source_name)]}}})
        for one in found:
            is_a_sources = made_over_api(one) and one.flow_id == fetch_flow_id and source_tag(source_name) in one.tags
            if is_a_sources and not await self._may_exist(one.parameters.get("source")):
                await delete_schedule(self._prefect, self._listing, str(one.id))

    async def _may_exist(self, source_id: object) -> bool:
        """Whether a source has this id, or may have it as its name."""
        if not isinstance(source_id, str) or not looks_like_an_id(source_id):
            return True
        async with reading(self._sessions) as session:
            return await session.get(Source, source_id.upper()) is not None


def schedule_name(source_name: str) -> str:
    """What the schedule of a source is called in Prefect; it keeps the name when the source gets another."""
    return f"fetch-{source_name}"


def _labels(source: Source) -> dict[str, Any]:
    tags = [source_tag(source.name), *([f"{DOMAIN_TAG_PREFIX}{source.domain}"] if source.domain else [])]
    return {"description": f"Fetches the source {source.name}.", "tags": tags}
