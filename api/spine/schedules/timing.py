"""When a schedule runs: from a request's fields to Prefect's schedule, and from there to a response's fields."""

from datetime import datetime
from difflib import get_close_matches
from math import ceil

from spine.errors import BadRequest, FieldError
from spine.prefect.client import Deployment, ScheduleRow
from spine.prefect.filters import Json
from spine.prefect.schedules import cron_schedule, interval_schedule, known_timezones, timing_of
from spine.schedules.schemas import ScheduleTiming


async def make_timing(
    cron_expression: str | None, interval_seconds: float | None, timezone: str, now: datetime
) -> Json:
    """Prefect's schedule for a cron expression or for an interval, which counts from `now`.

    Raises `BadRequest` with the field for both or neither, a value that Prefect refuses, an unknown time zone, and a
    cron expression that matches no date.
    """
    if (cron_expression is None) == (interval_seconds is None):
        given = "both" if cron_expression is not None else "neither"
        raise BadRequest(
            f"A schedule needs exactly one of cron_expression and interval_seconds; this request has {given}.",
            [FieldError(("body", "cron_expression"), "exactly one of cron_expression and interval_seconds")],
        )
    if timezone not in known_timezones():
        near = get_close_matches(timezone, known_timezones(), n=2)
        hint = f" Did you mean {' or '.join(repr(name) for name in near)}?" if near else ""
        raise _invalid("timezone", f"{timezone!r} is not the name of an IANA time zone.{hint}")
    if cron_expression is None:
        return interval_schedule(interval_seconds or 0, timezone, now)
    try:
        schedule = cron_schedule(cron_expression, timezone)
    except ValueError as reason:
        raise _invalid("cron_expression", f"{reason}.") from None
    if await timing_of(schedule).next_from(now) is None:
        raise _invalid("cron_expression", f"{cron_expression!r} matches no date, so the schedule would never run.")
    return schedule


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
        enabled=row.active,
    )


def changed_timing(deployment: Deployment, changes: Json) -> tuple[str | None, float | None, str]:
    """The cron expression, interval and time zone of a deployment with at most one schedule after `changes`.

    Setting one of cron expression and interval clears the other.
    """
    now = describe(deployment.schedules[0]) if deployment.schedules else None
    cron = changes.get("cron_expression", now.cron_expression if now else None)
    interval = changes.get("interval_seconds", now.interval_seconds if now else None)
    if changes.get("cron_expression") is not None and changes.get("interval_seconds") is None:
        interval = None
    elif changes.get("interval_seconds") is not None and changes.get("cron_expression") is None:
        cron = None
    return cron, interval, changes.get("timezone") or (now.timezone if now else "UTC")


def whole_seconds(interval: float | None) -> int | None:
    """An interval in whole seconds, as the API has it; Prefect's fractions of a second are rounded up."""
    return None if interval is None else ceil(interval)
