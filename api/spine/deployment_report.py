"""The results of deploying a project's `prefect.yaml`: written by `spine up`, read by `/health/ready`."""

from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError


class DeploymentReport(BaseModel):
    """How many deployments were made, and why each of the others failed, by name."""

    deployed: int
    failed: dict[str, str] = {}
    at: datetime = Field(default_factory=lambda: datetime.now(UTC))

    def without(self, deployed_since: set[str]) -> "DeploymentReport":
        """The report after these have been deployed in another way."""
        left = {name: reason for name, reason in self.failed.items() if name not in deployed_since}
        return self.model_copy(update={"deployed": self.deployed + len(self.failed) - len(left), "failed": left})

    def summary(self) -> str:
        """How many were made, and the names of those that failed, without the reasons, which may contain secrets."""
        made = f"{self.deployed} of {self.deployed + len(self.failed)} deployments of prefect.yaml were made"
        return f"{made}; failed: {', '.join(self.failed)}" if self.failed else made


def report_path(home: Path) -> Path:
    """The file that has the report of a home."""
    return home / "deployments.json"


def read_report(home: Path) -> DeploymentReport | None:
    """The report of the last `spine up` in this home; None where it deployed nothing."""
    try:
        return DeploymentReport.model_validate_json(report_path(home).read_bytes())
    except (OSError, ValidationError):
        return None
