"""Which runs can be forked: those whose code is in a directory of this machine and that need nothing else."""

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
    """The directory and the code of a run, and the environment that Prefect gives its process."""

    prepared: PreparedWorkspace
    environment: dict[str, str]
    code: Code


def workspace_of(configuration: ProcessJobConfiguration, deployment: DeploymentResponse | None) -> Workspace:
    """The workspace that Prefect's own process worker would prepare. Raises `CannotFork` if that takes more work."""
    if sys.platform != "linux":
        raise CannotFork("processes are forked on Linux only")
    if configuration._command_configured:
        raise CannotFork("it has a command of its own")
    if deployment is None or deployment.entrypoint is None:
        raise CannotFork("it has no deployment with an entrypoint")
    root = configuration.working_dir.resolve() if configuration.working_dir else None
    directory = _directory(deployment, root)
    prepared = PreparedWorkspace(
        workspace_root=directory,
        working_directory=directory,
        project_root=_find_project_root(directory, root or Path(directory.anchor)),
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


def _directory(deployment: DeploymentResponse, root: Path | None) -> Path:
    """The directory that a run works in; `root` is the job variable `working_dir`.

    Prefect resolves a relative directory against `root`, or else against an empty temporary folder. Here the directory
    that the worker was started in takes the place of that folder, because a warm interpreter needs one that stays.
    """
    if deployment.storage_document_id is not None:
        raise CannotFork("its code is copied for each run")
    if not deployment.pull_steps:
        return _directory_without_steps(deployment, root)
    chosen = root or Path.cwd()
    for step in deployment.pull_steps:
        if list(step) != [_SET_DIRECTORY] or list(step[_SET_DIRECTORY]) != ["directory"]:
            raise CannotFork("its pull steps do more than set the working directory")
        directory = step[_SET_DIRECTORY]["directory"]
        if not isinstance(directory, str) or "{{" in directory:
            raise CannotFork("its pull steps do not name a fixed directory")
        chosen = (chosen / directory).resolve()
        if not chosen.is_dir():
            raise CannotFork("the directory of its code does not exist")
    return chosen


def _directory_without_steps(deployment: DeploymentResponse, root: Path | None) -> Path:
    """`root`, if Prefect would not copy anything into it."""
    if root is None:
        raise CannotFork("it has neither pull steps nor a working_dir, so each run works in a temporary folder")
    if deployment.path is not None and (root / deployment.path).resolve() != root:
        raise CannotFork("its code is copied for each run")
    if not root.is_dir():
        raise CannotFork("the directory of its code does not exist")
    return root
