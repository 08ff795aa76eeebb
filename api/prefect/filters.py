"""What Prefect's list routes take, for flow runs."""

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class RunFilter:
    """A filter of flow runs: `runs` by their own fields, `flows` by their flow. All conditions must hold."""

    runs: Json = field(default_factory=dict)
    flows: Json = field(default_factory=dict)

    def to_json(self) -> Json:
        """The body for Prefect's `/flow_runs/filter` and `/flow_runs/count`."""
        body: Json = {}
        if self.runs:
            body["flow_runs"] = self.runs
        if self.flows:
            body["flows"] = self.flows
        return body

    def where(self, **conditions: Json) -> "RunFilter":
        """This filter with further conditions on fields of the run.

        A condition on a field that already has one joins it, so that `start_time` can be bounded from two sides.
        """
        runs = dict(self.runs)
        for name, condition in conditions.items():
            runs[name] = {**runs.get(name, {}), **condition}
        return replace(self, runs=runs)

    def started(self, *, since: datetime | None = None, until: datetime | None = None) -> "RunFilter":
        """This filter with the start time bounded, both ends inclusive; the tighter bound wins.

        Prefect means the expected start time where a run has not started.
        """
        bounds: Json = dict(self.runs.get("start_time", {}))
        if since is not None:
            bounds["after_"] = max(filter(None, [bounds.get("after_"), since.isoformat()]), key=datetime.fromisoformat)
        if until is not None:
            bounds["before_"] = min(
                filter(None, [bounds.get("before_"), until.isoformat()]), key=datetime.fromisoformat
            )
        return self.where(start_time=bounds) if bounds else self
