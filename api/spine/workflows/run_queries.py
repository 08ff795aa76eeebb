"""From the query of `GET /runs` to filters that Prefect understands.

Runs that a schedule has only planned (SCHEDULED, due in the future) are no runs yet. Prefect has no filter for "not
planned", so where planned runs could be among the answer, the filter is split into parts without overlap that leave
them out. Nearly always all parts but one are empty.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from spine.prefect.filters import RunFilter
from spine.workflows.labels import DOMAIN_TAG_PREFIX, with_trigger
from spine.workflows.schemas import RunStatus, RunTrigger

STATE_TYPES: dict[RunStatus, list[str]] = {
    RunStatus.PENDING: ["SCHEDULED", "PENDING"],
    RunStatus.RUNNING: ["RUNNING", "CANCELLING", "PAUSED"],
    RunStatus.COMPLETED: ["COMPLETED"],
    RunStatus.FAILED: ["FAILED", "CRASHED"],
    RunStatus.CANCELLED: ["CANCELLED"],
}

STATUS_OF_STATE = {state: status for status, states in STATE_TYPES.items() for state in states}

# Runs with any creator but a schedule; Prefect 3.8 knows these two kinds of creator besides.
NOT_BY_A_SCHEDULE = {"operator": "or_", "is_null_": True, "type_": ["AUTOMATION", "DEPLOYMENT"]}


@dataclass(frozen=True)
class RunQuery:
    """The filters of `GET /runs`; all that are given must hold. Times are aware."""

    status: RunStatus | None = None
    workflow_name: str | None = None
    domain: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    trigger: RunTrigger | None = None

    @property
    def leaves_out_api_runs(self) -> bool:
        """Whether runs with the API's tag must still be taken out of what the filters find."""
        return self.trigger is RunTrigger.MANUAL


def filters_for(query: RunQuery, now: datetime) -> list[RunFilter]:
    """Filters without overlap that together hold what `query` asks for, the one with most of the runs first."""
    wanted = RunFilter().started(since=query.since, until=query.until)
    if query.workflow_name is not None:
        wanted = RunFilter(runs=wanted.runs, flows={"name": {"any_": [query.workflow_name]}})
    if query.domain is not None:
        wanted = wanted.where(tags={"all_": [f"{DOMAIN_TAG_PREFIX}{query.domain}"]})
    if query.status is not None:
        wanted = wanted.where(state={"type": {"any_": STATE_TYPES[query.status]}})
    parts = [wanted] if query.trigger is None else with_trigger(wanted, query.trigger)
    if query.trigger in (None, RunTrigger.SCHEDULE) and query.status in (None, RunStatus.PENDING):
        return [part for whole in parts for part in _without_planned(whole, query, now)]
    return parts


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
