"""Steps from task runs: one step for each call of a task in the flow, however often it was attempted.

Prefect records each attempt of a flow as new task runs. The task runs of one attempt have the same
`flow_run_run_count`. Within an attempt, the n-th task run of a task is its n-th call, so calls in loops and mapped
tasks stay separate. A step is therefore the pair (task, n), with the task run of each attempt. A child flow run is
represented by one task run, which Prefect uses again in a retry.

Lists only need counts, and get them with a number of requests that does not grow with the page: Prefect counts task
runs for many runs at once. For a run that was never retried these are its steps, and reading the few that did not
complete gives the rest. Only for retried runs are all task runs read.
"""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, TypeVar
from uuid import UUID

from spine.prefect.client import FlowRun, Prefect, State, StateType, TaskRun
from spine.prefect.states import is_final
from spine.workflows.schemas import StepStatus

Value = TypeVar("Value")

CACHED = "Cached"

_STATUS_OF_STATE = {
    "SCHEDULED": StepStatus.PENDING,
    "PENDING": StepStatus.PENDING,
    "RUNNING": StepStatus.RUNNING,
    "PAUSED": StepStatus.RUNNING,
    "CANCELLING": StepStatus.RUNNING,
    "COMPLETED": StepStatus.COMPLETED,
    "FAILED": StepStatus.FAILED,
    "CRASHED": StepStatus.FAILED,
    "CANCELLED": StepStatus.FAILED,
}

# The task runs that a count alone does not describe: those that did not complete, and those of child flow runs.
NOT_SIMPLY_COMPLETED = {
    "operator": "or_",
    "state": {
        "type": {"any_": ["SCHEDULED", "PENDING", "RUNNING", "FAILED", "CANCELLED", "CRASHED", "PAUSED", "CANCELLING"]}
    },
    "subflow_runs": {"exists_": True},
}


@dataclass(frozen=True)
class Step:
    """One step with its attempts, oldest first; at least one."""

    name: str
    attempts: Sequence[TaskRun]
    run: FlowRun
    child_runs: Sequence[FlowRun] = ()

    @property
    def latest(self) -> TaskRun:
        """The newest attempt."""
        return self.attempts[-1]

    @cached_property
    def executed(self) -> TaskRun:
        """The newest attempt that ran the task instead of reusing an earlier result."""
        return next((run for run in reversed(self.attempts) if not is_cached(run)), self.latest)

    @property
    def state(self) -> State | None:
        """Prefect's state of the newest attempt."""
        return self.latest.state

    @property
    def result(self) -> Any:
        """The reference to the newest attempt's result, for `spine.prefect.results` to read."""
        return self.latest.state.data if self.latest.state else None

    @cached_property
    def status(self) -> StepStatus:
        """The status of the step, consistent with the status of the run."""
        state_type = self.latest.state_type.value if self.latest.state_type else "PENDING"
        status = _STATUS_OF_STATE[state_type]
        if is_final(self.run):
            if status is StepStatus.PENDING or (state_type == "CANCELLED" and self.latest.start_time is None):
                return StepStatus.SKIPPED
            # A completed run has waited for its steps: one that still seems to run ended, and the record is late.
            ended = StepStatus.COMPLETED if self.run.state_type == StateType.COMPLETED else StepStatus.FAILED
            return ended if status is StepStatus.RUNNING else status
        not_reached_yet = self.latest.flow_run_run_count < self.run.run_count and not is_child_run(self.latest)
        return StepStatus.PENDING if not_reached_yet and status is not StepStatus.COMPLETED else status

    @property
    def was_interrupted(self) -> bool:
        """Whether the run ended while this step was running, so that the step has no result or error of its own."""
        state_type = self.latest.state_type.value if self.latest.state_type else ""
        return self.status is StepStatus.FAILED and state_type not in ("FAILED", "CRASHED")

    @property
    def started_at(self) -> datetime | None:
        """When the attempt that ran the task started; for a child flow, when its newest run started."""
        if self.status in (StepStatus.PENDING, StepStatus.SKIPPED):
            return None
        child = self.newest_child
        return child.start_time if child and child.start_time else self.executed.start_time

    @property
    def completed_at(self) -> datetime | None:
        """When the attempt that ran the task ended; when the run ended if that interrupted the attempt."""
        if self.status not in (StepStatus.COMPLETED, StepStatus.FAILED):
            return None
        child = self.newest_child
        return (child.end_time if child else None) or self.executed.end_time or self.run.end_time

    @property
    def newest_child(self) -> FlowRun | None:
        """The newest run of the child flow that this step represents, if the child runs were read."""
        started = [(child.start_time, child.id, child) for child in self.child_runs if child.start_time is not None]
        return max(started)[2] if started else None

    @property
    def retry_count(self) -> int:
        """How often the step was executed again, within one attempt of the flow or in a new one."""
        if self.child_runs:
            return sum(max(child.run_count, 1) for child in self.child_runs) - 1
        executions = sum(max(run.run_count, 1) for run in self.attempts if not is_cached(run) and run.start_time)
        return max(executions - 1, 0)

    @property
    def first_start(self) -> datetime:
        """The earliest known time of the step; steps are ordered by it."""
        times = [time for run in self.attempts if (time := run.start_time or run.expected_start_time or run.created)]
        return min(times, default=datetime.max.replace(tzinfo=self.run.created.tzinfo if self.run.created else None))


@dataclass(frozen=True)
class StepCounts:
    """How many steps a run has, and how many of them completed and failed."""

    total: int = 0
    completed: int = 0
    failed: int = 0

    @classmethod
    def of(cls, steps: Sequence[Step], more_completed: int = 0) -> "StepCounts":
        """The counts of `steps` plus `more_completed` other steps that completed."""
        statuses = [step.status for step in steps]
        return cls(
            total=len(statuses) + more_completed,
            completed=statuses.count(StepStatus.COMPLETED) + more_completed,
            failed=statuses.count(StepStatus.FAILED),
        )


def is_failed(step: Step) -> bool:
    """Whether a step failed, or was interrupted by the end of its run."""
    return step.status is StepStatus.FAILED


def is_cached(task_run: TaskRun) -> bool:
    """Whether Prefect reused the result of an earlier attempt instead of running the task."""
    return task_run.state_name == CACHED


def is_child_run(task_run: TaskRun) -> bool:
    """Whether a task run represents a child flow run."""
    return task_run.state is not None and task_run.state.state_details.child_flow_run_id is not None


def fold(
    run: FlowRun,
    task_runs: Sequence[TaskRun],
    child_runs: Sequence[FlowRun] = (),
    names: Mapping[UUID, str] | None = None,
) -> list[Step]:
    """The steps of `run`, in the order in which they first started.

    `child_runs` give the times and retries of child flows; `names` replaces the names of task runs, by their id.
    """
    children: dict[UUID, list[FlowRun]] = defaultdict(list)
    for child in child_runs:
        if child.parent_task_run_id is not None:
            children[child.parent_task_run_id].append(child)
    steps = [
        Step(
            (names or {}).get(attempts[0].id) or step_name(attempts[0]),
            attempts,
            run,
            [child for one in attempts for child in children[one.id]],
        )
        for attempts in _attempts_by_call(task_runs)
    ]
    return sorted(steps, key=lambda step: (step.first_start, step.attempts[0].id.int))


def _attempts_by_call(task_runs: Sequence[TaskRun]) -> list[list[TaskRun]]:
    attempts: dict[tuple[object, ...], list[TaskRun]] = defaultdict(list)
    calls: dict[tuple[int, str, str], int] = defaultdict(int)
    flow_attempt = 0
    # Prefect's ids of task runs grow with time, so this is the order in which the flow made them.
    for task_run in sorted(task_runs, key=lambda one: one.id.int):
        if is_child_run(task_run):
            attempts[task_run.id,].append(task_run)
            continue
        # A task run that never started has no attempt number; attempts follow each other, so the last number applies.
        flow_attempt = max(flow_attempt, task_run.flow_run_run_count)
        call = flow_attempt, _task_of(task_run), step_name(task_run)
        attempts[*call[1:], calls[call]].append(task_run)
        calls[call] += 1
    return list(attempts.values())


def step_name(task_run: TaskRun) -> str:
    """The task's name, without the suffix that Prefect takes from the dynamic key."""
    for suffix in (f"-{task_run.dynamic_key[:3]}", f"-{task_run.dynamic_key}"):
        if task_run.name.endswith(suffix):
            return task_run.name.removesuffix(suffix)
    return task_run.name


def _task_of(task_run: TaskRun) -> str:
    # The key ends in a hash of the code, which changes when the code is fixed between two attempts.
    return task_run.task_key.rpartition("-")[0] or task_run.task_key


async def count_steps(prefect: Prefect, runs: Sequence[FlowRun]) -> dict[UUID, StepCounts]:
    """The counts of each of these runs (at most 200), by run id."""
    once = [run.id for run in runs if run.run_count <= 1]
    retried = [run.id for run in runs if run.run_count > 1]
    totals, of_once, of_retried = await asyncio.gather(
        prefect.count_task_runs(once) if once else _empty({}),
        prefect.task_runs(once, NOT_SIMPLY_COMPLETED) if once else _empty([]),
        prefect.task_runs(retried) if retried else _empty([]),
    )
    by_run: dict[UUID, list[TaskRun]] = defaultdict(list)
    for task_run in of_once + of_retried:
        if task_run.flow_run_id is not None:
            by_run[task_run.flow_run_id].append(task_run)
    return {run.id: _count(run, by_run[run.id], totals.get(run.id, 0)) for run in runs}


def _count(run: FlowRun, task_runs: Sequence[TaskRun], counted: int) -> StepCounts:
    steps = fold(run, task_runs)
    if run.run_count > 1:
        return StepCounts.of(steps)
    # Prefect's count leaves out child flow runs; every counted task run that was not read has completed.
    read = sum(1 for task_run in task_runs if not is_child_run(task_run))
    return StepCounts.of(steps, more_completed=max(counted - read, 0))


async def _empty(value: Value) -> Value:
    return value
