"""Prefect's execution of runs, set up once for all runs of a worker.

The process worker sets up a client, two event streams and a control channel for each run, which takes longer than
the start of a forked run. All of these serve many runs at once.
"""

import asyncio
from contextlib import AsyncExitStack
from typing import Self
from uuid import UUID

from prefect._internal.attempt_control import AttemptConclusion, EngineOutcomeReceipt
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import ObjectNotFound
from prefect.runner._flow_run_executor import FlowRunExecutorContext
from prefect.runner._hook_runner import FlowRunHookRunner

_SECONDS_BETWEEN_LOOKS = 0.01
_SECONDS_BETWEEN_TRIES = 2.0
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
        self._cancelling: dict[UUID, set[asyncio.Future[None]]] = {}
        self._expected: set[UUID] = set()
        self._cancelled: set[UUID] = set()
        self._ended: set[UUID] = set()
        self._observer.on_cancelling = self._begin_to_cancel
        if (events := self._observer._events_subscriber) is not None:
            # Without it a server that closes the connection in order would end the events, and nobody would notice.
            events._reconnect_on_clean_close = True
        return self

    def _begin_to_cancel(self, flow_run_id: UUID) -> None:
        self._cancellation_task_group.start_soon(self._cancel, flow_run_id)

    @property
    def is_live(self) -> bool:
        """Whether cancellations arrive as events; after a lost connection Prefect only asks now and then."""
        events = self._observer._consumer_task
        return events is not None and not events.done()

    async def _cancel(self, run_id: UUID) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._cancelling.setdefault(run_id, set()).add(done)
        self._cancelled.add(run_id)
        try:
            # It may be about to start: Prefect would find nothing to stop, and the run would begin.
            while run_id in self._expected and self.process_manager.get(run_id) is None:  # noqa: ASYNC110
                await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)
            while not await self._is_cancelled(run_id):  # noqa: ASYNC110
                await asyncio.sleep(_SECONDS_BETWEEN_TRIES)
        finally:
            done.set_result(None)

    async def _is_cancelled(self, run_id: UUID) -> bool:
        """Try to cancel a run. Nothing is raised: it would end the context, with the runs of everybody else."""
        try:
            await self._cancellation_manager.cancel_by_id(run_id)
        except ObjectNotFound:
            # It has been deleted, so that there is nothing to be told of it.
            await self.process_manager.kill(run_id)
        except Exception as error:
            self._logger.warning("Flow run %s could not be cancelled yet: %s", run_id, error)
            return self.process_manager.get(run_id) is None
        return True

    def expect(self, run_id: UUID) -> None:
        """A process of this run is about to be started."""
        self._expected.add(run_id)
        self._observer.add_in_flight_flow_run_id(run_id)

    def forget(self, run_id: UUID) -> None:
        """Nothing more comes of this run, or nothing came of it."""
        self._expected.discard(run_id)
        self._cancelled.discard(run_id)
        self._ended.discard(run_id)
        self._cancelling.pop(run_id, None)
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
        if cancelling := self._cancelling.pop(run_id, None):
            await asyncio.wait(cancelling)
        if run_id in self._ended:
            return
        try:
            run = await self.client.read_flow_run(run_id)
        except ObjectNotFound:
            return
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

    async def context(self, run_id: UUID) -> "Use":
        """A context to be used with `async with` by one attempt at this run."""
        async with self._renewing:
            current = self._current
            # All in a context goes by the run's id: two attempts at one run must not meet.
            if current is None or not current.is_live or run_id in current.runs:
                self._current = await _Kept.begin()
                if current is not None:
                    current.retire()
                current = self._current
        return Use(current, run_id)


class Use:
    """The use of a context by one run."""

    def __init__(self, kept: "_Kept", run_id: UUID) -> None:
        self._kept = kept
        self._run_id = run_id

    async def __aenter__(self) -> SharedContext:
        self._kept.runs.add(self._run_id)
        return self._kept.context

    async def __aexit__(self, *_: object) -> None:
        self._kept.runs.discard(self._run_id)
        self._kept.end_if_unused()


class _Kept:
    """A context that a task of its own has entered, since it must be left by the task that has."""

    def __init__(self) -> None:
        # Those that use it.
        self.runs: set[UUID] = set()
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

    @property
    def is_live(self) -> bool:
        """Whether runs can be entrusted to the context."""
        return not self._task.done() and self.context.is_live

    def retire(self) -> None:
        """Leave the context when the last run has."""
        self._is_retired = True
        self.end_if_unused()

    def end_if_unused(self) -> None:
        """Leave a retired context that nobody uses."""
        if self._is_retired and not self.runs:
            self._over.set()

    async def close(self) -> None:
        """Leave the context now."""
        self._over.set()
        # A context that has failed has said so when it did.
        await asyncio.wait([self._task])
