"""The launches of runs: each is forked as soon as its configuration is known, and starts when Prefect's worker says."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.abc
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.runner._flow_run_executor import FlowRunExecutionResult, FlowRunExecutor
from prefect.runner._process_manager import ProcessHandle
from prefect.workers.process import ProcessJobConfiguration

from spine_worker.eligibility import Workspace, workspace_of
from spine_worker.execution import SharedContext, SharedExecution, substitute
from spine_worker.fork_servers import ServerGone
from spine_worker.starter import ForkStarter, fork_run
from spine_worker.warm import CannotFork, UnexpectedFailure, WarmServers

# What the worker knows of a run: the fields of `forking.messages.Known`.
Know = Callable[[FlowRun, ProcessJobConfiguration], Awaitable[dict[str, Any]]]


@dataclass
class Launch:
    """A run whose process waits for its start."""

    run: FlowRun
    starter: ForkStarter
    context: SharedContext
    _exit: AsyncExitStack

    async def execute(
        self, task_status: anyio.abc.TaskStatus[int], on_start: Callable[[], None]
    ) -> FlowRunExecutionResult | None:
        """Start the run, report the id of its process at once, and wait until all work on the run is done.

        `on_start` is called at the moment from which on a stop of the worker stops the run in here. Raises
        `UnexpectedFailure` if the run has not started.
        """
        self.starter.on_start = on_start
        try:
            self.context.hooks.add(self.run.id, self.starter.hooks)
            executor = self.context.create_executor(
                self.run, self.starter, propose_submitting=False, hook_runner=self.context.hooks
            )
            substitute(executor, "_get_attempt_conclusion", self.context.conclusion_of)
            result = await _execute(executor, task_status)
        except Exception as error:
            if self.starter.has_started:
                raise
            raise UnexpectedFailure.of(self.starter.failure or error) from error
        await self.context.conclude(self.run.id, str(result.handle.pid) if result else None)
        return result

    async def close(self) -> None:
        """Release everything; a process whose run was not started ends."""
        self.context.hooks.remove(self.run.id)
        self.context.control_channel.unregister(self.run.id)
        self.starter.close()
        await self._exit.aclose()


class Launches:
    """The launches that are being prepared.

    They are kept by the worker's object for the run and not by its id: an earlier attempt at the run may not have
    ended yet.
    """

    def __init__(self, servers: WarmServers, execution: SharedExecution, know: Know) -> None:
        self._servers = servers
        self._execution = execution
        self._know = know
        self._preparing: dict[int, asyncio.Task[Launch]] = {}

    def prepare(self, run: FlowRun, configuration: ProcessJobConfiguration) -> None:
        """Fork a run in the background."""
        self._preparing[id(run)] = asyncio.create_task(self._prepare(run, configuration))

    async def take(self, run: FlowRun, configuration: ProcessJobConfiguration) -> Launch:
        """The launch of a run, which the caller closes. Raises `CannotFork`."""
        if id(run) not in self._preparing:
            self.prepare(run, configuration)
        try:
            return await self._preparing.pop(id(run))
        except CannotFork:
            raise
        except ServerGone as error:
            raise CannotFork(f"its fork server failed: {error}") from error
        except Exception as error:
            raise UnexpectedFailure.of(error) from error

    def abandon(self, run: FlowRun) -> None:
        """End the process of a run whose launch nothing has taken, before the run does anything."""
        if (preparing := self._preparing.pop(id(run), None)) is not None:
            preparing.add_done_callback(_close_when_done)

    async def _prepare(self, run: FlowRun, configuration: ProcessJobConfiguration) -> Launch:
        workspace = workspace_of(configuration, deployment_of(configuration))
        async with AsyncExitStack() as stack:
            context = await stack.enter_async_context(await self._execution.context(run.id))
            context.expect(run.id)
            stack.callback(context.forget, run.id)
            known = await self._know(run, configuration)
            starter = await self._fork(workspace, run, context, known, stream_output=configuration.stream_output)
            return Launch(run, starter, context, stack.pop_all())

    async def _fork(
        self,
        workspace: Workspace,
        run: FlowRun,
        context: SharedContext,
        known: dict[str, Any],
        *,
        stream_output: bool,
    ) -> ForkStarter:
        server = await self._servers.server(workspace.code)
        try:
            return await fork_run(server, workspace, run, context, known, stream_output=stream_output)
        except ServerGone:
            # The server may have been replaced in the meantime.
            server = await self._servers.server(workspace.code)
            return await fork_run(server, workspace, run, context, known, stream_output=stream_output)


def deployment_of(configuration: ProcessJobConfiguration) -> DeploymentResponse | None:
    """The deployment that a configuration was resolved for."""
    found = configuration._related_objects.get("deployment")
    return found if isinstance(found, DeploymentResponse) else None


_closing: set[asyncio.Task[None]] = set()


def _close_when_done(preparing: "asyncio.Task[Launch]") -> None:
    if preparing.cancelled() or preparing.exception() is not None:
        return
    closing = asyncio.create_task(preparing.result().close())
    _closing.add(closing)
    closing.add_done_callback(_closing.discard)


async def _execute(executor: FlowRunExecutor, task_status: anyio.abc.TaskStatus[int]) -> FlowRunExecutionResult | None:
    result: FlowRunExecutionResult | None = None

    async def execute(*, task_status: anyio.abc.TaskStatus[ProcessHandle]) -> None:
        nonlocal result
        result = await executor.submit(task_status=task_status)

    async with anyio.create_task_group() as group:
        handle = await group.start(execute)
        task_status.started(handle.pid)
    return result
