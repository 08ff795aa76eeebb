"""The worker of type `spine`: Prefect's process worker, woken by events, which forks runs from warm interpreters."""

import asyncio
import os
from contextlib import suppress
from functools import lru_cache, partial
from typing import Any, Self, cast
from uuid import UUID, uuid4

import anyio
import anyio.abc
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import WorkPoolFilter, WorkPoolFilterName
from prefect.client.schemas.objects import FlowRun, WorkPool
from prefect.client.schemas.responses import DeploymentResponse, WorkerFlowRunResponse
from prefect.events import Event
from prefect.settings import PREFECT_WORKER_QUERY_SECONDS
from prefect.workers.base import BaseJobConfiguration, BaseWorkerResult
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker, ProcessWorkerResult

from spine_worker.caching_client import RememberingClient
from spine_worker.eligibility import workspace_of
from spine_worker.execution import SharedExecution
from spine_worker.launches import Attempts
from spine_worker.reschedule import return_run, see_through
from spine_worker.wakeup import wake_on_work
from spine_worker.warm import CannotFork, Code, WarmServers

_SECONDS_BETWEEN_LOOKS_AT_CODE = 1.0
_SECONDS_BEFORE_LABELS = 1.0
# As many as Prefect tells at once.
_DEPLOYMENTS = 200
_WARM_FLOWS = int(os.environ.get("SPINE_WORKER_WARM_FLOWS", "16"))


class SpineJobConfiguration(ProcessJobConfiguration):
    """What a process worker is configured with."""

    @classmethod
    @lru_cache(maxsize=1)
    def _base_environment(cls) -> dict[str, str]:
        # The settings of a worker do not change, and take 20 ms to be put into variables.
        return super()._base_environment()


class SpineWorker(ProcessWorker):
    """Starts runs at once, and is a process worker in all else."""

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
        self._attempts = Attempts(self._servers, self._execution)
        # Runs that were named and may become ours, and those that are and have not begun.
        self._undecided: dict[UUID, asyncio.Future[None]] = {}
        self._taken: set[UUID] = set()
        self._remembering: RememberingClient | None = None
        self._polling = asyncio.Lock()
        self._woken = asyncio.Event()
        self._background: list[asyncio.Task[None]] = []

    @property
    def client(self) -> PrefectClient:
        """Prefect's client, for runs that are submitted."""
        client = super().client
        if self._remembering is None:
            self._remembering = RememberingClient(client)
        return cast(PrefectClient, self._remembering)

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._background = [asyncio.create_task(work) for work in (self._keep_warm(), self._poll_when_woken())]
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        try:
            for task in self._background:
                task.cancel()
            if exc_info[0] is not None and self._runs_task_group is not None:
                # Runs are handed back before all else: there may not be much time.
                self._runs_task_group.cancel_scope.cancel()
            await super().__aexit__(*exc_info)
        finally:
            self._remembering = None
            with anyio.CancelScope(shield=True):
                await asyncio.gather(*self._background, return_exceptions=True)
                await self._execution.close()
            self._servers.close()

    # Waking up

    async def get_and_submit_flow_runs(self) -> list[FlowRun]:
        """Poll, one at a time, and again only when it is known which of the named runs are ours.

        Until then Prefect on PostgreSQL neither names a run again nor counts it, and would name others beyond the limit
        of their pool or queue. The wait ends when Prefect's own worker would ask again.
        """
        async with self._polling:
            before = set(self._submitting_flow_run_ids)
            named = await super().get_and_submit_flow_runs()
            loop = asyncio.get_running_loop()
            undecided = {run_id: loop.create_future() for run_id in self._submitting_flow_run_ids - before}
            if undecided:
                self._undecided |= undecided
                await asyncio.wait(undecided.values(), timeout=PREFECT_WORKER_QUERY_SECONDS.value())
            return named

    async def _get_scheduled_flow_runs(self) -> list[WorkerFlowRunResponse]:
        answer = await super()._get_scheduled_flow_runs()
        if self._remembering and any(one.flow_run.id not in self._submitting_flow_run_ids for one in answer):
            self._remembering.work_has_come()
        return answer

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
                    listening = asyncio.create_task(wake_on_work(pool_id, self._woken.set))
                await self._woken.wait()
                self._woken.clear()
                # The loop that polls in any case tells of what goes wrong.
                with suppress(Exception):
                    await self.get_and_submit_flow_runs()
        finally:
            if listening is not None:
                listening.cancel()

    async def _synced(self) -> None:
        while not self._has_successfully_synced:  # noqa: ASYNC110 (Prefect has a flag for it and no event)
            await asyncio.sleep(0.1)

    # Taking runs, and handing them back when the worker is stopped

    async def _propose_pending_state(self, flow_run: FlowRun) -> bool:
        # Also when the worker is stopped meanwhile it has to be known whose the run is.
        with anyio.CancelScope(shield=True):
            is_ours = await super()._propose_pending_state(flow_run)
        if is_ours:
            self._taken.add(flow_run.id)
        self._decide(flow_run.id)
        return is_ours

    def _decide(self, run_id: UUID) -> None:
        undecided = self._undecided.pop(run_id, None)
        if undecided is not None and not undecided.done():
            undecided.set_result(None)

    async def _submit_run(self, flow_run: FlowRun) -> None:
        try:
            await super()._submit_run(flow_run)
        except asyncio.CancelledError:
            if flow_run.id in self._taken:
                await see_through(return_run(self.client, flow_run))
            raise
        finally:
            self._taken.discard(flow_run.id)
            self._decide(flow_run.id)

    # Starting warm

    def _emit_flow_run_submitted_event(self, configuration: BaseJobConfiguration) -> Event | None:
        # All is known that a process needs. It gets ready while the run's state is set.
        run = configuration._related_objects.get("flow-run")
        if isinstance(configuration, ProcessJobConfiguration) and isinstance(run, FlowRun):
            self._attempts.begin(run, configuration)
        return super()._emit_flow_run_submitted_event(configuration)

    async def _give_worker_labels_to_flow_run(self, flow_run_id: UUID) -> None:
        # Prefect on SQLite answers 503 to many of these when it is writing, to be asked again two seconds later.
        if self._runs_task_group is not None:
            self._runs_task_group.start_soon(self._label, flow_run_id)

    async def _label(self, flow_run_id: UUID) -> None:
        await asyncio.sleep(_SECONDS_BEFORE_LABELS)
        try:
            await super()._give_worker_labels_to_flow_run(flow_run_id)
        except Exception as error:  # The run is worth more than its labels.
            self._logger.warning("Flow run %s has no labels of its worker: %s", flow_run_id, error)

    async def _submit_run_and_capture_errors(
        self, flow_run: FlowRun, task_status: anyio.abc.TaskStatus[int | Exception] | None = None
    ) -> BaseWorkerResult | Exception:
        try:
            return await super()._submit_run_and_capture_errors(flow_run, task_status)
        finally:
            self._attempts.abandon(flow_run)
            # Where runs are limited in number, another one may have waited for the end of this.
            self._woken.set()

    async def run(
        self,
        flow_run: FlowRun,
        configuration: ProcessJobConfiguration,
        task_status: anyio.abc.TaskStatus[int] | None = None,
    ) -> ProcessWorkerResult:
        """Let the forked process run, or start it as the process worker does where it cannot be forked."""
        begins = partial(self._taken.discard, flow_run.id)
        try:
            attempt = await self._attempts.take(flow_run, configuration)
        except CannotFork as reason:
            self.get_flow_run_logger(flow_run).info("Starting in a new interpreter: %s.", reason)
            begins()
            return await super().run(flow_run, configuration, task_status)
        try:
            execution = await attempt.execute(task_status or anyio.TASK_STATUS_IGNORED, begins)
        finally:
            with anyio.CancelScope(shield=True):
                await attempt.close()
        if execution is None or execution.status_code is None:
            raise RuntimeError("Failed to start flow run process.")
        return ProcessWorkerResult(status_code=execution.status_code, identifier=str(execution.handle.pid))

    # Keeping warm

    async def _keep_warm(self) -> None:
        await self._synced()
        now = asyncio.get_running_loop().time
        due = now()
        while True:
            try:
                if now() >= due:
                    due = now() + self.heartbeat_interval_seconds
                    await self._warm_up()
                await self._servers.renew()
            except Exception as error:  # What is not warm is started when it is needed.
                self._logger.debug("Could not look after warm interpreters: %s", error)
            await asyncio.sleep(_SECONDS_BETWEEN_LOOKS_AT_CODE)

    async def _warm_up(self) -> None:
        """Import the flows of the pool's deployments, as runs without variables of their own would have it."""
        in_pool = WorkPoolFilter(name=WorkPoolFilterName(any_=[self._work_pool_name]))
        deployments = await self.client.read_deployments(work_pool_filter=in_pool, limit=_DEPLOYMENTS)
        codes = [code for one in deployments if (code := await self._code_of(one)) is not None]
        self._servers.want(frozenset(codes))
        for code in codes:
            if not self._servers.knows(code) and not self._servers.is_full:
                with suppress(CannotFork):
                    await self._servers.server(code)

    async def _code_of(self, deployment: DeploymentResponse) -> Code | None:
        """What runs of a deployment execute; None where they are not forked."""
        run = FlowRun(id=uuid4(), flow_id=deployment.flow_id, name="", deployment_id=deployment.id)
        try:
            configuration = await self.job_configuration.resolve_for_flow_run(
                run,
                client=self.client,
                work_pool=self.work_pool,
                worker_name=self.name,
                worker_id=self.backend_id,
                deployment=deployment,
            )
            return workspace_of(configuration, deployment).code
        except CannotFork:
            return None
        except Exception as error:  # Its runs will tell of it; the other deployments are warm all the same.
            self._logger.debug("Deployment %s cannot be warm: %s", deployment.name, error)
            return None

    def _record_work_pool_snapshot(self, work_pool: WorkPool) -> None:
        if work_pool.type == ProcessWorker.type and self._work_pool is None:
            # It says all that this worker needs to know; Prefect would warn of a mismatch.
            self._work_pool = work_pool
        was_made_anew = self._work_pool is not None and self._work_pool.id != work_pool.id
        super()._record_work_pool_snapshot(work_pool)
        if was_made_anew:
            # It has events of its own.
            self._woken.set()
