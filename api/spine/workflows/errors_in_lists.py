"""The errors of failed runs in a list, as the detail of each run shows them, with few requests for a whole page."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from uuid import UUID

from spine.prefect.client import FlowRun, Prefect, TaskRun
from spine.text import shortened
from spine.workflows.crashes import logs_of_crashes
from spine.workflows.failures import LONGEST_IN_A_LIST, is_exception, message_of
from spine.workflows.step_details import error_of_first_failed
from spine.workflows.steps import fold

_FAILED = ("FAILED", "CRASHED")


async def errors_in_list(prefect: Prefect, runs: Sequence[FlowRun]) -> dict[UUID, str]:
    """The errors of the failed ones of these runs (at most 200) by run, cut; the detail of a run has all of it."""
    failed = [run for run in runs if run.state is not None and run.state.type.value in _FAILED]
    logs, of_steps = await asyncio.gather(logs_of_crashes(prefect, failed), _errors_of_steps(prefect, failed))
    errors = {run.id: of_steps.get(run.id) or message_of(run.state, logs.get(run.id, ())) for run in failed}
    return {run_id: shortened(error, LONGEST_IN_A_LIST) for run_id, error in errors.items() if error is not None}


async def _errors_of_steps(prefect: Prefect, runs: Sequence[FlowRun]) -> dict[UUID, str]:
    """For each run that failed by returning failed steps, the error of the first of them."""
    wanted = [run for run in runs if not is_exception(run.state)]
    if not wanted:
        return {}
    by_run: dict[UUID, list[TaskRun]] = defaultdict(list)
    for task_run in await prefect.task_runs([run.id for run in wanted]):
        if task_run.flow_run_id is not None:
            by_run[task_run.flow_run_id].append(task_run)
    found = {}
    for run in wanted:
        of_step = error_of_first_failed(run, fold(run, by_run[run.id]), ())
        if of_step is not None and of_step[0] is not None:
            found[run.id] = of_step[0]
    return found
