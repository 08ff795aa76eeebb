"""Counts of steps for a page of runs, with a number of calls that does not grow with the runs on the page.

Prefect counts task runs for many runs at once, but counts attempts. For a run that was never retried these are its
steps, and reading the few that did not complete tells the rest; only the task runs of retried runs are read whole.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

from spine.prefect.client import FlowRun, Prefect, TaskRun
from spine.workflows.schemas import StepStatus
from spine.workflows.steps import Step, fold, is_child_run

Value = TypeVar("Value")

# Task runs that a count alone does not tell: those that did not complete, and those that stand for child flow runs.
NOT_SIMPLY_COMPLETED = {
    "operator": "or_",
    "state": {
        "type": {"any_": ["SCHEDULED", "PENDING", "RUNNING", "FAILED", "CANCELLED", "CRASHED", "PAUSED", "CANCELLING"]}
    },
    "subflow_runs": {"exists_": True},
}


@dataclass(frozen=True)
class StepCounts:
    """How many steps of a run there are, and how many of them completed and failed."""

    total: int = 0
    completed: int = 0
    failed: int = 0

    @classmethod
    def of(cls, steps: Sequence[Step], more_completed: int = 0) -> "StepCounts":
        """The counts of these steps, and of `more_completed` others."""
        statuses = [step.status for step in steps]
        return cls(
            total=len(statuses) + more_completed,
            completed=statuses.count(StepStatus.COMPLETED) + more_completed,
            failed=statuses.count(StepStatus.FAILED),
        )


async def count_steps(prefect: Prefect, runs: Sequence[FlowRun]) -> dict[UUID, StepCounts]:
    """The counts of each of these runs (at most 200), by run id."""
    once = [run.id for run in runs if run.run_count <= 1]
    retried = [run.id for run in runs if run.run_count > 1]
    totals, told_apart = await asyncio.gather(
        prefect.count_task_runs(once) if once else _none({}),
        _task_runs_to_read(prefect, once, retried),
    )
    by_run: dict[UUID, list[TaskRun]] = defaultdict(list)
    for task_run in told_apart:
        if task_run.flow_run_id is not None:
            by_run[task_run.flow_run_id].append(task_run)
    return {run.id: _count(run, by_run[run.id], totals.get(run.id, 0)) for run in runs}


async def _task_runs_to_read(prefect: Prefect, once: Sequence[UUID], retried: Sequence[UUID]) -> list[TaskRun]:
    of_once, of_retried = await asyncio.gather(
        prefect.task_runs(once, NOT_SIMPLY_COMPLETED) if once else _none([]),
        prefect.task_runs(retried) if retried else _none([]),
    )
    return of_once + of_retried


def _count(run: FlowRun, task_runs: Sequence[TaskRun], counted: int) -> StepCounts:
    steps = fold(run, task_runs)
    if run.run_count > 1:
        return StepCounts.of(steps)
    # What Prefect counted leaves child flow runs out, and all of it that was not read has completed.
    read = sum(1 for task_run in task_runs if not is_child_run(task_run))
    return StepCounts.of(steps, more_completed=max(counted - read, 0))


async def _none(empty: Value) -> Value:
    return empty
