"""Match the child flows of a run that is executed again by their parameters.

Prefect gives each call of a child flow the number of the call, and in a later attempt reuses the child with the same
number. Calls that run side by side come in another order each time, so a call could get the result of another one and
the child that had failed would never run again. Here a call gets the number of an earlier call of the same flow with
equal parameters, or a number that is free.
"""

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from functools import wraps
from typing import Any
from uuid import UUID

import prefect._internal.engine
import prefect.flow_engine
from prefect import Task
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterParentTaskRunId,
    TaskRunFilter,
    TaskRunFilterSubFlowRuns,
)
from prefect.client.schemas.objects import FlowRun, TaskRun
from prefect.context import FlowRunContext, TaskRunContext
from prefect.flow_engine import AsyncFlowRunEngine, FlowRunEngine

from spine_worker.forking.overlaps import any_overlap

# The most that Prefect returns at once.
_MOST_ROWS = 200

_number: ContextVar[int | None] = ContextVar("number_of_the_child_call", default=None)
_series: dict[tuple[UUID, int, str], "_Series"] = {}
_lock = threading.Lock()


class AmbiguousChild(RuntimeError):
    """A call of a child flow could be any of several earlier calls that ran side by side."""


@dataclass
class _Call:
    """A call of a child flow in an earlier attempt: its parameters as JSON, and when its newest run was executed."""

    number: int
    parameters: str
    is_completed: bool
    began: datetime | None
    ended: datetime | None


@dataclass
class _Series:
    """The calls of one child flow by one attempt of its parent."""

    earlier: list[_Call]
    taken: set[int] = field(default_factory=set)
    made: int = 0

    def take(self, flow: str, parameters: str, *, is_known: bool) -> int:
        """The number for the next call. Raises `AmbiguousChild`.

        `is_known` is false if Prefect stores no value of one of the parameters.
        """
        equal = [one for one in self.earlier if one.parameters == parameters]
        if not is_known and len(equal) > 1 and any_overlap((one.began, one.ended) for one in equal):
            raise AmbiguousChild(
                f"The calls of the child flow {flow!r} ran side by side, and Prefect stores no value of a parameter in "
                "which they differ, so it is not known here which of them had completed. Start a new run."
            )
        nth, self.made = self.made, self.made + 1
        free = [one.number for one in equal if one.number not in self.taken]
        # A call that did not complete runs again in any case, also if its parameters have changed since.
        free += [one.number for one in self.earlier if one.number == nth and not one.is_completed]
        beyond = max([-1, *self.taken, *(one.number for one in self.earlier)]) + 1
        number = next((one for one in free if one not in self.taken), beyond)
        self.taken.add(number)
        return number


def match_children_by_parameters() -> None:
    """Change Prefect in this process and in the processes that are forked from it."""
    number_of = prefect._internal.engine.dynamic_key_for_task_run

    def dynamic_key(context: FlowRunContext, task: "Task[..., Any]", stable: bool = True) -> int | str:
        number: int | None = getattr(task, "_number_of_call", None)
        return number_of(context, task, stable) if number is None else number

    prefect._internal.engine.dynamic_key_for_task_run = dynamic_key
    prefect.flow_engine.Task = _tracking_task  # type: ignore[attr-defined, assignment]
    FlowRunEngine.create_flow_run = _matched(FlowRunEngine.create_flow_run)  # type: ignore[method-assign]
    AsyncFlowRunEngine.create_flow_run = _matched_async(  # type: ignore[method-assign]
        AsyncFlowRunEngine.create_flow_run
    )


def _tracking_task(**arguments: Any) -> "Task[..., Any]":
    """The task that represents a child flow in its parent, with the number of the call."""
    task: Task[..., Any] = Task(**arguments)
    task._number_of_call = _number.get()  # type: ignore[attr-defined]
    return task


def _matched(create: Callable[..., FlowRun]) -> Callable[..., FlowRun]:
    @wraps(create)
    def create_matched(engine: Any, client: Any) -> FlowRun:
        with _numbered(_number_for(engine)):
            return create(engine, client)

    return create_matched


def _matched_async(create: Callable[..., Awaitable[FlowRun]]) -> Callable[..., Any]:
    @wraps(create)
    async def create_matched(engine: Any, client: Any) -> FlowRun:
        number = await asyncio.to_thread(_number_for, engine)
        with _numbered(number):
            return await create(engine, client)

    return create_matched


@contextmanager
def _numbered(number: int | None) -> Iterator[None]:
    token = _number.set(number)
    try:
        yield
    finally:
        _number.reset(token)


def _number_for(engine: Any) -> int | None:
    """The number for the call of a child flow; None where Prefect does not number calls."""
    parent, task = FlowRunContext.get(), TaskRunContext.get()
    if parent is None or parent.flow_run is None or parent.detached:
        return None
    if task is not None and task.task_run.flow_run_id == parent.flow_run.id:
        return None
    given = engine.parameters or {}
    recorded = engine.flow.serialize_parameters(given)
    task_key = Task(name=engine.flow.name, fn=engine.flow.fn, version=engine.flow.version).task_key
    with _lock:
        series = _series_of(parent.flow_run, task_key)
        return series.take(engine.flow.name, _as_json(recorded), is_known=_are_known(given, recorded))


def _series_of(parent: FlowRun, task_key: str) -> _Series:
    which = parent.id, parent.run_count, task_key
    if which not in _series:
        with get_client(sync_client=True) as client:
            _series[which] = _Series(_earlier_calls(client, parent.id, task_key))
    return _series[which]


def _earlier_calls(client: SyncPrefectClient, parent_id: UUID, task_key: str) -> list[_Call]:
    """The calls that have a number, with the newest run of each; calls within a task have none."""
    of_parent = FlowRunFilter(id=FlowRunFilterId(any_=[parent_id]))
    children = TaskRunFilter(subflow_runs=TaskRunFilterSubFlowRuns(exists_=True))
    found: dict[UUID, TaskRun] = {}
    while True:
        page = client.read_task_runs(
            flow_run_filter=of_parent, task_run_filter=children, limit=_MOST_ROWS, offset=len(found)
        )
        found |= {one.id: one for one in page}
        if len(page) < _MOST_ROWS:
            break
    calls = [one for one in found.values() if one.task_key == task_key and one.dynamic_key.isdecimal()]
    return [made for one in calls if (made := _newest(client, one)) is not None]


def _newest(client: SyncPrefectClient, call: TaskRun) -> _Call | None:
    of_call = FlowRunFilter(parent_task_run_id=FlowRunFilterParentTaskRunId(any_=[call.id]))
    runs = client.read_flow_runs(flow_run_filter=of_call, limit=_MOST_ROWS)
    if not runs:
        return None
    run = max(runs, key=lambda one: (one.created or one.expected_start_time, one.id.int))
    completed = call.state is not None and call.state.is_completed()
    return _Call(int(call.dynamic_key), _as_json(run.parameters), completed, run.start_time, run.end_time)


def _as_json(parameters: Mapping[str, Any]) -> str:
    return json.dumps(parameters, sort_keys=True, default=str)


def _are_known(given: Mapping[str, Any], recorded: Mapping[str, Any]) -> bool:
    """Whether Prefect stores the value of each parameter and not only the name of its type."""
    return all(
        isinstance(given.get(name), str) or value != f"<{type(given.get(name)).__name__}>"
        for name, value in recorded.items()
    )
