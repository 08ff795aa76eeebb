"""One run with its steps."""

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from spine.auth.domains import Domains
from spine.database import SessionFactory, reading
from spine.errors import NotFound
from spine.names import domains_in
from spine.prefect.client import FlowRun, Log, Prefect, TaskRun
from spine.prefect.results import ResultUnreadable, read_result
from spine.prefect.states import is_final
from spine.tables.base import utc_now
from spine.tables.sources import SourceUse
from spine.workflows.failures import category_of, message_of
from spine.workflows.labels import CALLER_LABEL, SCHEDULE_LABEL, trigger_of
from spine.workflows.run_list import status_of, summarize
from spine.workflows.schemas import (
    RunStatus,
    RunTrigger,
    StepStatus,
    WorkflowRunDetail,
)
from spine.workflows.step_details import error_of_first_failed, to_step_detail
from spine.workflows.steps import Step, StepCounts, fold, is_child_run

# Prefect records task runs from events, which arrive up to this long after the run itself has ended: latest when
# many steps ended at the same time, and never for steps that a crash or a cancellation interrupted.
LATE_RECORDS = timedelta(seconds=2)
LATE_RECORDS_OF_A_COMPLETED_RUN = timedelta(seconds=5)
# Until this has passed, even a reading that looks complete may lack the last task runs.
EARLIEST_WHOLE_READING = timedelta(seconds=1)
SECONDS_BETWEEN_READINGS = 0.2


async def read_run(prefect: Prefect, domains: Domains, run_id: str) -> WorkflowRunDetail:
    """One run with its steps, from Prefect alone. Raises `NotFound`."""
    run = await find_run(prefect, domains, run_id)
    steps, names, result, (triggered_by, parent_run_id) = await asyncio.gather(
        read_steps(prefect, run),
        prefect.flow_names([run.flow_id]),
        _result_of(prefect, run),
        origin_of(prefect, domains, run),
    )
    logs = await _error_logs(prefect, run, steps)
    step_names = {attempt.id: step.name for step in steps for attempt in step.attempts}
    details = await asyncio.gather(
        *(to_step_detail(prefect, step, index, step_names, logs) for index, step in enumerate(steps))
    )
    detail = _to_detail(run, names.get(run.flow_id), steps, logs)
    if detail.status is RunStatus.FAILED and (of_step := error_of_first_failed(run, steps, logs)) is not None:
        detail.error, detail.error_category = of_step
    return detail.model_copy(
        update={
            "steps": details,
            "rows_processed": _integer(result.get("rows_processed")),
            "capture_id": _text(result.get("capture_id")),
            "triggered_by": triggered_by,
            "parent_run_id": parent_run_id,
            "prefect_url": f"{prefect.ui_url}/runs/flow-run/{run.id}" if prefect.ui_url else None,
        }
    )


async def show_run(prefect: Prefect, sessions: SessionFactory, domains: Domains, run_id: str) -> WorkflowRunDetail:
    """One run with its steps. If its result has no `capture_id`, the content of the source that the run used is shown.

    Raises `NotFound`.
    """
    detail = await read_run(prefect, domains, run_id)
    if detail.capture_id is None:
        async with reading(sessions) as session:
            detail.capture_id = await capture_used(session, detail.run_id)
    return detail


async def capture_used(session: AsyncSession, run_id: UUID) -> str | None:
    """The SHA-256 of the source content that a flow run used, the last if there are several; None if it used none."""
    mine = select(SourceUse.capture_id).where(SourceUse.run_id == run_id)
    return (await session.scalars(mine.order_by(SourceUse.used_at.desc(), SourceUse.fetch_id.desc()).limit(1))).first()


async def find_run(prefect: Prefect, domains: Domains, run_id: str) -> FlowRun:
    """The Prefect flow run with this id. Raises `NotFound`, also for a malformed id and for another domain."""
    try:
        run = await prefect.read_run(UUID(run_id))
    except (ValueError, NotFound):
        run = None
    if run is None or not domains.allow_any(domains_in(run.tags)):
        raise NotFound(f"No run has the id {run_id!r}.")
    return run


async def read_steps(prefect: Prefect, run: FlowRun) -> list[Step]:
    """The steps of a run.

    If the run ended so recently that records of its task runs may still be on their way, this waits for them.
    """
    patience = LATE_RECORDS_OF_A_COMPLETED_RUN if status_of(run) is RunStatus.COMPLETED else LATE_RECORDS
    # The clock of Prefect's machine may be ahead of ours, so our own clock bounds the wait too.
    give_up_at = time.monotonic() + patience.total_seconds()
    seen: list[tuple[UUID, str | None]] | None = None
    while True:
        task_runs = await prefect.task_runs([run.id])
        # A plain task has no child flow run: most runs have none, and need no request for them.
        may_have_children = any(is_child_run(one) or one.start_time is None for one in task_runs)
        child_runs = await prefect.child_runs([run.id]) if may_have_children else []
        now_seen = sorted((one.id, one.state_name) for one in task_runs)
        settled = now_seen == seen and all(_is_settled(one) for one in task_runs)
        waits = _ended_within(run, patience) and time.monotonic() < give_up_at
        if not waits or (settled and not _ended_within(run, EARLIEST_WHOLE_READING)):
            return fold(run, task_runs, child_runs, await _names_of_children(prefect, child_runs))
        seen = now_seen
        await asyncio.sleep(SECONDS_BETWEEN_READINGS)


async def _names_of_children(prefect: Prefect, child_runs: Sequence[FlowRun]) -> dict[UUID, str]:
    """The flow names of children with a deployment, by their task run, whose own name is random."""
    deployed = [child for child in child_runs if child.deployment_id is not None]
    names = await prefect.flow_names({child.flow_id for child in deployed})
    return {
        child.parent_task_run_id: names[child.flow_id]
        for child in deployed
        if child.parent_task_run_id is not None and child.flow_id in names
    }


def _to_detail(
    run: FlowRun, workflow_name: str | None, steps: Sequence[Step], logs: Sequence[Log]
) -> WorkflowRunDetail:
    error = message_of(run.state, logs) if status_of(run) is RunStatus.FAILED else None
    return WorkflowRunDetail(
        **summarize(run, workflow_name, StepCounts.of(steps), error).model_dump(),
        input_params=run.parameters,
        execution_id=run.infrastructure_pid,
        error_category=category_of(run.state, logs),
        rows_processed=None,
        steps=[],
        triggered_by=None,
        parent_run_id=None,
        capture_id=None,
        attempt=max(run.run_count, 1),
        prefect_url=None,
    )


def _ended_within(run: FlowRun, span: timedelta) -> bool:
    ended = run.end_time if is_final(run) else None
    return ended is not None and utc_now() - ended < span


def _is_settled(task_run: TaskRun) -> bool:
    # A task run whose upstream failed stays "NotReady" for good.
    return task_run.state is not None and (task_run.state.is_final() or task_run.state.name == "NotReady")


async def _error_logs(prefect: Prefect, run: FlowRun, steps: Sequence[Step]) -> list[Log]:
    """The log records that give the causes of failures; empty if nothing failed."""
    failed = status_of(run) is RunStatus.FAILED or any(step.status is StepStatus.FAILED for step in steps)
    return await prefect.error_logs(run.id) if failed else []


async def _result_of(prefect: Prefect, run: FlowRun) -> dict[str, object]:
    if run.state is None or not run.state.is_completed():
        return {}
    try:
        result = await read_result(prefect, run.state.data)
    except ResultUnreadable:
        return {}
    return result if isinstance(result, dict) else {}


async def origin_of(prefect: Prefect, domains: Domains, run: FlowRun) -> tuple[str | None, UUID | None]:
    """The name of who or what started the run, and the id of its parent run if it has one of these domains."""
    trigger = trigger_of(run)
    if run.parent_task_run_id is not None:
        return await _parent_of(prefect, domains, run.parent_task_run_id)
    if trigger is RunTrigger.SCHEDULE and run.deployment_id is not None:
        if SCHEDULE_LABEL in run.labels:
            return str(run.labels[SCHEDULE_LABEL]), None
        deployments = await prefect.deployments_by_id([run.deployment_id])
        return next((deployment.name for deployment in deployments.values()), None), None
    if trigger is RunTrigger.DEPENDENCY:
        return run.created_by.display_value if run.created_by else None, None
    caller = run.labels.get(CALLER_LABEL)
    return str(caller) if caller is not None and trigger is RunTrigger.API else None, None


async def _parent_of(prefect: Prefect, domains: Domains, parent_task_run_id: UUID) -> tuple[str | None, UUID | None]:
    try:
        parent_run_id = (await prefect.read_task_run(parent_task_run_id)).flow_run_id
        if parent_run_id is None:
            return None, None
        parent = await prefect.read_run(parent_run_id)
        return (parent.name, parent.id) if domains.allow_any(domains_in(parent.tags)) else (None, None)
    except NotFound:
        return None, None


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
