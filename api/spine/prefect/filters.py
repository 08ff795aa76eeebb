"""Filters of Prefect's list routes for flow runs."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

Json = dict[str, Any]


@dataclass(frozen=True)
class RunFilter:
    """A filter of flow runs by their own fields, their flow and their deployment, combined with AND."""

    runs: Json = field(default_factory=dict)
    flows: Json = field(default_factory=dict)
    deployments: Json = field(default_factory=dict)

    def to_json(self) -> Json:
        """The body for Prefect's `/flow_runs/filter` and `/flow_runs/count`."""
        body: Json = {}
        if self.runs:
            body["flow_runs"] = self.runs
        if self.flows:
            body["flows"] = self.flows
        if self.deployments:
            body["deployments"] = self.deployments
        return body

    def of_deployments(self, deployment_ids: Sequence[UUID]) -> "RunFilter":
        """This filter, limited to runs of these deployments."""
        return replace(self, deployments={"id": {"any_": [str(one) for one in deployment_ids]}})

    def with_any_tag(self, tags: Sequence[str]) -> "RunFilter":
        """This filter, limited to runs that have one of these tags."""
        return self.where(tags={"any_": list(tags)})

    def where(self, **conditions: Json) -> "RunFilter":
        """This filter with more conditions on fields of the run.

        A field may have several conditions: `start_time`, for example, can have a lower and an upper bound.
        """
        runs = dict(self.runs)
        for name, condition in conditions.items():
            runs[name] = {**runs.get(name, {}), **condition}
        return replace(self, runs=runs)

    def started(self, *, since: datetime | None = None, until: datetime | None = None) -> "RunFilter":
        """This filter with bounds on the start time, both inclusive; the tighter bound wins.

        For a run that has not started, Prefect uses the expected start time.
        """
        return self.between("start_time", since=since, until=until)

    def between(self, field: str, *, since: datetime | None = None, until: datetime | None = None) -> "RunFilter":
        """This filter with bounds on one of the run's times, both inclusive; the tighter bound wins."""
        bounds: Json = dict(self.runs.get(field, {}))
        if since is not None:
            bounds["after_"] = max(filter(None, [bounds.get("after_"), since.isoformat()]), key=datetime.fromisoformat)
        if until is not None:
            bounds["before_"] = min(
                filter(None, [bounds.get("before_"), until.isoformat()]), key=datetime.fromisoformat
            )
        return self.where(**{field: bounds}) if bounds else self
