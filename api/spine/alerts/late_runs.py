"""Alerts for late runs: runs that were due a while ago and that no worker has started."""

from collections.abc import Callable, Sequence
from datetime import timedelta

from sqlalchemy import select

from spine.alerts.outbox import AlertEvent, raise_alert
from spine.database import SessionFactory, reading
from spine.errors import SpineError
from spine.oddities import ODDITIES
from spine.prefect.client import Deployment, FlowRun, Prefect
from spine.prefect.filters import RunFilter
from spine.run_history.outcomes import CURSOR
from spine.tables.alerts import Alert
from spine.tables.base import utc_now
from spine.tables.run_history import FollowerCursor
from spine.workflows.labels import SILENCING_TAG, domain_of, severity_of

LONGEST_TIME_BETWEEN_POLLS = timedelta(seconds=15)


class LateRuns:
    """A chore of the follower: raise one alert for each run that is late by more than `late`."""

    def __init__(self, late: timedelta, wake: Callable[[], None]) -> None:
        self._late = late
        self._wake = wake
        self._next_poll = utc_now()

    async def run(self, prefect: Prefect, sessions: SessionFactory) -> None:
        """Look for late runs, if the time for the next poll has come."""
        now = utc_now()
        if now < self._next_poll:
            return
        self._next_poll = now + min(LONGEST_TIME_BETWEEN_POLLS, self._late / 2)
        late = await self._unreported(prefect, sessions)
        deployments = await prefect.deployments_by_id(list({run.deployment_id for run in late if run.deployment_id}))
        names = await prefect.flow_names({run.flow_id for run in late})
        for run in late:
            deployment = deployments.get(run.deployment_id) if run.deployment_id else None
            name = names.get(run.flow_id)
            if deployment is not None and name is not None and SILENCING_TAG not in deployment.tags:
                await self._raise(sessions, run, _alert(run, name, deployment, prefect.ui_url))

    async def _raise(self, sessions: SessionFactory, run: FlowRun, event: AlertEvent) -> None:
        try:
            await raise_alert(sessions, event)
        except SpineError:
            raise
        except Exception as error:
            # The alerts of the other runs do not depend on this one.
            ODDITIES.found("late run", run.id, f"its alert cannot be stored ({type(error).__name__})")
        self._wake()

    async def _unreported(self, prefect: Prefect, sessions: SessionFactory) -> Sequence[FlowRun]:
        """The late runs without an alert. Runs that were due before Spine was first started do not count."""
        async with reading(sessions) as session:
            of_runs = FollowerCursor.name == CURSOR
            since = await session.scalar(select(FollowerCursor.alerts_since).where(of_runs))
        waiting = RunFilter(runs={"state": {"type": {"any_": ["SCHEDULED"]}}, "deployment_id": {"is_null_": False}})
        until = utc_now() - self._late
        if since is None or since > until:
            return []
        found = await prefect.all_runs(waiting.between("expected_start_time", since=since, until=until))
        # A run that began earlier is waiting for a retry, and is not late.
        late = {_cause(run): run for run in found if run.run_count == 0}
        async with reading(sessions) as session:
            reported = set(await session.scalars(select(Alert.cause).where(Alert.cause.in_(list(late)))))
        return [run for cause, run in late.items() if cause not in reported]


def _cause(run: FlowRun) -> str:
    return f"run-late:{run.id}"


def _alert(run: FlowRun, workflow: str, deployment: Deployment, ui_url: str | None) -> AlertEvent:
    due = run.expected_start_time
    link = f"{ui_url}/runs/flow-run/{run.id}" if ui_url else None
    lines = [f"Run {run.name} of {deployment.name} was due at {due:%Y-%m-%d %H:%M:%S} UTC and has not started."]
    lines.append(f"It is waiting for a worker of the pool {deployment.work_pool_name}.")
    return AlertEvent(
        severity=severity_of(deployment.tags),
        title=f"{workflow} is late",
        message="\n".join([*lines, *([link] if link else [])]),
        source=workflow,
        cause=_cause(run),
        domain=domain_of(deployment.tags) or domain_of(run.tags),
        details={"run_name": run.name, "deployment": deployment.name, "prefect_url": link},
        run_id=str(run.id),
        dedup_key=f"run-late:{deployment.id}",
        deployment_id=deployment.id,
        failed_at=due,
    )
