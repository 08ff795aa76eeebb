"""Which runs can be forked: those whose code lies in a folder of this machine and that ask for nothing else."""

import sys
from dataclasses import dataclass
from pathlib import Path

from prefect.client.schemas.responses import DeploymentResponse
from prefect.runner._workspace_resolver import PreparedWorkspace, _find_project_root, _resolve_runtime_entrypoint
from prefect.runner._workspace_starter import _workspace_command, workspace_environment
from prefect.workers.process import ProcessJobConfiguration

from spine_worker.warm import CannotFork, Code

_SET_DIRECTORY = "prefect.deployments.steps.set_working_directory"


@dataclass(frozen=True)
class Workspace:
    """Where the code of a run is, and the environment that Prefect gives its process."""

    prepared: PreparedWorkspace
    environment: dict[str, str]
    code: Code


def workspace_of(configuration: ProcessJobConfiguration, deployment: DeploymentResponse | None) -> Workspace:
    """The workspace that Prefect's own process worker would prepare. Raises `CannotFork` where that takes more."""
    if sys.platform != "linux":
        raise CannotFork("processes are forked on Linux only")
    if configuration._command_configured:
        raise CannotFork("it has a command of its own")
    if deployment is None or deployment.entrypoint is None:
        raise CannotFork("it has no deployment with an entrypoint")
    directory = _directory(deployment)
    prepared = PreparedWorkspace(
        workspace_root=directory,
        working_directory=directory,
        project_root=_find_project_root(directory, Path(directory.anchor)),
        runtime_entrypoint=_resolve_runtime_entrypoint(deployment.entrypoint),
        environment={name: value for name, value in configuration.env.items() if value is not None},
        sys_path=[],
    )
    environment = workspace_environment(prepared)
    if _workspace_command(prepared, None, environment=environment) is not None:
        raise CannotFork("its project has an environment of its own")
    environment["PREFECT__FLOW_ENTRYPOINT"] = prepared.runtime_entrypoint
    environment["PREFECT__ENABLE_CANCELLATION_AND_CRASHED_HOOKS"] = "false"
    code = Code.of(directory, environment, prepared.runtime_entrypoint, deployment.version)
    return Workspace(prepared, environment, code)


def _directory(deployment: DeploymentResponse) -> Path:
    """The folder that its pull steps choose, when they do nothing else."""
    steps = deployment.pull_steps or []
    if deployment.storage_document_id is not None or not steps:
        raise CannotFork("its code is copied for each run")
    chosen = None
    for step in steps:
        if list(step) != [_SET_DIRECTORY] or list(step[_SET_DIRECTORY]) != ["directory"]:
            raise CannotFork("its pull steps do more than to set the working directory")
        chosen = step[_SET_DIRECTORY]["directory"]
    if not isinstance(chosen, str) or "{{" in chosen or not Path(chosen).is_absolute():
        raise CannotFork("its pull steps name no fixed folder")
    if not Path(chosen).is_dir():
        raise CannotFork("the folder of its code is not there")
    return Path(chosen).resolve()
