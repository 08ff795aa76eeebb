"""Prefect's execution of runs, set up once for all runs of a worker.

The process worker sets up a client, two event streams and a control channel for each run, which takes longer than the
start of a forked run. Each of these can serve many runs at once.
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

from spine_worker.crash_reports import CrashReports
from spine_worker.silent_ends import ABORTED, ENDED_SILENTLY

_SECONDS_BETWEEN_CHECKS = 0.01
_SECONDS_BETWEEN_TRIES = 2.0
# What Prefect's context has while it is open.
PRIVATE_ATTRIBUTES = (
    *("client", "process_manager", "control_channel", "_observer", "_state_proposer", "_logger"),
    *("_cancellation_manager", "_cancellation_task_group"),
)
_ENDED = {"COMPLETED", "FAILED", "CANCELLED"}


class HooksByRun:
    """Runs the hooks of each run in the workspace of that run."""

    def __init__(self) -> None:
        self._by_run: dict[UUID, FlowRunHookRunner] = {}

    def add(self, run_id: UUID, hooks: FlowRunHookRunner) -> None:
        """Use these hooks for a run."""
        self._by_run[run_id] = hooks

    def remove(self, run_id: UUID) -> None:
        """Run no more hooks for a run."""
        self._by_run.pop(run_id, None)

    async def run_cancellation_hooks(self, flow_run: FlowRun, state: State) -> None:
        """Run `on_cancellation` hooks."""
        if hooks := self._by_run.get(flow_run.id):
            await hooks.run_cancellation_hooks(flow_run, state)

    async def run_crashed_hooks(self, flow_run: FlowRun, state: State) -> None:
        """Run `on_crashed` hooks."""
        if hooks := self._by_run.get(flow_run.id):
            await hooks.run_crashed_hooks(flow_run, state)


def substitute(owner: object, name: str, value: object) -> None:
    """Replace what Prefect has under a name. Raises `AttributeError` if this version has nothing there."""
    getattr(owner, name)
    setattr(owner, name, value)


class SharedContext(FlowRunExecutorContext):
    """A context for many runs, which knows which of them are being cancelled."""

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        try:
            self._serve_many_runs()
        except BaseException:
            await super().__aexit__(None, None, None)
            raise
        return self

    def _serve_many_runs(self) -> None:
        """Adapt the context to many runs. Raises `AttributeError` if Prefect has changed a name that runs need."""
        for name in PRIVATE_ATTRIBUTES:
            getattr(self, name)
        # The runs that have begun. What fails before that is not the end of a run.
        self.begun: set[UUID] = set()
        substitute(self, "_state_proposer", CrashReports(client=self.client, begun=self.begun))
        self.hooks = HooksByRun()
        self._cancelling: dict[UUID, set[asyncio.Future[None]]] = {}
        self._expected: set[UUID] = set()
        self._cancelled: set[UUID] = set()
        self._conclusions: dict[UUID, AttemptConclusion] = {}
        self._is_blind = False
        substitute(self._observer, "on_cancelling", self._begin_to_cancel)
        substitute(self._observer, "on_failure", self._lose_sight)
        # Prefect 3.8: the events would end without an error when the server closes the connection cleanly. Later
        # versions restore the connection.
        if (events := getattr(self._observer, "_events_subscriber", None)) is not None:
            substitute(events, "_reconnect_on_clean_close", True)

    def _begin_to_cancel(self, flow_run_id: UUID) -> None:
        self._cancellation_task_group.start_soon(self._cancel, flow_run_id)

    def _lose_sight(self, flow_run_ids: set[UUID]) -> None:
        """Prefect sees no more cancellations, neither as events nor by polling, as after an outage of its server."""
        self._is_blind = True
        self._handle_cancellation_observer_failure(flow_run_ids)

    @property
    def is_live(self) -> bool:
        """Whether cancellations arrive as events; after a lost connection Prefect 3.8 only polls now and then."""
        if self._is_blind:
            return False
        if not hasattr(self._observer, "_consumer_task"):
            return True
        events = self._observer._consumer_task
        return events is not None and not events.done()

    async def _cancel(self, run_id: UUID) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._cancelling.setdefault(run_id, set()).add(done)
        self._cancelled.add(run_id)
        try:
            # If the run is about to start, Prefect would find no process to stop, and the run would begin.
            while run_id in self._expected and self.process_manager.get(run_id) is None:  # noqa: ASYNC110
                await asyncio.sleep(_SECONDS_BETWEEN_CHECKS)
            while not await self._is_cancelled(run_id):  # noqa: ASYNC110
                await asyncio.sleep(_SECONDS_BETWEEN_TRIES)
        finally:
            done.set_result(None)

    async def _is_cancelled(self, run_id: UUID) -> bool:
        """Try to cancel a run. Raises nothing: an error would end the context with all its runs."""
        try:
            await self._cancellation_manager.cancel_by_id(run_id)
        except ObjectNotFound:
            # The run has been deleted, so there is no state to set.
            await self.process_manager.kill(run_id)
        except Exception as error:
            self._logger.warning("Could not cancel flow run %s yet, trying again: %s", run_id, error)
            return self.process_manager.get(run_id) is None
        return True

    def expect(self, run_id: UUID) -> None:
        """A process of this run is about to start."""
        self._expected.add(run_id)
        self._observer.add_in_flight_flow_run_id(run_id)

    def forget(self, run_id: UUID) -> None:
        """The run has ended, or its process did not start."""
        self._expected.discard(run_id)
        self._cancelled.discard(run_id)
        self._conclusions.pop(run_id, None)
        self.begun.discard(run_id)
        self._cancelling.pop(run_id, None)
        self._observer.remove_in_flight_flow_run_id(run_id)

    def conclusion_of(self, run_id: UUID) -> AttemptConclusion | None:
        """How the process of a run has reported its end."""
        conclusion = self.control_channel.get_conclusion(run_id)
        if conclusion is not None:
            self._conclusions[run_id] = conclusion
        return conclusion

    async def conclude(self, run_id: UUID, identifier: str | None) -> None:
        """Finish the cancellation of a run whose process has ended, and report an end that its engine has not.

        An engine that is stopped before its flow has begun leaves the run in the state that it has. `identifier` is
        that of the process, as Prefect stores it.
        """
        self._expected.discard(run_id)
        if cancelling := self._cancelling.pop(run_id, None):
            await asyncio.wait(cancelling)
        conclusion = self._conclusions.get(run_id)
        if isinstance(conclusion, EngineOutcomeReceipt) and conclusion.state_type in _ENDED:
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
        elif (run.state.is_running() or run.state.is_pending()) and (why := self._why_it_is_open(run, identifier)):
            crashed = await self._state_proposer.propose_crashed(run, why)
            if crashed is not None:
                await self.hooks.run_crashed_hooks(run, crashed)

    def _why_it_is_open(self, run: FlowRun, identifier: str | None) -> str | None:
        """Why a run has not ended, although its process has; None if it may be another process that executes it."""
        conclusion = self._conclusions.get(run.id)
        if conclusion is None:
            return ENDED_SILENTLY
        is_aborted = isinstance(conclusion, EngineOutcomeReceipt) and conclusion.state_type is None
        is_of_process = identifier is not None and run.infrastructure_pid == identifier
        return ABORTED if is_aborted and is_of_process else None


class SharedExecution:
    """Gives runs a live context, and opens another one when the current one is no longer live."""

    def __init__(self) -> None:
        self._current: _OpenContext | None = None
        self._renewing = asyncio.Lock()

    async def close(self) -> None:
        """Close the context; call this when no run uses it."""
        if self._current is not None:
            await self._current.close()

    async def context(self, run_id: UUID) -> "ContextUse":
        """A context for one attempt at this run, to be entered with `async with`."""
        async with self._renewing:
            current = self._current
            # A context keeps everything by run id, so two attempts at one run must not share it.
            if current is None or not current.is_live or run_id in current.runs:
                self._current = await _OpenContext.begin()
                if current is not None:
                    current.retire()
                current = self._current
        return ContextUse(current, run_id)


class ContextUse:
    """The use of a context by one run."""

    def __init__(self, opened: "_OpenContext", run_id: UUID) -> None:
        self._opened = opened
        self._run_id = run_id

    async def __aenter__(self) -> SharedContext:
        self._opened.runs.add(self._run_id)
        return self._opened.context

    async def __aexit__(self, *_: object) -> None:
        self._opened.runs.discard(self._run_id)
        self._opened.close_if_unused()


class _OpenContext:
    """A context that is entered and left by a task of its own: the same task has to do both."""

    def __init__(self) -> None:
        # The runs that use the context.
        self.runs: set[UUID] = set()
        self._is_retired = False
        self._closing = asyncio.Event()

    @classmethod
    async def begin(cls) -> "_OpenContext":
        """Enter a new context."""
        opened = cls()
        entered: asyncio.Future[SharedContext] = asyncio.get_running_loop().create_future()
        opened._task = asyncio.create_task(opened._keep_open(entered))
        opened.context = await entered
        return opened

    context: SharedContext
    _task: asyncio.Task[None]

    async def _keep_open(self, entered: "asyncio.Future[SharedContext]") -> None:
        async with AsyncExitStack() as stack:
            try:
                context = await stack.enter_async_context(SharedContext())
            except BaseException as error:
                entered.set_exception(error)
                return
            entered.set_result(context)
            await self._closing.wait()

    @property
    def is_live(self) -> bool:
        """Whether new runs can use the context."""
        return not self._task.done() and self.context.is_live

    def retire(self) -> None:
        """Close the context when its last run has ended."""
        self._is_retired = True
        self.close_if_unused()

    def close_if_unused(self) -> None:
        """Close a retired context that no run uses."""
        if self._is_retired and not self.runs:
            self._closing.set()

    async def close(self) -> None:
        """Close the context now."""
        self._closing.set()
        # A context that failed has already reported its error.
        await asyncio.wait([self._task])
