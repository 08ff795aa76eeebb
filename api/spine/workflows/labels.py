"""Where a run came from and what it belongs to, read from what Prefect keeps on it.

Spine marks the runs that it starts: a tag, because Prefect filters by tags, and a label with the name of the caller,
because labels are out of people's way in the UI.
"""

from collections.abc import Iterable
from uuid import UUID

from spine.prefect.client import FlowRun
from spine.prefect.filters import RunFilter
from spine.severity import Severity
from spine.workflows.schemas import RunTrigger

API_TAG = "spine:api"
CALLER_LABEL = "spine.triggered_by"
# On deployments that were made over the API as schedules, with the name; their runs inherit it.
SCHEDULE_LABEL = "spine.schedule"
DOMAIN_TAG_PREFIX = "domain:"
SEVERITY_TAG_PREFIX = "severity:"
# On a deployment: its runs raise no alerts.
SILENCING_TAG = "alert:off"


def domain_of(tags: Iterable[str]) -> str | None:
    """The domain that a `domain:` tag names; the first in alphabetical order where there are several."""
    domains = sorted(tag.removeprefix(DOMAIN_TAG_PREFIX) for tag in tags if tag.startswith(DOMAIN_TAG_PREFIX))
    return domains[0] if domains else None


def severity_of(tags: Iterable[str]) -> Severity:
    """How bad a failure is, as a `severity:` tag says; ERROR without one, the worst of several."""
    named = [tag.removeprefix(SEVERITY_TAG_PREFIX).upper() for tag in tags if tag.startswith(SEVERITY_TAG_PREFIX)]
    known = [Severity(name) for name in named if name in Severity.__members__]
    return max(known, key=lambda severity: severity.rank, default=Severity.ERROR)


def trigger_of(run: FlowRun) -> RunTrigger:
    """How a run came about."""
    creator = run.created_by.type if run.created_by else None
    if run.parent_task_run_id is not None or creator == "AUTOMATION":
        return RunTrigger.DEPENDENCY
    if creator == "SCHEDULE":
        return RunTrigger.SCHEDULE
    return RunTrigger.API if API_TAG in run.tags else RunTrigger.MANUAL


def schedule_of(run: FlowRun) -> UUID | None:
    """The schedule that a run belongs to: Prefect's deployment, which is what a schedule is.

    Runs inherit the label of deployments that were made as schedules and keep it when those are deleted.
    """
    by_schedule = SCHEDULE_LABEL in run.labels or trigger_of(run) is RunTrigger.SCHEDULE
    return run.deployment_id if by_schedule else None


def with_trigger(run_filter: RunFilter, trigger: RunTrigger) -> list[RunFilter]:
    """Filters without overlap that together hold the runs with this trigger, out of those that fit `run_filter`.

    For MANUAL they also hold the runs that the API started, because Prefect cannot filter by a tag's absence: the
    caller leaves those out.
    """
    no_parent = run_filter.where(parent_task_run_id={"is_null_": True})
    nobody = no_parent.where(created_by={"is_null_": True})
    match trigger:
        case RunTrigger.SCHEDULE:
            return [no_parent.where(created_by={"type_": ["SCHEDULE"]})]
        case RunTrigger.DEPENDENCY:
            return [
                run_filter.where(parent_task_run_id={"is_null_": False}),
                no_parent.where(created_by={"type_": ["AUTOMATION"]}),
            ]
        case RunTrigger.API:
            return [with_api_tag(nobody)]
        case RunTrigger.MANUAL:
            return [nobody]
        case RunTrigger.RETRY:
            return []


def with_api_tag(run_filter: RunFilter) -> RunFilter:
    """Only runs that the API started."""
    tags = [*run_filter.runs.get("tags", {}).get("all_", []), API_TAG]
    return run_filter.where(tags={"all_": tags})
