"""The worker of type `spine`: Prefect's process worker, but woken by events and forking runs from warm interpreters."""

import asyncio
import os
from contextlib import ExitStack, suppress
from functools import lru_cache, partial
from typing import Any, Self, cast
from uuid import UUID

import anyio
import anyio.abc
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun, WorkPool
from prefect.client.schemas.responses import DeploymentResponse, WorkerFlowRunResponse
from prefect.events import Event
from prefect.settings import PREFECT_WORKER_QUERY_SECONDS
from prefect.workers.base import BaseJobConfiguration, BaseWorkerResult
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker, ProcessWorkerResult

from spine_worker.ambiguous_children import refuse_ambiguous_children
from spine_worker.caching_client import CachingClient
from spine_worker.execution import SharedExecution
from spine_worker.fallback_notices import FallbackNotices
from spine_worker.handover import begin_to_collect, known_of
from spine_worker.launches import Launches
from spine_worker.reschedule import finish_uncancelled, release_claim
from spine_worker.silent_ends import crash_if_silent
from spine_worker.waiting_runs import WaitingRuns
from spine_worker.wakeup import wake_on_scheduled_runs
from spine_worker.warm import CannotFork, UnexpectedFailure, WarmServers
from spine_worker.warming import warm_up
from spine_worker.withheld import withholding

_SECONDS_BETWEEN_CODE_CHECKS = 1.0
# Then the first step of the run has begun.
_SECONDS_BEFORE_LABELS = 0.3
SENDS_HEARTBEATS = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}
_WARM_FLOWS = int(os.environ.get("SPINE_WORKER_WARM_FLOWS", "16"))


class SpineJobConfiguration(ProcessJobConfiguration):
    """The configuration of a process worker."""

    @classmethod
    @lru_cache(maxsize=1)
    def _base_environment(cls) -> dict[str, str]:
        # It takes 20 ms to turn the worker's settings into variables, and they do not change.
        # Spine's API takes a run for lost that has not sent several heartbeats.
        return {**SENDS_HEARTBEATS, **super()._base_environment()}


class SpineWorker(ProcessWorker):
    """Starts runs at once; in everything else it is a process worker."""

    type = "spine"
    job_configuration = SpineJobConfiguration
    _display_name = "Spine"
    _description = "Execute flow runs as subprocesses that are forked from warm interpreters, as soon as they are due."
    _documentation_url = ""
    _logo_url = ""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._servers = WarmServers(_WARM_FLOWS)
        self._execution = SharedExecution()
        self._launches = Launches(self._servers, self._execution, self._known_of)
        # Runs that a poll has returned and that this worker may claim, and those that it has claimed and not started.
        self._unclaimed: dict[UUID, asyncio.Future[None]] = {}
        self._claimed: set[UUID] = set()
        self._caching_client: CachingClient | None = None
        self._polling = asyncio.Lock()
        self._woken = asyncio.Event()
        self._background: list[asyncio.Task[None]] = []
        self._withheld = ExitStack()
        self._notices = FallbackNotices()
        self._waiting = WaitingRuns()

    @property
    def client(self) -> PrefectClient:
        """Prefect's client, which reads flows and deployments through a cache."""
        return cast(PrefectClient, self._caching)

    @property
    def _caching(self) -> CachingClient:
        if self._caching_client is None:
            self._caching_client = CachingClient(super().client)
        return self._caching_client

    async def __aenter__(self) -> Self:
        self._withheld.enter_context(withholding())
        try:
            await super().__aenter__()
        except BaseException:
            self._withheld.close()
            raise
        self._background = [asyncio.create_task(work) for work in (self._keep_warm(), self._poll_when_woken())]
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        try:
            for task in self._background:
                task.cancel()
            if exc_info[0] is not None and self._runs_task_group is not None:
                # Reschedule the runs first: there may not be much time.
                self._runs_task_group.cancel_scope.cancel()
            await super().__aexit__(*exc_info)
        finally:
            self._caching_client = None
            with anyio.CancelScope(shield=True):
                await asyncio.gather(*self._background, return_exceptions=True)
                await self._execution.close()
            self._servers.close()
            self._withheld.close()

    # Polling

    async def get_and_submit_flow_runs(self) -> list[FlowRun]:
        """Poll, one poll at a time, and only when this worker has claimed the runs of the poll before, or failed to.

        Until a run is claimed, Prefect on PostgreSQL neither returns it again nor counts it, and would return other
        runs beyond the limit of their pool or queue. The wait ends when Prefect's own worker would poll again.
        """
        async with self._polling:
            before = set(self._submitting_flow_run_ids)
            runs = await super().get_and_submit_flow_runs()
            loop = asyncio.get_running_loop()
            unclaimed = {run_id: loop.create_future() for run_id in self._submitting_flow_run_ids - before}
            if unclaimed:
                self._unclaimed |= unclaimed
                await asyncio.wait(unclaimed.values(), timeout=PREFECT_WORKER_QUERY_SECONDS.value())
            return runs

    async def _get_scheduled_flow_runs(self) -> list[WorkerFlowRunResponse]:
        runs = await super()._get_scheduled_flow_runs()
        self._waiting.polled(runs)
        if self._caching_client and any(one.flow_run.id not in self._submitting_flow_run_ids for one in runs):
            self._caching_client.expire()
            begin_to_collect(self._caching_client)
        return runs

    async def _poll_when_woken(self) -> None:
        await self._synced()
        listening: asyncio.Task[None] | None = None
        pool_id = None
        try:
            while True:
                if pool_id != self.work_pool.id:
                    pool_id = self.work_pool.id
                    if listening is not None:
                        listening.cancel()
                    listening = asyncio.create_task(wake_on_scheduled_runs(pool_id, self._woken.set))
                await self._woken.wait()
                self._woken.clear()
                # Prefect's own polling loop reports the same errors.
                with suppress(Exception):
                    await self.get_and_submit_flow_runs()
        finally:
            if listening is not None:
                listening.cancel()

    async def _synced(self) -> None:
        while not self._has_successfully_synced:  # noqa: ASYNC110 (Prefect has a flag for this and no event)
            await asyncio.sleep(0.1)

    # Claiming runs, and releasing them when the worker is stopped

    async def _propose_pending_state(self, flow_run: FlowRun) -> bool:
        # If the worker is stopped in the meantime, it must still learn whether it has claimed the run.
        with anyio.CancelScope(shield=True):
            is_claimed = await super()._propose_pending_state(flow_run)
        if is_claimed:
            self._claimed.add(flow_run.id)
        else:
            self._waiting.refused()
        self._settle(flow_run.id)
        return is_claimed

    def _settle(self, run_id: UUID) -> None:
        """Let polling continue: this worker has claimed the run or has failed to."""
        unclaimed = self._unclaimed.pop(run_id, None)
        if unclaimed is not None and not unclaimed.done():
            unclaimed.set_result(None)

    async def _submit_run(self, flow_run: FlowRun) -> None:
        try:
            await super()._submit_run(flow_run)
        except asyncio.CancelledError:
            if flow_run.id in self._claimed:
                await finish_uncancelled(release_claim(self.client, flow_run))
            raise
        except Exception:
            # Prefect's worker would end here, with all its runs. The next poll finds a run that is not claimed.
            self._logger.exception("Flow run %s could not be submitted.", flow_run.id)
            self._submitting_flow_run_ids.discard(flow_run.id)
            self._release_limit_slot(flow_run.id)
        finally:
            self._claimed.discard(flow_run.id)
            self._caching.forked.discard(flow_run.id)
            self._settle(flow_run.id)

    # Starting runs

    def _emit_flow_run_submitted_event(self, configuration: BaseJobConfiguration) -> Event | None:
        # The configuration is complete. The process prepares itself while Prefect sets the run's state.
        run = getattr(configuration, "_related_objects", {}).get("flow-run")
        if isinstance(configuration, ProcessJobConfiguration) and isinstance(run, FlowRun):
            self._launches.prepare(run, configuration)
        return super()._emit_flow_run_submitted_event(configuration)

    async def _known_of(self, run: FlowRun, configuration: ProcessJobConfiguration) -> dict[str, Any]:
        return await known_of(run, configuration, self.work_pool, self._caching)

    async def _propose_submitting_state(self, flow_run: FlowRun) -> None:
        """Propose no state that would last for some milliseconds; `run` does if the run cannot be forked."""

    async def _give_worker_labels_to_flow_run(self, flow_run_id: UUID) -> None:
        # Nothing waits for the labels, and the states of the run come first.
        if self._runs_task_group is not None:
            self._runs_task_group.start_soon(self._label, flow_run_id)

    async def _label(self, flow_run_id: UUID) -> None:
        await asyncio.sleep(_SECONDS_BEFORE_LABELS)
        try:
            await super()._give_worker_labels_to_flow_run(flow_run_id)
        except Exception as error:  # The run does not need its labels.
            self._logger.warning("Could not label flow run %s with its worker: %s", flow_run_id, error)

    async def _submit_run_and_capture_errors(
        self, flow_run: FlowRun, task_status: anyio.abc.TaskStatus[int | Exception] | None = None
    ) -> BaseWorkerResult | Exception:
        try:
            return await super()._submit_run_and_capture_errors(flow_run, task_status)
        finally:
            self._launches.abandon(flow_run)
            if self._waiting.may_wait(self._work_pool, is_worker_limited=self._limiter is not None):
                self._woken.set()

    async def run(
        self,
        flow_run: FlowRun,
        configuration: ProcessJobConfiguration,
        task_status: anyio.abc.TaskStatus[int] | None = None,
    ) -> ProcessWorkerResult:
        """Start the forked process, or a new interpreter, as the process worker does, if the run cannot be forked."""
        on_start = partial(self._claimed.discard, flow_run.id)
        self._caching.forked.add(flow_run.id)
        try:
            launch = await self._launches.take(flow_run, configuration)
            try:
                execution = await launch.execute(task_status or anyio.TASK_STATUS_IGNORED, on_start)
            finally:
                with anyio.CancelScope(shield=True):
                    await launch.close()
        except CannotFork as reason:
            self._caching.forked.discard(flow_run.id)
            self.get_flow_run_logger(flow_run).info("Starting in a new interpreter: %s.", reason)
            if isinstance(reason, UnexpectedFailure):
                self._notices.report(self.name, self._work_pool_name, str(reason))
            on_start()
            await super()._propose_submitting_state(flow_run)
            if flow_run.run_count:
                await refuse_ambiguous_children(self.client, flow_run)
            result = await super().run(flow_run, configuration, task_status)
            await crash_if_silent(self.client, flow_run.id, result.identifier)
            return result
        if execution is None or execution.status_code is None:
            raise RuntimeError("Failed to start flow run process.")
        return ProcessWorkerResult(status_code=execution.status_code, identifier=str(execution.handle.pid))

    # Warm interpreters

    async def _keep_warm(self) -> None:
        await self._synced()
        now = asyncio.get_running_loop().time
        due = now()
        while True:
            try:
                if now() >= due:
                    due = now() + self.heartbeat_interval_seconds
                    await self._waiting.read_queues(self.client, self._work_pool_name)
                    await warm_up(self._servers, self.client, self._work_pool_name, self._resolve)
                await self._servers.refresh()
            except Exception as error:  # Runs start their interpreters on demand.
                self._logger.debug("Could not refresh the warm interpreters: %s", error)
            await asyncio.sleep(_SECONDS_BETWEEN_CODE_CHECKS)

    async def _resolve(self, run: FlowRun, deployment: DeploymentResponse) -> ProcessJobConfiguration:
        who: dict[str, Any] = {"worker_name": self.name, "worker_id": self.backend_id, "deployment": deployment}
        resolve = self.job_configuration.resolve_for_flow_run
        return await resolve(run, client=self.client, work_pool=self.work_pool, **who)

    def _record_work_pool_snapshot(self, work_pool: WorkPool) -> None:
        if work_pool.type == ProcessWorker.type and self._work_pool is None:
            # A pool of type process has all that this worker needs. Without this Prefect warns of a mismatch.
            self._work_pool = work_pool
        was_replaced = self._work_pool is not None and self._work_pool.id != work_pool.id
        super()._record_work_pool_snapshot(work_pool)
        if was_replaced:
            # The new pool has events of its own.
            self._woken.set()
