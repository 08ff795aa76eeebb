"""The list of runs: from the query of `GET /runs` to filters that Prefect understands, and from runs to summaries.

Runs that a schedule has only planned (SCHEDULED, due in the future) are not listed. Prefect has no filter for "not
planned", so where planned runs could match, the filter is split into parts that do not overlap and that exclude them.
Nearly always all parts but one are empty.
"""

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta

from spine.names import DOMAIN_TAG_PREFIX
from spine.oddities import make_each
from spine.pagination import Page, PageRequest, make_page
from spine.prefect.client import FlowRun, Prefect
from spine.prefect.filters import RunFilter
from spine.tables.base import utc_now
from spine.workflows.errors_in_lists import errors_in_list
from spine.workflows.known_domains import DomainTags
from spine.workflows.labels import domain_of, schedule_of, trigger_of, with_trigger
from spine.workflows.manual_runs import ManualRuns
from spine.workflows.run_pages import read_page
from spine.workflows.schemas import RunStatus, RunTrigger, WorkflowRunSummary
from spine.workflows.step_counts import step_counts
from spine.workflows.steps import StepCounts

STATE_TYPES: dict[RunStatus, list[str]] = {
    RunStatus.PENDING: ["SCHEDULED", "PENDING"],
    RunStatus.RUNNING: ["RUNNING", "CANCELLING", "PAUSED"],
    RunStatus.COMPLETED: ["COMPLETED"],
    RunStatus.FAILED: ["FAILED", "CRASHED"],
    RunStatus.CANCELLED: ["CANCELLED"],
}

STATUS_OF_STATE = {state: status for status, states in STATE_TYPES.items() for state in states}

# Runs that no schedule created; besides schedules, Prefect 3.8 knows these two kinds of creator.
NOT_BY_A_SCHEDULE = {"operator": "or_", "is_null_": True, "type_": ["AUTOMATION", "DEPLOYMENT"]}


@dataclass(frozen=True)
class RunQuery:
    """The filters of `GET /runs`, combined with AND. Times are aware."""

    status: RunStatus | None = None
    workflow_name: str | None = None
    domain: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    trigger: RunTrigger | None = None
    # Only runs with one of these tags; None: all runs.
    tags: DomainTags = None


async def list_runs(
    prefect: Prefect, manual: ManualRuns, query: RunQuery, page: PageRequest
) -> Page[WorkflowRunSummary]:
    """A page of runs, newest start first."""
    if query.trigger is RunTrigger.MANUAL and (query.tags is None or query.tags):
        runs, total = await manual.page(prefect, _wanted(query), page)
    else:
        runs, total = await read_page(prefect, filters_for(query, utc_now()), page)
    names, counts, errors = await asyncio.gather(
        prefect.flow_names({run.flow_id for run in runs}),
        step_counts(prefect, runs),
        errors_in_list(prefect, runs),
    )

    def summary(run: FlowRun) -> WorkflowRunSummary:
        return summarize(run, names.get(run.flow_id), counts[run.id], errors.get(run.id))

    shown = make_each("flow run", runs, summary, lambda run: run.id)
    return make_page(shown, total, page)


def summarize(run: FlowRun, workflow_name: str | None, counts: StepCounts, error: str | None) -> WorkflowRunSummary:
    """The summary of a run."""
    return WorkflowRunSummary(
        run_id=run.id,
        workflow_name=workflow_name or str(run.flow_id),
        status=status_of(run),
        trigger=trigger_of(run),
        domain=domain_of(run.tags),
        created_at=run.created or run.expected_start_time or utc_now(),
        started_at=run.start_time,
        completed_at=run.end_time,
        duration_seconds=_duration_seconds(run),
        step_count=counts.total,
        completed_step_count=counts.completed,
        failed_step_count=counts.failed,
        error=error,
        schedule_id=schedule_of(run),
    )


def status_of(run: FlowRun) -> RunStatus:
    """The status of a run in the API."""
    return STATUS_OF_STATE[run.state_type.value] if run.state_type else RunStatus.PENDING


def _duration_seconds(run: FlowRun) -> float | None:
    if run.start_time is None:
        return None
    end: datetime = run.end_time or utc_now()
    return round((end - run.start_time).total_seconds(), 3)


def filters_for(query: RunQuery, now: datetime) -> list[RunFilter]:
    """Filters without overlap that together match what `query` selects, the one that matches most runs first."""
    if query.tags is not None and not query.tags:
        return []
    wanted = _wanted(query)
    parts = [wanted] if query.trigger is None else with_trigger(wanted, query.trigger)
    if query.trigger in (None, RunTrigger.SCHEDULE) and query.status in (None, RunStatus.PENDING):
        return [part for whole in parts for part in _without_planned(whole, query, now)]
    return parts


def _wanted(query: RunQuery) -> RunFilter:
    """The runs that match `query`, whatever triggered them."""
    wanted = RunFilter().started(since=query.since, until=query.until)
    if query.workflow_name is not None:
        wanted = RunFilter(runs=wanted.runs, flows={"name": {"any_": [query.workflow_name]}})
    if query.tags is not None:
        wanted = wanted.with_any_tag(query.tags)
    if query.domain is not None:
        wanted = wanted.where(tags={"all_": [f"{DOMAIN_TAG_PREFIX}{query.domain}"]})
    if query.status is not None:
        wanted = wanted.where(state={"type": {"any_": STATE_TYPES[query.status]}})
    return wanted


def _without_planned(whole: RunFilter, query: RunQuery, now: datetime) -> list[RunFilter]:
    due = whole.started(until=now)
    if query.until is not None and query.until <= now:
        return [due]
    future = whole.started(since=now + timedelta(microseconds=1))
    states = STATE_TYPES[query.status] if query.status else list(STATUS_OF_STATE)
    begun = future.where(state={"type": {"any_": [state for state in states if state != "SCHEDULED"]}})
    if query.trigger is RunTrigger.SCHEDULE:
        return [due, begun]
    set_by_hand = future.where(state={"type": {"any_": ["SCHEDULED"]}}, created_by=NOT_BY_A_SCHEDULE)
    return [due, begun, set_by_hand]
