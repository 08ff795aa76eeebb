"""What started a run and what it belongs to, from the tags and labels that Prefect stores with it.

Spine marks the runs that it starts with a tag, because Prefect can filter by tags, and with a label that has the name
of the caller, because labels do not clutter the UI.
"""

from collections.abc import Iterable
from uuid import UUID

from spine.names import domains_in
from spine.prefect.client import FlowRun
from spine.prefect.filters import RunFilter
from spine.severity import Severity
from spine.workflows.schemas import RunTrigger

API_TAG = "spine:api"
CALLER_LABEL = "spine.triggered_by"
# On deployments that the API made for schedules, with the schedule's name; their runs inherit it.
SCHEDULE_LABEL = "spine.schedule"
SEVERITY_TAG_PREFIX = "severity:"
# On a deployment: its runs raise no alerts.
SILENCING_TAG = "alert:off"


def domain_of(tags: Iterable[str]) -> str | None:
    """The domain in a `domain:` tag; the first in alphabetical order if there are several."""
    return min(domains_in(tags), default=None)


def severity_of(tags: Iterable[str]) -> Severity:
    """The severity of a failure, from a `severity:` tag: ERROR without one, the worst if there are several."""
    named = [tag.removeprefix(SEVERITY_TAG_PREFIX).upper() for tag in tags if tag.startswith(SEVERITY_TAG_PREFIX)]
    known = [Severity(name) for name in named if name in Severity.__members__]
    return max(known, key=lambda severity: severity.rank, default=Severity.ERROR)


def trigger_of(run: FlowRun) -> RunTrigger:
    """What started a run."""
    creator = run.created_by.type if run.created_by else None
    if run.parent_task_run_id is not None or creator == "AUTOMATION":
        return RunTrigger.DEPENDENCY
    if creator == "SCHEDULE":
        return RunTrigger.SCHEDULE
    return RunTrigger.API if API_TAG in run.tags else RunTrigger.MANUAL


def schedule_of(run: FlowRun) -> UUID | None:
    """The schedule that a run belongs to, which is a Prefect deployment.

    Runs inherit the label of a deployment that was made for a schedule, and keep it when the deployment is deleted.
    """
    by_schedule = SCHEDULE_LABEL in run.labels or trigger_of(run) is RunTrigger.SCHEDULE
    return run.deployment_id if by_schedule else None


def with_trigger(run_filter: RunFilter, trigger: RunTrigger) -> list[RunFilter]:
    """Filters without overlap that together match the runs with this trigger, of those that match `run_filter`.

    For MANUAL they also match the runs that the API started, because Prefect cannot filter by the absence of a tag:
    the caller must leave those out.
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
