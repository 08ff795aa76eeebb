"""Steps out of task runs: one for each thing the flow does, however often it was tried.

Prefect records every attempt as task runs of their own. The task runs of one attempt of the flow share
`flow_run_run_count`; within it, the n-th task run of a task is its n-th call, so that loops and mapped tasks stay
apart. A step is therefore (task, n), and holds that task run of each attempt. A child flow run is stood for by one
task run, which Prefect uses again at a retry.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any
from uuid import UUID

from spine.prefect.client import FlowRun, State, StateType, TaskRun
from spine.prefect.states import is_final
from spine.workflows.schemas import StepStatus

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


@dataclass(frozen=True)
class Step:
    """One step with its attempts in order, at least one."""

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
        """The attempt that did the work: the newest that was not served from an earlier one's result."""
        return next((run for run in reversed(self.attempts) if not is_cached(run)), self.latest)

    @property
    def state(self) -> State | None:
        """Prefect's state of the newest attempt."""
        return self.latest.state

    @property
    def result(self) -> Any:
        """What Prefect says of the newest attempt's result, for `spine.prefect.results` to read."""
        return self.latest.state.data if self.latest.state else None

    @cached_property
    def status(self) -> StepStatus:
        """Where the step stands, made to agree with where the run stands."""
        state_type = self.latest.state_type.value if self.latest.state_type else "PENDING"
        status = _STATUS_OF_STATE[state_type]
        if is_final(self.run):
            if status is StepStatus.PENDING or (state_type == "CANCELLED" and self.latest.start_time is None):
                return StepStatus.SKIPPED
            # A run that completed waited for its steps: one that still seems to run has ended without a record of it.
            ended = StepStatus.COMPLETED if self.run.state_type == StateType.COMPLETED else StepStatus.FAILED
            return ended if status is StepStatus.RUNNING else status
        waits_for_its_turn = self.latest.flow_run_run_count < self.run.run_count and not is_child_run(self.latest)
        return StepStatus.PENDING if waits_for_its_turn and status is not StepStatus.COMPLETED else status

    @property
    def was_interrupted(self) -> bool:
        """Whether the run ended while this step ran, so that nothing of its own tells how it went."""
        state_type = self.latest.state_type.value if self.latest.state_type else ""
        return self.status is StepStatus.FAILED and state_type not in ("FAILED", "CRASHED")

    @property
    def started_at(self) -> datetime | None:
        """When the attempt that did the work began; of a child flow, its newest run."""
        if self.status in (StepStatus.PENDING, StepStatus.SKIPPED):
            return None
        child = self.newest_child
        return child.start_time if child and child.start_time else self.executed.start_time

    @property
    def completed_at(self) -> datetime | None:
        """When the attempt that did the work ended; the end of the run where that interrupted it."""
        if self.status not in (StepStatus.COMPLETED, StepStatus.FAILED):
            return None
        child = self.newest_child
        return (child.end_time if child else None) or self.executed.end_time or self.run.end_time

    @property
    def newest_child(self) -> FlowRun | None:
        """The newest run of the child flow that this step stands for, where the child runs are known."""
        begun = [(child.start_time, child.id, child) for child in self.child_runs if child.start_time is not None]
        return max(begun)[2] if begun else None

    @property
    def retry_count(self) -> int:
        """How often it was executed again, inside an attempt of the flow or by a new one."""
        if self.child_runs:
            return sum(max(child.run_count, 1) for child in self.child_runs) - 1
        executions = sum(max(run.run_count, 1) for run in self.attempts if not is_cached(run) and run.start_time)
        return max(executions - 1, 0)

    @property
    def first_start(self) -> datetime:
        """When it was first seen, by which steps are ordered."""
        times = [time for run in self.attempts if (time := run.start_time or run.expected_start_time or run.created)]
        return min(times, default=datetime.max.replace(tzinfo=self.run.created.tzinfo if self.run.created else None))


def is_cached(task_run: TaskRun) -> bool:
    """Whether Prefect took the result of an earlier attempt instead of running the task."""
    return task_run.state_name == CACHED


def is_child_run(task_run: TaskRun) -> bool:
    """Whether a task run stands for a child flow run."""
    return task_run.state is not None and task_run.state.state_details.child_flow_run_id is not None


def fold(
    run: FlowRun,
    task_runs: Sequence[TaskRun],
    child_runs: Sequence[FlowRun] = (),
    names: Mapping[UUID, str] | None = None,
) -> list[Step]:
    """The steps of `run`, in the order in which they first started.

    `child_runs` tell how often a child flow was run again; `names` has better names than Prefect's for task runs.
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
    # Prefect gives task runs ids that grow with time, in the order in which the flow made them.
    for task_run in sorted(task_runs, key=lambda one: one.id.int):
        if is_child_run(task_run):
            attempts[task_run.id,].append(task_run)
            continue
        # A task run that never began has no number of its own; attempts of the flow follow each other.
        flow_attempt = max(flow_attempt, task_run.flow_run_run_count)
        call = flow_attempt, _task_of(task_run), step_name(task_run)
        attempts[*call[1:], calls[call]].append(task_run)
        calls[call] += 1
    return list(attempts.values())


def step_name(task_run: TaskRun) -> str:
    """The task's name, without the suffix that Prefect makes from the start of the dynamic key."""
    for suffix in (f"-{task_run.dynamic_key[:3]}", f"-{task_run.dynamic_key}"):
        if task_run.name.endswith(suffix):
            return task_run.name.removesuffix(suffix)
    return task_run.name


def _task_of(task_run: TaskRun) -> str:
    # The key ends in a hash of the code, which changes when the code is mended between two attempts.
    return task_run.task_key.rpartition("-")[0] or task_run.task_key
