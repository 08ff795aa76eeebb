"""The private names of Prefect that the worker uses: each must exist in the form that the worker expects.

A new version of Prefect may rename any of them. This test says which ones; the other tests say what no longer works.
"""

import ast
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import anyio.abc
import prefect.client.orchestration
import prefect.engine
import prefect.flow_engine
import prefect.workers.base
import spine_worker
from prefect.runner._cancellation_manager import CancellationManager
from prefect.runner._state_proposer import StateProposer
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker
from spine_worker.execution import SharedContext
from spine_worker.worker import SpineJobConfiguration, SpineWorker

from tests.support.stack import PrefectStack

# The parameters of functions and methods, and the fields of models.
EXPECTED = {
    # forking: importing a flow, and the patches of what runs can share
    "prefect.flow_engine:_load_flow_from_runtime_entrypoint": "entrypoint",
    "prefect.flow_engine:load_flow": "flow_run",
    "prefect.flow_engine:observe_flow_run_suspension": "flow_run_id suspension_request polling_interval",
    "prefect._flow_run_suspension:mark_flow_run_suspension_requested": "flow_run_id state",
    "prefect._flow_run_suspension:FlowRunSuspensionRequest.mark_requested": "self state",
    "prefect._internal.observers:FlowRunSuspendingObserver": "on_suspended polling_interval event_filter on_failure",
    "prefect._internal.observers:FlowRunSuspendingObserver.watch_flow_run_id": "self flow_run_id",
    # eligibility: the workspace of a run
    "prefect.runner._workspace_resolver:PreparedWorkspace": (
        "workspace_root working_directory project_root runtime_entrypoint environment sys_path"
    ),
    "prefect.runner._workspace_resolver:_find_project_root": "working_directory workspace_root",
    "prefect.runner._workspace_resolver:_resolve_runtime_entrypoint": "entrypoint",
    "prefect.runner._workspace_starter:_workspace_command": "workspace explicit_command environment",
    "prefect.runner._workspace_starter:workspace_environment": "workspace",
    # execution and launches: executing a run
    "prefect.runner._flow_run_executor:FlowRunExecutorContext.create_executor": (
        "self flow_run starter resolve_flow propose_submitting hook_runner"
    ),
    "prefect.runner._flow_run_executor:FlowRunExecutor.submit": "self task_status",
    "prefect.runner._flow_run_executor:FlowRunExecutionResult": "handle status_code",
    "prefect.runner._hook_runner:FlowRunHookRunner.run_cancellation_hooks": "self flow_run state",
    "prefect.runner._hook_runner:FlowRunHookRunner.run_crashed_hooks": "self flow_run state",
    "prefect.runner._cancellation_manager:CancellationManager.cancel_by_id": "self flow_run_id",
    "prefect.runner._state_proposer:StateProposer.propose_cancelled": "self flow_run state_updates",
    "prefect.runner._control_channel:ControlChannel.register": "self flow_run_id",
    "prefect.runner._control_channel:ControlChannel.unregister": "self flow_run_id",
    "prefect.runner._control_channel:ControlChannel.get_conclusion": "self flow_run_id",
    "prefect.runner._control_channel:ControlChannel.signal": "self flow_run_id intent",
    "prefect.runner._control_channel:ControlSignalStatus": "",
    "prefect._internal.attempt_control:AttemptConclusion": "",
    "prefect._internal.attempt_control:EngineOutcomeReceipt": "disposition state_id state_type state_name",
    "prefect._internal.observers:FlowRunCancellingObserver.add_in_flight_flow_run_id": "self flow_run_id",
    "prefect._internal.observers:FlowRunCancellingObserver.remove_in_flight_flow_run_id": "self flow_run_id",
    # starter and reschedule: the process of a run, and its hooks
    "prefect.runner._process_manager:ProcessHandle": "_process termination_scope",
    "prefect.runner._process_manager:ProcessHandle.graceful_kill": "self",
    "prefect.runner._process_manager:ProcessHandle.hard_kill": "self",
    "prefect.runner._process_manager:ProcessManager.get": "self flow_run_id",
    "prefect.runner._process_manager:ProcessManager.kill": "self flow_run_id grace_seconds force",
    "prefect.runner._process_manager:create_isolated_termination_scope": "pid",
    "prefect.runner._workspace_hook_runner:HookType": "",
    "prefect.runner._workspace_hook_runner:WorkspaceHookRunner": "manifest_path stream_output",
    "prefect.runner._workspace_hook_runner:WorkspaceHookRunner._run": "self hook_type flow_run state",
    "prefect.runner._workspace_runtime:PreparedWorkspaceManifest": (
        "working_directory project_root runtime_entrypoint hook_command environment"
    ),
    "prefect.runner._workspace_runtime:write_private_model": "path model",
    "prefect.runner._workspace_supervisor:_hook_command": "command",
    "prefect.types._datetime:now": "tz",
    # worker: the methods that it overrides
    "prefect.workers.base:BaseJobConfiguration._base_environment": "",
    "prefect.workers.base:BaseWorker._get_scheduled_flow_runs": "self",
    "prefect.workers.base:BaseWorker._propose_pending_state": "self flow_run",
    "prefect.workers.base:BaseWorker._submit_run": "self flow_run",
    "prefect.workers.base:BaseWorker._submit_run_and_capture_errors": "self flow_run task_status",
    "prefect.workers.base:BaseWorker._emit_flow_run_submitted_event": "self configuration",
    "prefect.workers.base:BaseWorker._give_worker_labels_to_flow_run": "self flow_run_id",
    "prefect.workers.base:BaseWorker._record_work_pool_snapshot": "self work_pool",
}
SOURCES = sorted(Path(spine_worker.__file__).parent.rglob("*.py"))


def parameters(name: str) -> str | None:
    """The parameters or fields of a name; None if it does not exist."""
    module, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        return None
    return " ".join(inspect.signature(found).parameters) if EXPECTED[name] else ""


def test_prefect_has_the_private_functions_that_the_worker_calls_and_overrides() -> None:
    assert {name: parameters(name) for name in EXPECTED} == EXPECTED


def test_every_private_name_that_the_worker_imports_is_in_the_list() -> None:
    imported = {
        f"{node.module}:{alias.name}"
        for source in SOURCES
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("prefect.")
        for alias in node.names
        if "._" in f"{node.module}.{alias.name}"
    }
    listed = {re.sub(r":(\w+).*", r":\1", name) for name in EXPECTED}
    assert imported - listed == set()


def test_prefect_calls_every_private_method_that_the_worker_overrides() -> None:
    overridden = {name for name in vars(SpineWorker) if name.startswith("_") and not name.startswith("__")}
    overridden = {name for name in overridden if callable(getattr(ProcessWorker, name, None))}
    assert {f"prefect.workers.base:BaseWorker.{name}" for name in overridden} <= set(EXPECTED)
    source = inspect.getsource(prefect.workers.base)
    assert {name for name in overridden if f"self.{name}" not in source} == set()
    assert "._base_environment()" in source


def test_a_worker_and_its_configuration_have_the_private_attributes_of_prefect() -> None:
    worker = SpineWorker(work_pool_name="pool")
    assert worker._submitting_flow_run_ids == set()
    assert worker._has_successfully_synced is False
    assert (worker._runs_task_group, worker._work_pool) == (None, None)
    assert worker._work_pool_name == "pool"
    assert worker._logger.name
    assert SpineJobConfiguration()._command_configured is False
    assert ProcessJobConfiguration()._related_objects == {}


async def test_an_execution_context_has_the_private_attributes_of_prefect(stack: PrefectStack) -> None:
    with temporary_settings({PREFECT_API_URL: stack.url}):
        async with SharedContext() as context:
            assert context._observer._consumer_task is not None
            assert context._observer._events_subscriber is not None
            assert context._observer._events_subscriber._reconnect_on_clean_close is True
            assert context._observer.on_cancelling == context._begin_to_cancel
            assert isinstance(context._cancellation_manager, CancellationManager)
            assert isinstance(context._cancellation_task_group, anyio.abc.TaskGroup)
            assert isinstance(context._state_proposer, StateProposer)
            assert context._logger.name


def test_prefects_clients_use_only_the_functions_of_ssl_that_the_fork_servers_replace() -> None:
    used = set(re.findall(r"\bssl\.(\w+)", inspect.getsource(prefect.client.orchestration)))
    assert used == {"SSLContext", "CERT_NONE", "create_default_context"}


def test_prefects_engine_observes_suspensions_under_the_name_that_the_fork_servers_replace() -> None:
    assert "observe_flow_run_suspension(" in inspect.getsource(prefect.flow_engine)


def test_prefects_engine_loads_the_flow_under_the_name_that_a_forked_run_replaces() -> None:
    main = inspect.getsource(prefect.engine).partition('if __name__ == "__main__":')[2]
    assert re.search(r"from prefect\.flow_engine import \([^)]*\bload_flow,", main)
    assert "load_flow(flow_run)" in main
