"""When a schedule runs: from a request's fields to Prefect's schedule, and from there to a response's fields."""

from datetime import UTC, datetime
from difflib import get_close_matches
from math import ceil

from spine.errors import BadRequest, FieldError
from spine.prefect.client import ScheduleRow
from spine.prefect.filters import Json
from spine.prefect.schedules import cron_schedule, interval_schedule, known_timezones, timing_of
from spine.schedules.schemas import ScheduleTiming


async def make_timing(
    cron_expression: str | None,
    interval_seconds: float | None,
    timezone: str,
    now: datetime,
    present: Json | None = None,
) -> Json:
    """Prefect's schedule for a cron expression or for an interval, which counts from `now`.

    `present` is the schedule that it replaces: `day_or` of a cron expression and the anchor of an interval stay.
    Raises `BadRequest` with the field for both or neither, a value that Prefect refuses, an unknown time zone, and a
    cron expression that matches no date.
    """
    if (cron_expression is None) == (interval_seconds is None):
        given = "both" if cron_expression is not None else "neither"
        raise BadRequest(
            f"A schedule needs exactly one of cron_expression and interval_seconds; this request has {given}.",
            [FieldError(("body", "cron_expression"), "exactly one of cron_expression and interval_seconds")],
        )
    _refuse_unknown_timezone(timezone)
    present = present or {}
    if cron_expression is None:
        anchor = present.get("anchor_date")
        return interval_schedule(interval_seconds or 0, timezone, datetime.fromisoformat(anchor) if anchor else now)
    day_or = bool(present.get("day_or", True))
    try:
        schedule = cron_schedule(cron_expression, timezone, day_or=day_or)
    except ValueError as reason:
        raise _invalid("cron_expression", f"{reason}.") from None
    if await timing_of(schedule).next_from(now) is None:
        both = "" if day_or else " on which its day of month and its day of week both match (day_or is false)"
        raise _invalid(
            "cron_expression", f"{cron_expression!r} matches no date{both}, so the schedule would never run."
        )
    return schedule


def _refuse_unknown_timezone(timezone: str) -> None:
    if timezone not in known_timezones():
        near = get_close_matches(timezone, known_timezones(), n=2)
        hint = f" Did you mean {' or '.join(repr(name) for name in near)}?" if near else ""
        raise _invalid("timezone", f"{timezone!r} is not the name of an IANA time zone.{hint}")


def _invalid(field: str, sentence: str) -> BadRequest:
    return BadRequest(sentence, [FieldError(("body", field), sentence)])


def describe(row: ScheduleRow) -> ScheduleTiming:
    """One of Prefect's schedules as a response shows it."""
    schedule = row.schedule
    return ScheduleTiming(
        cron_expression=schedule.get("cron"),
        interval_seconds=whole_seconds(schedule.get("interval")),
        rrule=schedule.get("rrule"),
        timezone=schedule.get("timezone") or "UTC",
        # Prefect's own defaults, for rows from before it stored them.
        day_or=schedule.get("day_or", True) if "cron" in schedule else None,
        anchor=_anchor_of(schedule),
        parameters=row.parameters or None,
        slug=row.slug,
        enabled=row.active,
    )


def _anchor_of(schedule: Json) -> datetime | None:
    anchor = schedule.get("anchor_date")
    return datetime.fromisoformat(anchor).astimezone(UTC) if anchor else None


async def changed_timing(row: ScheduleRow | None, sent: Json, now: datetime) -> Json | None:
    """Prefect's schedule after a change of some of the timing's fields; None if they say what it is already.

    All options of the schedule that were not sent stay, as far as the new kind of timing has them. Setting one of cron
    expression and interval clears the other. Raises `BadRequest` as `make_timing` does.
    """
    shown = describe(row) if row else None
    present = (shown.cron_expression, shown.interval_seconds, shown.timezone) if shown else (None, None, "UTC")
    cron, interval = sent.get("cron_expression", present[0]), sent.get("interval_seconds", present[1])
    if sent.get("cron_expression") is not None and sent.get("interval_seconds") is None:
        interval = None
    elif sent.get("interval_seconds") is not None and sent.get("cron_expression") is None:
        cron = None
    timezone = sent.get("timezone") or present[2]
    if (cron, interval, timezone) == present:
        return None
    if row and (cron, interval) == present[:2]:
        return _in_timezone(row.schedule, timezone)
    return await make_timing(cron, interval, timezone, now, row.schedule if row else None)


def _in_timezone(schedule: Json, timezone: str) -> Json:
    _refuse_unknown_timezone(timezone)
    moved = {**schedule, "timezone": timezone}
    try:
        timing_of(moved)
    except ValueError:
        raise _invalid("timezone", f"Prefect does not accept the time zone {timezone!r} for this schedule.") from None
    return moved


def whole_seconds(interval: float | None) -> int | None:
    """An interval in whole seconds, as the API has it; Prefect's fractions of a second are rounded up."""
    return None if interval is None else ceil(interval)
