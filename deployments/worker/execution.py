"""Prefect's execution of runs, set up once for all runs of a worker.

The process worker sets up a client, two event streams and a control channel for each run, which takes longer than
the start of a forked run. All of these serve many runs at once.
"""

import asyncio
from collections import defaultdict
from contextlib import AsyncExitStack
from typing import Self
from uuid import UUID

from prefect._internal.attempt_control import AttemptConclusion, EngineOutcomeReceipt
from prefect.client.schemas.objects import FlowRun, State
from prefect.runner._flow_run_executor import FlowRunExecutorContext
from prefect.runner._hook_runner import FlowRunHookRunner

_SECONDS_BETWEEN_LOOKS = 0.01
_ENDED = {"COMPLETED", "FAILED", "CANCELLED"}


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
        self._expected: set[UUID] = set()
        self._cancelled: set[UUID] = set()
        self._ended: set[UUID] = set()
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
        self._cancelled.add(run_id)
        try:
            # It may be about to start: Prefect would find nothing to stop, and the run would begin.
            while run_id in self._expected and self.process_manager.get(run_id) is None:  # noqa: ASYNC110
                await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)
            await self._cancellation_manager.cancel_by_id(run_id)
        finally:
            done.set_result(None)
            self._cancelling[run_id].discard(done)

    def expect(self, run_id: UUID) -> None:
        """A process of this run is about to be started."""
        self._expected.add(run_id)
        self._observer.add_in_flight_flow_run_id(run_id)

    def forget(self, run_id: UUID) -> None:
        """Nothing more comes of this run, or nothing came of it."""
        self._expected.discard(run_id)
        self._cancelled.discard(run_id)
        self._ended.discard(run_id)
        self._observer.remove_in_flight_flow_run_id(run_id)

    def conclusion_of(self, run_id: UUID) -> AttemptConclusion | None:
        """What a process has said of its end."""
        conclusion = self.control_channel.get_conclusion(run_id)
        if isinstance(conclusion, EngineOutcomeReceipt) and conclusion.state_type in _ENDED:
            self._ended.add(run_id)
        return conclusion

    async def conclude(self, run_id: UUID) -> None:
        """Wait until nothing is left to be done of the cancellation of a run whose process has ended.

        Prefect's engine ends in whatever state it finds when it is stopped before the flow has begun.
        """
        self._expected.discard(run_id)
        await asyncio.gather(*self._cancelling.pop(run_id, ()))
        if run_id in self._ended:
            return
        run = await self.client.read_flow_run(run_id)
        if run.state is None:
            return
        was_stopped = run_id in self._cancelled and (run.state.is_crashed() or not run.state.is_final())
        if was_stopped or run.state.is_cancelling():
            message = run.state.message if run.state.is_cancelling() else "Flow run was cancelled successfully."
            await self._state_proposer.propose_cancelled(run, {"message": message})


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
