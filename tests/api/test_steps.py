"""Folding task runs, as Prefect records them, into steps."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from prefect.client.schemas.objects import FlowRun, State, TaskRun
from spine.workflows.schemas import StepStatus
from spine.workflows.steps import Step, fold

BEGIN = datetime(2025, 1, 1, tzinfo=UTC)


def flow_run(state: str, run_count: int = 1) -> FlowRun:
    return FlowRun.model_validate(
        {"id": uuid4(), "flow_id": uuid4(), "run_count": run_count, "state": {"type": state}, "state_type": state}
    )


def task_run(at: int, task: str, state: str, *, attempt: int = 1, name: str | None = None, **more: Any) -> TaskRun:
    """A task run whose id grows with `at`, as Prefect's do; times are in seconds."""
    key = uuid4().hex
    started = None if state in ("PENDING", "Never") else BEGIN + timedelta(seconds=at)
    type_, state_name = {"Cached": ("COMPLETED", "Cached"), "Never": ("CANCELLED", "Cancelled")}.get(
        state, (state, state.title())
    )
    details = {"child_flow_run_id": more.pop("child")} if "child" in more else {}
    return TaskRun.model_validate(
        {
            "id": UUID(int=at),
            "name": name or f"{task}-{key[:3]}",
            "task_key": f"{task}-0a1b2c3d",
            "dynamic_key": key,
            "flow_run_run_count": attempt,
            "run_count": 1 if started else 0,
            "start_time": started,
            "end_time": started and started + timedelta(seconds=1),
            "expected_start_time": BEGIN + timedelta(seconds=at),
            "state": State.model_validate({"type": type_, "name": state_name, "state_details": details}),
            "state_type": type_,
            "state_name": state_name,
            **more,
        }
    )


def shown(steps: list[Step]) -> list[tuple[str, str, int]]:
    return [(step.name, step.status.value, step.retry_count) for step in steps]


def test_attempts_are_one_step_also_if_the_code_was_fixed_in_between() -> None:
    first = task_run(1, "load", "FAILED")
    second = task_run(2, "load", "COMPLETED", attempt=2, task_key="load-ffffffff")
    assert shown(fold(flow_run("COMPLETED", 2), [second, first])) == [("load", "COMPLETED", 1)]


def test_a_cached_attempt_keeps_the_times_of_the_one_that_ran_the_task() -> None:
    (step,) = fold(flow_run("COMPLETED", 2), [task_run(1, "a", "COMPLETED"), task_run(9, "a", "Cached", attempt=2)])
    assert (step.status, step.retry_count) == (StepStatus.COMPLETED, 0)
    assert step.started_at == BEGIN + timedelta(seconds=1)


def test_calls_of_one_task_are_separate_steps_with_their_own_attempts() -> None:
    first = [task_run(1, "a", "COMPLETED"), task_run(2, "a", "FAILED"), task_run(3, "a", "PENDING", attempt=0)]
    second = [task_run(4, "a", "Cached", attempt=2), task_run(5, "a", "COMPLETED", attempt=2)]
    steps = fold(flow_run("COMPLETED", 2), [*first, *second, task_run(6, "a", "COMPLETED", attempt=2)])
    assert shown(steps) == [("a", "COMPLETED", 0), ("a", "COMPLETED", 1), ("a", "COMPLETED", 0)]


def test_custom_names_distinguish_concurrent_calls_in_any_order() -> None:
    first = [task_run(1, "get", "COMPLETED", name="get AAPL"), task_run(2, "get", "FAILED", name="get MSFT")]
    second = [
        task_run(3, "get", "COMPLETED", attempt=2, name="get MSFT"),
        task_run(4, "get", "Cached", attempt=2, name="get AAPL"),
    ]
    assert shown(fold(flow_run("COMPLETED", 2), first + second)) == [
        ("get AAPL", "COMPLETED", 0),
        ("get MSFT", "COMPLETED", 1),
    ]


def test_during_a_retry_steps_that_had_not_completed_are_pending() -> None:
    first = [task_run(1, "a", "COMPLETED"), task_run(2, "b", "FAILED")]
    assert shown(fold(flow_run("RUNNING", 2), first)) == [("a", "COMPLETED", 0), ("b", "PENDING", 0)]


def test_a_final_run_shows_no_running_step() -> None:
    tasks = [
        task_run(1, "done", "COMPLETED"),
        task_run(2, "cut", "RUNNING"),
        task_run(3, "waiting", "PENDING"),
        task_run(4, "never", "Never"),
        task_run(5, "stopped", "CANCELLED"),
    ]
    for state in ("CANCELLED", "CRASHED", "FAILED"):
        steps = fold(flow_run(state), tasks)
        assert [step.status.value for step in steps] == ["COMPLETED", "FAILED", "SKIPPED", "SKIPPED", "FAILED"]
        assert [step.was_interrupted for step in steps] == [False, True, False, False, True]


def test_in_a_completed_run_a_step_whose_end_is_not_recorded_yet_has_completed() -> None:
    (step,) = fold(flow_run("COMPLETED"), [task_run(1, "a", "RUNNING")])
    assert (step.status, step.was_interrupted) == (StepStatus.COMPLETED, False)


def test_a_running_step_of_a_running_run_is_running() -> None:
    (step,) = fold(flow_run("RUNNING"), [task_run(1, "a", "RUNNING")])
    assert (step.status, step.completed_at) == (StepStatus.RUNNING, None)


def test_retries_inside_one_task_run_count_too() -> None:
    assert fold(flow_run("COMPLETED"), [task_run(1, "a", "COMPLETED", run_count=3)])[0].retry_count == 2


def test_child_flows_are_separate_steps() -> None:
    children = [task_run(n, "child", "COMPLETED", attempt=0, child=uuid4(), dynamic_key=str(n)) for n in (0, 1)]
    assert len(fold(flow_run("COMPLETED"), children)) == 2


def test_a_run_without_task_runs_has_no_steps() -> None:
    assert fold(flow_run("COMPLETED"), []) == []
