"""The attempts at runs: forked as soon as it is known how, let go when Prefect's worker says so."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

import anyio
import anyio.abc
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.runner._flow_run_executor import FlowRunExecutionResult, FlowRunExecutor
from prefect.runner._process_manager import ProcessHandle
from prefect.workers.process import ProcessJobConfiguration

from spine_worker.eligibility import Workspace, workspace_of
from spine_worker.execution import SharedContext, SharedExecution
from spine_worker.fork_servers import ServerGone
from spine_worker.starter import ForkStarter, fork_run
from spine_worker.warm import CannotFork, WarmServers


@dataclass
class Attempt:
    """A run whose process waits to be let go."""

    run: FlowRun
    starter: ForkStarter
    context: SharedContext
    _exit: AsyncExitStack

    async def execute(
        self, task_status: anyio.abc.TaskStatus[int], begins: Callable[[], None]
    ) -> FlowRunExecutionResult | None:
        """Let the run go, tell the process' id at once, and wait until nothing is left to be done of it.

        `begins` is called at the moment from which on the run is stopped in here when the worker is.
        """
        self.starter.begins = begins
        self.context.hooks.add(self.run.id, self.starter.hooks)
        executor = self.context.create_executor(
            self.run, self.starter, propose_submitting=False, hook_runner=self.context.hooks
        )
        executor._get_attempt_conclusion = self.context.conclusion_of
        result = await _execute(executor, task_status)
        await self.context.conclude(self.run.id)
        return result

    async def close(self) -> None:
        """Leave nothing behind; a process that was not let go ends."""
        self.context.hooks.remove(self.run.id)
        self.context.control_channel.unregister(self.run.id)
        self.starter.close()
        await self._exit.aclose()


class Attempts:
    """The attempts that have begun.

    Each goes by the object that the worker has of its run: an earlier attempt at the run can still be about to end.
    """

    def __init__(self, servers: WarmServers, execution: SharedExecution) -> None:
        self._servers = servers
        self._execution = execution
        self._begun: dict[int, asyncio.Task[Attempt]] = {}

    def begin(self, run: FlowRun, configuration: ProcessJobConfiguration) -> None:
        """Fork a run in the background."""
        self._begun[id(run)] = asyncio.create_task(self._begin(run, configuration))

    async def take(self, run: FlowRun, configuration: ProcessJobConfiguration) -> Attempt:
        """The attempt at a run, which the caller closes. Raises `CannotFork`."""
        if id(run) not in self._begun:
            self.begin(run, configuration)
        try:
            return await self._begun.pop(id(run))
        except ServerGone as error:
            raise CannotFork(f"its fork server failed: {error}") from error

    def abandon(self, run: FlowRun) -> None:
        """Let a run that nobody took end before it has done anything."""
        if (begun := self._begun.pop(id(run), None)) is not None:
            begun.add_done_callback(_close_when_done)

    async def _begin(self, run: FlowRun, configuration: ProcessJobConfiguration) -> Attempt:
        workspace = workspace_of(configuration, deployment_of(configuration))
        async with AsyncExitStack() as stack:
            context = await stack.enter_async_context(await self._execution.context(run.id))
            context.expect(run.id)
            stack.callback(context.forget, run.id)
            starter = await self._fork(workspace, run, context, stream_output=configuration.stream_output)
            return Attempt(run, starter, context, stack.pop_all())

    async def _fork(
        self, workspace: Workspace, run: FlowRun, context: SharedContext, *, stream_output: bool
    ) -> ForkStarter:
        server = await self._servers.server(workspace.code)
        try:
            return await fork_run(server, workspace, run, context, stream_output=stream_output)
        except ServerGone:
            # It may have been replaced in between.
            server = await self._servers.server(workspace.code)
            return await fork_run(server, workspace, run, context, stream_output=stream_output)


def deployment_of(configuration: ProcessJobConfiguration) -> DeploymentResponse | None:
    """The deployment that a configuration was resolved for."""
    found = configuration._related_objects.get("deployment")
    return found if isinstance(found, DeploymentResponse) else None


_closing: set[asyncio.Task[None]] = set()


def _close_when_done(begun: "asyncio.Task[Attempt]") -> None:
    if begun.cancelled() or begun.exception() is not None:
        return
    closing = asyncio.create_task(begun.result().close())
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
