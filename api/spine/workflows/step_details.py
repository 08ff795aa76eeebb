"""The details of one step of a run: its inputs, outputs and error."""

import json
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from spine.prefect.client import FlowRun, Log, Prefect, TaskRunResult
from spine.prefect.results import NoResult, ResultUnreadable, read_result
from spine.schemas import ErrorCategory
from spine.workflows.failures import category_of, is_exception, message_of
from spine.workflows.schemas import RunStatus, StepStatus, WorkflowStepDetail
from spine.workflows.steps import Step, is_failed

# Larger outputs are truncated: the API describes runs, it does not transfer their data.
MOST_OUTPUT_CHARACTERS = 16_384
PREVIEW_CHARACTERS = 1_000

# Keys of Prefect's task inputs that are not arguments.
_NOT_ARGUMENTS = {"__parents__", "wait_for"}


async def to_step_detail(
    prefect: Prefect, step: Step, index: int, names: Mapping[UUID, str], logs: Sequence[Log]
) -> WorkflowStepDetail:
    """The details of the step at `index`; `names` has step names by task run id, `logs` the error logs of the run."""
    error, category = error_of(step, logs)
    started, completed = step.started_at, step.completed_at
    return WorkflowStepDetail(
        step_id=step.latest.id,
        run_id=step.run.id,
        step_name=step.name,
        step_index=index,
        status=step.status,
        started_at=started,
        completed_at=completed,
        duration_ms=max(round((completed - started).total_seconds() * 1000), 0) if started and completed else None,
        inputs=_inputs_of(step, names),
        outputs=await _outputs_of(prefect, step),
        error=error,
        error_category=category,
        retry_count=step.retry_count,
    )


def error_of(step: Step, logs: Sequence[Log]) -> tuple[str | None, ErrorCategory | None]:
    """The error of a step and its category, which needs the error logs of the run; None if the step did not fail."""
    if not is_failed(step):
        return None, None
    if step.was_interrupted:
        run_status = step.run.state_name or RunStatus.FAILED
        return f"Interrupted: the run ended as {run_status} while this step was running.", ErrorCategory.ORCHESTRATION
    return message_of(step.state), category_of(step.state, logs, step.latest.id)


def error_of_first_failed(
    run: FlowRun, steps: Sequence[Step], logs: Sequence[Log]
) -> tuple[str | None, ErrorCategory | None] | None:
    """The error of the first failed step of a run that failed by returning failed steps; None for any other run.

    "1/3 states failed" is Prefect's message for such a run.
    """
    failed = None if is_exception(run.state) else next(filter(is_failed, steps), None)
    return None if failed is None else error_of(failed, logs)


def _inputs_of(step: Step, names: Mapping[UUID, str]) -> dict[str, Any] | None:
    """The arguments that are results of other steps: `{"argument": {"from_steps": [{"step_name", "step_id"}]}}`."""
    inputs: dict[str, Any] = {}
    for argument, sources in step.executed.task_inputs.items():
        ids = [source.id for source in sources if isinstance(source, TaskRunResult)]
        known = [{"step_name": names[one], "step_id": str(one)} for one in ids if one in names]
        if known and argument not in _NOT_ARGUMENTS:
            inputs[argument] = {"from_steps": known}
    return inputs or None


async def _outputs_of(prefect: Prefect, step: Step) -> dict[str, Any] | None:
    """The persisted result: a JSON object unchanged, any other value as `{"result": value}`.

    One that cannot be read is `{"unreadable": True, "reason": ...}`.
    """
    if step.status is not StepStatus.COMPLETED:
        return None
    try:
        result = await read_result(prefect, step.result)
    except NoResult:
        return None
    except ResultUnreadable as reason:
        return {"unreadable": True, "reason": f"{str(reason)[:1].upper()}{str(reason)[1:]}."}
    text = json.dumps(result, ensure_ascii=False)
    if len(text) > MOST_OUTPUT_CHARACTERS:
        return {"truncated": True, "size_bytes": len(text.encode()), "preview": text[:PREVIEW_CHARACTERS]}
    return result if isinstance(result, dict) else {"result": result}
