"""Prefect's execution of runs, set up once for all runs of a worker.

The process worker sets up a client, two event streams and a control channel for each run, which takes longer than
the start of a forked run. All of these serve many runs at once.
"""

import asyncio
from collections import defaultdict
from contextlib import AsyncExitStack
from typing import Self
from uuid import UUID

from prefect.client.schemas.objects import FlowRun, State
from prefect.runner._flow_run_executor import FlowRunExecutorContext
from prefect.runner._hook_runner import FlowRunHookRunner


class HooksOfRuns:
    """Runs the hooks of each run where that run's code is."""

    def __init__(self) -> None:
        self._by_run: dict[UUID, FlowRunHookRunner] = {}

    def add(self, run_id: UUID, hooks: FlowRunHookRunner) -> None:
        """Use these for a run."""
        self._by_run[run_id] = hooks

    def remove(self, run_id: UUID) -> None:
        """The run has ended."""
        self._by_run.pop(run_id, None)

    async def run_cancellation_hooks(self, flow_run: FlowRun, state: State) -> None:
        """Run `on_cancellation` hooks."""
        if hooks := self._by_run.get(flow_run.id):
            await hooks.run_cancellation_hooks(flow_run, state)

    async def run_crashed_hooks(self, flow_run: FlowRun, state: State) -> None:
        """Run `on_crashed` hooks."""
        if hooks := self._by_run.get(flow_run.id):
            await hooks.run_crashed_hooks(flow_run, state)


class SharedContext(FlowRunExecutorContext):
    """A context for many runs, which knows what runs are being cancelled."""

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self.hooks = HooksOfRuns()
        self._cancelling: defaultdict[UUID, set[asyncio.Future[None]]] = defaultdict(set)
        self._observer.on_cancelling = self._begin_to_cancel
        return self

    def _begin_to_cancel(self, flow_run_id: UUID) -> None:
        self._cancellation_task_group.start_soon(self._cancel, flow_run_id)

    @property
    def is_live(self) -> bool:
        """Whether cancellations arrive as events; after a lost connection Prefect only asks now and then."""
        return self._observer._polling_task is None

    async def _cancel(self, run_id: UUID) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._cancelling[run_id].add(done)
        try:
            await self._cancellation_manager.cancel_by_id(run_id)
        finally:
            done.set_result(None)
            self._cancelling[run_id].discard(done)

    async def cancelled(self, run_id: UUID) -> None:
        """Wait until nothing is left to be done of a run's cancellation."""
        await asyncio.gather(*self._cancelling.pop(run_id, ()))


class SharedExecution:
    """Gives runs the context that is live, and makes another one when it is not."""

    def __init__(self) -> None:
        self._current: _Kept | None = None
        self._renewing = asyncio.Lock()

    async def close(self) -> None:
        """Leave the context; no run uses it any more."""
        if self._current is not None:
            await self._current.close()

    async def context(self) -> "Use":
        """A context to be used with `async with`."""
        async with self._renewing:
            current = self._current
            if current is None or not current.context.is_live:
                self._current = await _Kept.begin()
                if current is not None:
                    current.retire()
                current = self._current
        return Use(current)


class Use:
    """The use of a context by one run."""

    def __init__(self, kept: "_Kept") -> None:
        self._kept = kept

    async def __aenter__(self) -> SharedContext:
        self._kept.users += 1
        return self._kept.context

    async def __aexit__(self, *_: object) -> None:
        self._kept.users -= 1
        self._kept.end_if_unused()


class _Kept:
    """A context that a task of its own has entered, since it must be left by the task that has."""

    def __init__(self) -> None:
        self.users = 0
        self._is_retired = False
        self._over = asyncio.Event()

    @classmethod
    async def begin(cls) -> "_Kept":
        """Enter a new context."""
        kept = cls()
        entered: asyncio.Future[SharedContext] = asyncio.get_running_loop().create_future()
        kept._task = asyncio.create_task(kept._keep(entered))
        kept.context = await entered
        return kept

    context: SharedContext
    _task: asyncio.Task[None]

    async def _keep(self, entered: "asyncio.Future[SharedContext]") -> None:
        async with AsyncExitStack() as stack:
            try:
                context = await stack.enter_async_context(SharedContext())
            except BaseException as error:
                entered.set_exception(error)
                return
            entered.set_result(context)
            await self._over.wait()

    def retire(self) -> None:
        """Leave the context when the last run has."""
        self._is_retired = True
        self.end_if_unused()

    def end_if_unused(self) -> None:
        """Leave a retired context that nobody uses."""
        if self._is_retired and not self.users:
            self._over.set()

    async def close(self) -> None:
        """Leave the context now."""
        self._over.set()
        await self._task
