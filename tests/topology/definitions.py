"""What `deployments/compose.yaml` says of each process: its command, its settings, and what has to be there before."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.support.processes import PROJECT

DEPLOYMENTS = PROJECT / "deployments"
COMPLETED = "service_completed_successfully"
# They are programs of others; everything else is the image of this project.
FOREIGN = {"postgres", "redis", "proxy"}


@dataclass(frozen=True)
class Service:
    """One service of Compose."""

    name: str
    command: tuple[str, ...]
    # The files with its settings, by their paths below `deployments`.
    files: tuple[str, ...]
    # What it waits for, and until when.
    after: dict[str, str]
    replicas: int
    # Where it answers, as its health check has it.
    health: str | None

    def settings(self, secrets: dict[str, dict[str, str]]) -> dict[str, str]:
        """Its environment, with `secrets` by the name of the file that has them."""
        found: dict[str, str] = {}
        for file in self.files:
            path = Path(file)
            found |= secrets[path.stem] if path.parent.name == "secrets" else variables_in(DEPLOYMENTS / path)
        return found


def variables_in(file: Path) -> dict[str, str]:
    """The variables that an environment file sets."""
    lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def compose() -> dict[str, Any]:
    """The whole file."""
    found: dict[str, Any] = yaml.safe_load((DEPLOYMENTS / "compose.yaml").read_text())
    return found


def services() -> dict[str, Service]:
    """Each service by its name."""
    return {name: _service(name, given) for name, given in compose()["services"].items()}


def _service(name: str, given: dict[str, Any]) -> Service:
    command = given.get("command", [])
    test = given.get("healthcheck", {}).get("test", [""])
    return Service(
        name=name,
        command=tuple(shlex.split(command) if isinstance(command, str) else command),
        files=tuple(given.get("env_file", [])),
        after={one: how["condition"] for one, how in given.get("depends_on", {}).items()},
        replicas=given.get("deploy", {}).get("replicas", 1),
        health=test[-1] if test[-1].startswith("http") else None,
    )
