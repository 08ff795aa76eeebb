"""The runs of a schedule: all runs of its deployment that are due or have started, newest due time first."""

from datetime import datetime

from spine.auth.domains import Domains
from spine.oddities import make_each
from spine.pagination import Page, PageRequest, make_page
from spine.prefect.client import Deployment, FlowRun, Prefect
from spine.prefect.filters import Json, RunFilter
from spine.schedules.deployments import find_schedule
from spine.schedules.schemas import ScheduleRunStatus, ScheduleRunSummary
from spine.tables.base import utc_now
from spine.text import shortened
from spine.workflows.errors_in_lists import errors_in_list
from spine.workflows.failures import LONGEST_IN_A_LIST
from spine.workflows.run_pages import BY_DUE_TIME, read_page

LATE = "Late"

_STATES: dict[ScheduleRunStatus, Json] = {
    ScheduleRunStatus.PENDING: {"type": {"any_": ["SCHEDULED", "PENDING"]}, "name": {"not_any_": [LATE]}},
    ScheduleRunStatus.RUNNING: {"type": {"any_": ["RUNNING", "CANCELLING", "PAUSED"]}},
    ScheduleRunStatus.COMPLETED: {"type": {"any_": ["COMPLETED"]}},
    ScheduleRunStatus.FAILED: {"type": {"any_": ["FAILED", "CRASHED"]}},
    ScheduleRunStatus.SKIPPED: {"type": {"any_": ["CANCELLED"]}},
    ScheduleRunStatus.MISSED: {"type": {"any_": ["SCHEDULED"]}, "name": {"any_": [LATE]}},
}

# A run in one of these states has started, even if it is due later: it was started early.
_STARTED = {"RUNNING", "CANCELLING", "PAUSED", "COMPLETED", "FAILED", "CRASHED"}


async def list_schedule_runs(
    prefect: Prefect, domains: Domains, id_or_name: str, status: ScheduleRunStatus | None, page: PageRequest
) -> Page[ScheduleRunSummary]:
    """A page of a schedule's runs. Raises `NotFound`."""
    deployment = await find_schedule(prefect, domains, id_or_name)
    now = utc_now()
    found, total = await read_page(prefect, _filters(deployment, status, now), page, order=BY_DUE_TIME)
    errors = await errors_in_list(prefect, found)

    def summary(run: FlowRun) -> ScheduleRunSummary:
        return _to_summary(run, deployment, now, errors.get(run.id))

    shown = make_each("flow run", found, summary, lambda run: run.id)
    return make_page(shown, total, page)


def status_of(run: FlowRun) -> ScheduleRunStatus:
    """The status of a run as a run of its schedule."""
    kind = run.state_type.value if run.state_type else "PENDING"
    if kind == "SCHEDULED" and run.state_name == LATE:
        return ScheduleRunStatus.MISSED
    return next(status for status, state in _STATES.items() if kind in state["type"]["any_"])


def _filters(deployment: Deployment, status: ScheduleRunStatus | None, now: datetime) -> list[RunFilter]:
    """Filters that do not overlap: one for the runs that are due, one for runs that started before they were due."""
    of_schedule = RunFilter(runs={"deployment_id": {"any_": [str(deployment.id)]}})
    wanted = of_schedule if status is None else of_schedule.where(state=_STATES[status])
    parts = [wanted.between("expected_start_time", until=now)]
    states = sorted(_STARTED if status is None else _STARTED & set(_STATES[status]["type"]["any_"]))
    if states:
        early = of_schedule.where(state={"type": {"any_": states}})
        # Prefect's times have microseconds, so nothing lies between the two parts.
        parts.append(early.between("expected_start_time", since=now + now.resolution))
    return parts


def _to_summary(run: FlowRun, deployment: Deployment, now: datetime, error: str | None) -> ScheduleRunSummary:
    status = status_of(run)
    skipped = status is ScheduleRunStatus.SKIPPED
    # Prefect gives a run that is cancelled before it starts a start time, equal to its end time.
    started = None if skipped and run.run_count == 0 else run.start_time
    reason = run.state.message if run.state else None
    return ScheduleRunSummary(
        id=run.id,
        schedule_id=deployment.id,
        schedule_name=deployment.name,
        status=status,
        scheduled_at=BY_DUE_TIME.time(run),
        started_at=started,
        completed_at=run.end_time,
        duration_seconds=round(((run.end_time or now) - started).total_seconds(), 3) if started else None,
        run_id=run.id,
        error=error,
        skip_reason=shortened(reason or "It was cancelled.", LONGEST_IN_A_LIST) if skipped else None,
    )
