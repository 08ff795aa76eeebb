"""When schedules run: Prefect's own schedule classes, asked for validation and for dates.

These are the classes of Prefect's server, the ones that its scheduler plans runs with. A schedule is their JSON, as a
deployment's row carries it: `{"cron", "timezone", "day_or"}`, `{"interval", "anchor_date", "timezone"}` or
`{"rrule", "timezone"}`.

Near a change of the clock those classes depend on the moment from which they are asked: inside the hours that the clock
skips or shows twice they give dates that are past, and leave out some that Prefect has planned before. What Prefect
runs then is what it planned ahead (it plans each date once), so they are asked from some hours before. Two things can
be known only from its planned runs. An interval of a day or more goes on at another hour once the clock has changed,
and for some days Prefect runs it at both (`Timing.depends_on_start`). In the hour that comes twice, an interval of an
hour runs once, and one of minutes at some of its dates of the second time, depending on when the scheduler came by.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from math import ceil
from zoneinfo import ZoneInfo, available_timezones

from prefect.server.schemas.schedules import SCHEDULE_TYPES, CronSchedule, IntervalSchedule
from pydantic import TypeAdapter, ValidationError

from spine.prefect.filters import Json

_SCHEDULE: TypeAdapter[SCHEDULE_TYPES] = TypeAdapter(SCHEDULE_TYPES)

_DAY = timedelta(days=1)
# This far from a change of the clock, the moment from which Prefect's classes are asked does not matter.
_AROUND_A_CHANGE = timedelta(hours=3)


class Timing:
    """One schedule as its class knows it; make it with `timing_of`, which keeps those made before."""

    def __init__(self, schedule: SCHEDULE_TYPES) -> None:
        self._schedule = schedule
        self._zone = ZoneInfo(schedule.timezone or "UTC")
        interval = schedule.interval if isinstance(schedule, IntervalSchedule) else None
        # A cron of five fields has at most one date for each minute; so have nearly all recurrence rules.
        self._most_passed = ceil(_AROUND_A_CHANGE / (interval or timedelta(minutes=1)))
        self.depends_on_start = interval is not None and interval >= _DAY and schedule.timezone != "UTC"
        """Whether what is planned already can be at another hour than what is computed from a later moment."""
        self._asked: datetime | None = None
        self._answer: datetime | None = None

    async def next_from(self, start: datetime) -> datetime | None:
        """The first date at or after `start`; None when there is none."""
        if self._asked is None or not self._still_holds(start):
            dates = await self.dates_from(start, 1)
            self._asked, self._answer = start, dates[0] if dates else None
        return self._answer

    async def dates_from(self, start: datetime, count: int) -> Sequence[datetime]:
        """The first `count` dates from `start` on, in UTC and in order; fewer when there are no more."""
        if not self._clock_changes_near(start):
            return await self._dates(start, count)
        earlier = timedelta(0) if self.depends_on_start else _AROUND_A_CHANGE
        dates = await self._dates(start - earlier, count + self._most_passed)
        return [date for date in dates if date >= start][:count]

    def _clock_changes_near(self, moment: datetime) -> bool:
        before, after = (one.astimezone(self._zone) for one in (moment - _AROUND_A_CHANGE, moment + _AROUND_A_CHANGE))
        return before.utcoffset() != after.utcoffset()

    async def _dates(self, start: datetime, count: int) -> list[datetime]:
        try:
            # Only the class for recurrence rules has a type that forgot None.
            dates = await self._schedule.get_dates(n=count, start=start, end=None)  # type: ignore[arg-type]
        except ValueError:
            # The cron expression names a day that never comes, such as the 31st of February.
            return []
        return sorted(date.astimezone(UTC) for date in dates)

    def _still_holds(self, start: datetime) -> bool:
        # No date lies between the moment asked for before and its answer.
        return self._asked is not None and self._asked <= start and (self._answer is None or start <= self._answer)


def timing_of(schedule: Json) -> Timing:
    """What tells when a schedule of a deployment runs. Raises `ValueError` for one that Prefect does not take."""
    return _timing(json.dumps(schedule, sort_keys=True))


@lru_cache(maxsize=20_000)
def _timing(schedule: str) -> Timing:
    return Timing(_SCHEDULE.validate_json(schedule))


def cron_schedule(expression: str, timezone: str) -> Json:
    """A schedule by cron expression of five fields, in the time of `timezone`.

    Raises `ValueError` with a sentence for people when Prefect's class does not take it.
    """
    fields = expression.split()
    if len(fields) != 5 and not expression.startswith("@"):
        raise ValueError(
            f"{expression!r} has {len(fields)} fields; a cron expression has five: "
            "minute, hour, day of month, month, day of week"
        )
    try:
        return CronSchedule(cron=expression, timezone=timezone).model_dump(mode="json")
    except ValidationError as error:
        raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None


def interval_schedule(seconds: float, timezone: str, anchor: datetime) -> Json:
    """A schedule that runs every so many seconds, counted from `anchor`.

    Intervals of a day and more keep their hour over changes of the clock in `timezone`.
    """
    return IntervalSchedule(interval=timedelta(seconds=seconds), anchor_date=anchor, timezone=timezone).model_dump(
        mode="json"
    )


@lru_cache(maxsize=1)
def known_timezones() -> frozenset[str]:
    """The names of the IANA time zones."""
    return frozenset(available_timezones())
