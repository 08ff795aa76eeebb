"""The private names of Prefect that the worker uses, and whether this version of Prefect has them.

A new release of Prefect may change any of them. The worker then starts runs as Prefect's own process worker does: it
must never fail a run because Prefect has moved.
"""

import importlib
import importlib.util
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

from prefect.workers.process import ProcessJobConfiguration, ProcessWorker

# The parameters of functions and methods, and the fields of models.
PRIVATE_NAMES = {
    # forking: importing a flow, and the patches of what runs can share
    "prefect.flow_engine:_load_flow_from_runtime_entrypoint": "entrypoint",
    "prefect.flow_engine:load_flow": "flow_run",
    "prefect.flow_engine:Task": "",
    "prefect.flow_engine:FlowRunEngine.create_flow_run": "self client",
    "prefect.flow_engine:AsyncFlowRunEngine.create_flow_run": "self client",
    "prefect._internal.engine:dynamic_key_for_task_run": "context task stable",
    "prefect.flow_engine:observe_flow_run_suspension": "flow_run_id suspension_request polling_interval",
    "prefect._flow_run_suspension:mark_flow_run_suspension_requested": "flow_run_id state",
    "prefect._flow_run_suspension:FlowRunSuspensionRequest.mark_requested": "self state",
    "prefect._internal.observers:FlowRunSuspendingObserver": "on_suspended polling_interval event_filter on_failure",
    "prefect._internal.observers:FlowRunSuspendingObserver.watch_flow_run_id": "self flow_run_id",
    "prefect.states:format_exception": "exc tb",
    "prefect._internal.states:format_exception": "exc tb",
    "prefect.logging.handlers:APILogHandler.format": "self record",
    # forking: what the worker knows of a run
    "prefect.flow_engine:load_flow_run": "flow_run_id",
    "prefect.results:_read_server_default_result_storage_block_id": "",
    "prefect.results:_aread_server_default_result_storage_block_id": "",
    "prefect.events.related:RESOURCE_CACHE": "",
    "prefect.client.orchestration:SyncPrefectClient.update_flow_run": "self flow_run_id infrastructure_pid",
    "prefect.client.orchestration:PrefectClient.update_flow_run": "self flow_run_id infrastructure_pid",
    "prefect.client.orchestration:SyncPrefectClient.read_flow_run": "self flow_run_id",
    "prefect.client.orchestration:PrefectClient.read_flow_run": "self flow_run_id",
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
    "prefect.runner._flow_run_executor:FlowRunExecutorContext._handle_cancellation_observer_failure": (
        "self flow_run_ids"
    ),
    "prefect.runner._flow_run_executor:FlowRunExecutor.submit": "self task_status",
    "prefect.runner._flow_run_executor:FlowRunExecutionResult": "handle status_code",
    "prefect.runner._hook_runner:FlowRunHookRunner.run_cancellation_hooks": "self flow_run state",
    "prefect.runner._hook_runner:FlowRunHookRunner.run_crashed_hooks": "self flow_run state",
    "prefect.runner._cancellation_manager:CancellationManager.cancel_by_id": "self flow_run_id",
    "prefect.runner._state_proposer:StateProposer": "client",
    "prefect.runner._state_proposer:StateProposer.propose_cancelled": "self flow_run state_updates",
    "prefect.runner._state_proposer:StateProposer.propose_crashed": "self flow_run message",
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
    "prefect.workers.base:BaseWorker._propose_submitting_state": "self flow_run",
    "prefect.workers.base:BaseWorker._submit_run": "self flow_run",
    "prefect.workers.base:BaseWorker._submit_run_and_capture_errors": "self flow_run task_status",
    "prefect.workers.base:BaseWorker._emit_flow_run_submitted_event": "self configuration",
    "prefect.workers.base:BaseWorker._give_worker_labels_to_flow_run": "self flow_run_id",
    "prefect.workers.base:BaseWorker._record_work_pool_snapshot": "self work_pool",
}
# Prefect calls these, which the worker overrides, so they may not have further parameters.
_OVERRIDDEN = "prefect.workers.base:BaseWorker."
# What objects have: how to make one, and its attributes.
_ATTRIBUTES: dict[str, tuple[Callable[[], Any], tuple[str, ...]]] = {
    "prefect.workers.base:BaseWorker": (
        lambda: ProcessWorker(work_pool_name="any"),
        (
            *("_submitting_flow_run_ids", "_has_successfully_synced", "_runs_task_group"),
            *("_work_pool", "_work_pool_name", "_limiter", "_logger"),
        ),
    ),
    "prefect.workers.process:ProcessJobConfiguration": (
        ProcessJobConfiguration,
        ("_command_configured", "_related_objects"),
    ),
}
# Every attribute in this list, in the form in which it is reported.
PRIVATE_ATTRIBUTES = tuple(f"{owner}.{name}" for owner, (_, names) in _ATTRIBUTES.items() for name in names)
# Prefect's engine waits for the start of a run where it calls this; otherwise a run would begin too early.
_ENGINE = "prefect.engine"
ENGINE_CALL = "prefect.engine:load_flow(flow_run)"


def missing_names() -> list[str]:
    """The names that this Prefect lacks, or has in a form that the worker cannot use."""
    missing = [name for name in PRIVATE_NAMES if not _is_usable(name)]
    return [*missing, *_missing_attributes(), *([] if calls_load_flow(_source_of_engine()) else [ENGINE_CALL])]


def _missing_attributes() -> Iterator[str]:
    for owner, (make, names) in _ATTRIBUTES.items():
        try:
            made = make()
        except Exception as error:
            yield f"{owner} ({type(error).__name__})"
            continue
        yield from (f"{owner}.{name}" for name in names if not hasattr(made, name))


def _source_of_engine() -> str:
    spec = importlib.util.find_spec(_ENGINE)
    return (spec.loader.get_source(_ENGINE) if spec and spec.loader else None) or ""  # type: ignore[attr-defined]


def calls_load_flow(source: str) -> bool:
    """Whether the program of Prefect's engine takes `load_flow` from `prefect.flow_engine`, and calls it."""
    program = source.partition('if __name__ == "__main__":')[2]
    taken = re.search(r"from prefect\.flow_engine import \([^)]*\bload_flow,", program)
    return taken is not None and "load_flow(flow_run)" in program


def _is_usable(name: str) -> bool:
    """Whether the name has all the parameters or fields that are needed, and requires no others."""
    module, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
        if not PRIVATE_NAMES[name]:
            return True
        has = inspect.signature(found).parameters
    except (ImportError, AttributeError, TypeError, ValueError):
        return False
    needed = PRIVATE_NAMES[name].split()
    if name.startswith(_OVERRIDDEN):
        return list(has) == needed
    others = [one for one in has.values() if one.name not in needed]
    return set(needed) <= set(has) and not [
        one for one in others if one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
    ]
