"""What became of the deployments of a project's `prefect.yaml`: written by `spine up`, read by `/health/ready`."""

from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

_FILE = "deployments.json"


class DeploymentReport(BaseModel):
    """How many deployments were made, and why each of the others failed, by name."""

    deployed: int
    failed: dict[str, str] = {}
    at: datetime = Field(default_factory=lambda: datetime.now(UTC))

    def write(self, home: Path) -> None:
        """Replace the report in the home."""
        temporary = home / f"{_FILE}.new"
        temporary.write_text(self.model_dump_json(indent=2), encoding="utf-8")
        temporary.replace(home / _FILE)

    def without(self, mended: set[str]) -> "DeploymentReport":
        """The report after these have been deployed."""
        left = {name: reason for name, reason in self.failed.items() if name not in mended}
        return self.model_copy(update={"deployed": self.deployed + len(self.failed) - len(left), "failed": left})

    def summary(self) -> str:
        """How many were made, and the names of those that failed; reasons can hold what not everybody may read."""
        made = f"{self.deployed} of {self.deployed + len(self.failed)} deployments of prefect.yaml were made"
        return f"{made}; failed: {', '.join(self.failed)}" if self.failed else made


def read_report(home: Path) -> DeploymentReport | None:
    """The report of the last `spine up` in this home; None where it deployed nothing."""
    try:
        return DeploymentReport.model_validate_json((home / _FILE).read_bytes())
    except (OSError, ValidationError):
        return None


def remove_report(home: Path) -> None:
    """Forget what an earlier start deployed."""
    (home / _FILE).unlink(missing_ok=True)
