"""Starts a run by forking it, in the form in which Prefect's executor starts processes."""

import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
from prefect.client.schemas.objects import FlowRun, State
from prefect.runner._process_manager import ProcessHandle, create_isolated_termination_scope
from prefect.runner._workspace_hook_runner import HookType, WorkspaceHookRunner
from prefect.runner._workspace_runtime import PreparedWorkspaceManifest, write_private_model
from prefect.runner._workspace_supervisor import _hook_command
from prefect.utilities.processutils import get_sys_executable

from spine_worker.eligibility import Workspace
from spine_worker.execution import SharedContext
from spine_worker.fork_servers import FlowHandle
from spine_worker.forked import NotBegun, ReadyRun
from spine_worker.reschedule import finish_uncancelled, stop_and_reschedule


class _DeclaredHooks(WorkspaceHookRunner):
    """Runs hooks only of the kinds that a flow may have. Prefect starts an interpreter to find that there are none."""

    def __init__(self, kinds: frozenset[str], manifest_path: Path, *, stream_output: bool) -> None:
        super().__init__(manifest_path=manifest_path, stream_output=stream_output)
        self._kinds = kinds

    async def _run(self, hook_type: HookType, flow_run: FlowRun, state: State) -> None:
        if hook_type in self._kinds:
            await super()._run(hook_type, flow_run, state)


class ForkStarter:
    """Starts a run that was forked in advance. `hooks` are the kinds of hooks that its flow may have."""

    def __init__(
        self,
        ready: ReadyRun,
        run: FlowRun,
        workspace: Workspace,
        context: SharedContext,
        hooks: frozenset[str],
        *,
        stream_output: bool,
    ) -> None:
        self._ready = ready
        self.has_started = False
        # Why the run has not begun, although it was started.
        self.failure: NotBegun | None = None
        self._context = context
        self._workspace = workspace
        self._folder = tempfile.TemporaryDirectory(prefix="spine-run-")
        self._manifest = Path(self._folder.name) / "workspace.json"
        # Called when the run starts.
        self.on_start: Callable[[], None] = lambda: None
        self.hooks = _DeclaredHooks(hooks, self._manifest, stream_output=stream_output)
        self._write_manifest(run)
        # Of the process Prefect reads only `pid` and `returncode`.
        scope = create_isolated_termination_scope(ready.process.pid)
        self._handle = ProcessHandle(ready.process, termination_scope=scope)  # type: ignore[arg-type]

    async def start(
        self, flow_run: FlowRun, task_status: anyio.abc.TaskStatus[ProcessHandle] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Start the run and wait until it has ended. Raises `NotBegun`."""
        process = self._ready.process
        try:
            self.on_start()
            await self._ready.begin()
            self.has_started = True
            self._context.begun.add(flow_run.id)
            task_status.started(self._handle)
            await process.wait()
        except NotBegun as failure:
            self.failure = failure
            raise
        except BaseException:
            # The worker is being stopped.
            await finish_uncancelled(stop_and_reschedule(self._context, flow_run, process, self._handle))
            raise

    def close(self) -> None:
        """End the process if the run was not started, and delete the manifest: no hook is run any more."""
        self._ready.abandon()
        self._folder.cleanup()

    def _write_manifest(self, flow_run: FlowRun) -> None:
        prepared = self._workspace.prepared
        manifest = PreparedWorkspaceManifest(
            working_directory=prepared.working_directory,
            project_root=prepared.project_root,
            runtime_entrypoint=prepared.runtime_entrypoint,
            hook_command=_hook_command([get_sys_executable(), "-m", "prefect.engine"]),
            environment={**self._workspace.environment, "PREFECT__FLOW_RUN_ID": str(flow_run.id)},
        )
        write_private_model(self._manifest, manifest)


async def fork_run(
    server: FlowHandle,
    workspace: Workspace,
    run: FlowRun,
    context: SharedContext,
    known: dict[str, Any],
    *,
    stream_output: bool,
) -> ForkStarter:
    """Fork a run, which prepares itself and waits for `start`. Raises `ServerGone`."""
    environment = {**workspace.environment, "PREFECT__FLOW_RUN_ID": str(run.id)}
    # Without a channel Prefect cancels a run by the signal alone.
    with suppress(RuntimeError):
        port, token = context.control_channel.register(run.id)
        environment |= {"PREFECT__CONTROL_PORT": str(port), "PREFECT__CONTROL_TOKEN": token}
    try:
        ready = await server.fork(environment, known, stream_output=stream_output)
    except BaseException:
        context.control_channel.unregister(run.id)
        raise
    try:
        return ForkStarter(ready, run, workspace, context, server.hooks, stream_output=stream_output)
    except BaseException:
        ready.abandon()
        context.control_channel.unregister(run.id)
        raise
