"""What `spine up` deploys: Spine's own flows, and the project's `prefect.yaml` where there is one.

A deployment of the project that fails keeps nothing else from starting. The failures are written to
`<home>/deployments.json`, where `/health/ready` reads them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from spine.deployment_report import DeploymentReport
from spine.up.console import last_words, lines_since
from spine.up.processes import Child
from spine.up.waiting import UpError

PREFECT_YAML = "prefect.yaml"
SECONDS_FOR_A_DEPLOY = 300.0
# With this line Prefect skips the whole file because one of its entries is invalid.
_REFUSED_FILE = "Skipping deployment configuration due to validation errors"
_DEPLOYED = "successfully created with id"

# Runs `prefect deploy` with these arguments; returns None when it did not end in time.
RunDeploy = Callable[[list[str]], Child | None]


@dataclass
class ProjectDeploy:
    """Deploys the entries of a `prefect.yaml`, around those that fail."""

    project: Path
    scratch: Path
    run: RunDeploy
    failed: dict[str, str] = field(default_factory=dict)
    deployed: int = 0

    def deploy(self) -> DeploymentReport:
        """Deploy every entry that can be deployed, in the order of the file."""
        try:
            config = self._read()
        except UpError as error:
            self.failed[PREFECT_YAML] = str(error)
        else:
            self._deploy(config, _named(config, self.failed))
        return DeploymentReport(deployed=self.deployed, failed=self.failed)

    def _read(self) -> dict[str, Any]:
        try:
            config = yaml.safe_load((self.project / PREFECT_YAML).read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise UpError(f"it cannot be read: {' '.join(str(error).split())[:300]}") from None
        if not isinstance(config, dict) or not isinstance(config.get("deployments") or [], list):
            raise UpError("it is not a mapping with a list of deployments")
        return config

    def _deploy(self, config: dict[str, Any], entries: list[dict[str, Any]]) -> None:
        while entries:
            child = self.run(["--all", "--prefect-file", str(self._file_with(config, entries))])
            lines = lines_since(child.log, child.log_offset, whole=True) if child else []
            done = sum(_DEPLOYED in line for line in lines)
            if child is not None and child.process.returncode == 0:
                self.deployed += len(entries)
                return
            if any(_REFUSED_FILE in line for line in lines) and len(entries) > 1:
                half = len(entries) // 2
                self._deploy(config, entries[:half])
                entries = entries[half:]
                continue
            # Prefect deploys the entries in the order of the file and stops at the first one that fails.
            self.deployed += done
            if done < len(entries):
                self.failed[str(entries[done]["name"])] = _reason(child)
            entries = entries[done + 1 :]

    def _file_with(self, config: dict[str, Any], entries: list[dict[str, Any]]) -> Path:
        """The project's own file where it names these entries, otherwise a copy that names only them."""
        if entries == config["deployments"]:
            return self.project / PREFECT_YAML
        path = self.scratch / PREFECT_YAML
        path.write_text(yaml.safe_dump({**config, "deployments": entries}), encoding="utf-8")
        return path


def _named(config: dict[str, Any], failed: dict[str, str]) -> list[dict[str, Any]]:
    """The entries that Prefect can deploy; each of the others is noted in `failed`."""
    entries = []
    for number, entry in enumerate(config.get("deployments") or [], start=1):
        if isinstance(entry, dict) and entry.get("name") is not None:
            entries.append(entry)
        else:
            failed[f"entry {number} of {PREFECT_YAML}"] = "it has no name"
    return entries


def _reason(child: Child | None) -> str:
    if child is None:
        return f"prefect deploy did not end within {SECONDS_FOR_A_DEPLOY:.0f} s"
    lines = lines_since(child.log, child.log_offset)
    begins = [number for number, line in enumerate(lines) if line.strip().startswith("Deploying ")]
    return last_words(lines[begins[-1] + 1 if begins else 0 :], at_most=4).rstrip(".")
