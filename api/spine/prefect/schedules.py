"""When schedules run: Prefect's own schedule classes, used for validation and for dates.

These are the classes with which the scheduler of Prefect's server plans runs. A schedule is their JSON, as in a
deployment's row: `{"cron", "timezone", "day_or"}`, `{"interval", "anchor_date", "timezone"}` or
`{"rrule", "timezone"}`.

Near a change of the clock, the dates of those classes depend on the start from which they are computed: within the
hours that the clock skips or repeats they include past dates and omit dates that Prefect has already planned. What
Prefect then runs is what it planned earlier (it plans each date once), so dates are computed from some hours earlier.
Two cases can be known only from Prefect's planned runs. An interval of a day or more moves to another hour after the
clock has changed, and for some days Prefect runs it at both (`Timing.depends_on_start`). In the hour that the clock
repeats, an interval of one hour runs once, and an interval of minutes runs at some of its dates in the second pass,
depending on when the scheduler runs.
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
# At this distance from a change of the clock, dates no longer depend on the start of the computation.
_AROUND_A_CHANGE = timedelta(hours=3)


class Timing:
    """The dates of one schedule; make it with `timing_of`, which caches them."""

    def __init__(self, schedule: SCHEDULE_TYPES) -> None:
        self._schedule = schedule
        self._zone = ZoneInfo(schedule.timezone or "UTC")
        interval = schedule.interval if isinstance(schedule, IntervalSchedule) else None
        # A cron of five fields has at most one date for each minute; so have nearly all recurrence rules.
        self._most_passed = ceil(_AROUND_A_CHANGE / (interval or timedelta(minutes=1)))
        self.depends_on_start = interval is not None and interval >= _DAY and schedule.timezone != "UTC"
        """Whether planned runs can be at another hour than dates that are computed from a later start."""
        self._cached_start: datetime | None = None
        self._cached_next: datetime | None = None

    async def next_from(self, start: datetime) -> datetime | None:
        """The first date at or after `start`; None if there is none."""
        if not self._cache_covers(start):
            dates = await self.dates_from(start, 1)
            self._cached_start, self._cached_next = start, dates[0] if dates else None
        return self._cached_next

    async def dates_from(self, start: datetime, count: int) -> Sequence[datetime]:
        """The first `count` dates from `start` on, in UTC and in order; fewer if there are no more."""
        if not self._clock_changes_near(start):
            return await self._dates(start, count)
        earlier = timedelta(0) if self.depends_on_start else _AROUND_A_CHANGE
        dates = await self._dates(start - earlier, count + self._most_passed)
        return [date for date in dates if date >= start][:count]

    async def may_have(self, dates: Sequence[datetime]) -> set[datetime]:
        """Those of these dates at which the schedule runs, or may run near a change of the clock."""
        if self.depends_on_start or not dates:
            return set(dates)
        computed = set(await self._dates(min(dates), len(dates)))
        others = [date for date in dates if date not in computed]
        return computed.intersection(dates) | {
            date for date in others if self._clock_changes_near(date) or await self._dates(date, 1) == [date]
        }

    def _clock_changes_near(self, moment: datetime) -> bool:
        before, after = (one.astimezone(self._zone) for one in (moment - _AROUND_A_CHANGE, moment + _AROUND_A_CHANGE))
        return before.utcoffset() != after.utcoffset()

    async def _dates(self, start: datetime, count: int) -> list[datetime]:
        try:
            # Only the class for recurrence rules has a type without None.
            dates = await self._schedule.get_dates(n=count, start=start, end=None)  # type: ignore[arg-type]
        except ValueError:
            # The cron expression has a day that never occurs, such as the 31st of February.
            return []
        return sorted(date.astimezone(UTC) for date in dates)

    def _cache_covers(self, start: datetime) -> bool:
        # There is no date between the cached start and the cached next date.
        if self._cached_start is None or start < self._cached_start:
            return False
        return self._cached_next is None or start <= self._cached_next


def timing_of(schedule: Json) -> Timing:
    """The dates of a deployment's schedule. Raises `ValueError` for a schedule that Prefect rejects."""
    return _timing(json.dumps(schedule, sort_keys=True))


@lru_cache(maxsize=20_000)
def _timing(schedule: str) -> Timing:
    return Timing(_SCHEDULE.validate_json(schedule))


def cron_schedule(expression: str, timezone: str, *, day_or: bool = True) -> Json:
    """A schedule with a cron expression of five fields, in the time of `timezone`.

    Without `day_or`, a day must match both the day of month and the day of week. Raises `ValueError` with a sentence
    for users if Prefect's class rejects it.
    """
    fields = expression.split()
    if len(fields) != 5 and not expression.startswith("@"):
        raise ValueError(
            f"{expression!r} has {len(fields)} fields; a cron expression has five: "
            "minute, hour, day of month, month, day of week"
        )
    try:
        return CronSchedule(cron=expression, timezone=timezone, day_or=day_or).model_dump(mode="json")
    except ValidationError as error:
        raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None


def interval_schedule(seconds: float, timezone: str, anchor: datetime) -> Json:
    """A schedule that runs every `seconds`, counted from `anchor`.

    Intervals of a day or more stay at the same hour when the clock changes in `timezone`.
    """
    return IntervalSchedule(interval=timedelta(seconds=seconds), anchor_date=anchor, timezone=timezone).model_dump(
        mode="json"
    )


@lru_cache(maxsize=1)
def known_timezones() -> frozenset[str]:
    """The names of the IANA time zones."""
    return frozenset(available_timezones())
