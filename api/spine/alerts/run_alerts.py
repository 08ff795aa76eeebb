"""Alerts that nobody has to send: runs that fail, schedules that fail again and again, and the news that all is well.

The follower of finished runs writes a claim with each failure that it records. Here each claim becomes an alert, in the
transaction that takes the claim away: one alert for each failure, whoever was down in between.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

import structlog
from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from spine.alerts.outbox import NewAlert, put_alert
from spine.alerts.recovery import tell_resolved
from spine.database import SessionFactory, database_errors, reading, transaction
from spine.errors import NotFound, SpineError
from spine.prefect.client import Deployment, FlowRun, Prefect
from spine.run_history.outcomes import COMPLETED
from spine.schedules.deployments import has_schedule
from spine.severity import Severity
from spine.tables.alerts import Alert
from spine.tables.base import utc_now
from spine.tables.run_history import DeploymentStatistics, RunAlertClaim, RunOutcome
from spine.workflows.failures import exception_of, is_exception
from spine.workflows.labels import SILENCING_TAG, domain_of, severity_of
from spine.workflows.run_detail import read_run
from spine.workflows.schemas import StepStatus, WorkflowRunDetail

log = structlog.get_logger("spine.alerts")

# What is claimed at once is read from Prefect side by side, and no more than this.
CLAIMS_AT_ONCE = 10
LONGEST_MESSAGE = 5_000
_CREDENTIALS_IN_URL = re.compile(r"(?<=://)[^\s/@]+@")


# Whether the failure of a run raises an alert of another kind.
ToldElsewhere = Callable[[AsyncSession, UUID], Awaitable[bool]]


class RunAlerts:
    """A chore of the follower: raise the alerts that were claimed, and tell when a failure is over."""

    def __init__(self, failures_in_a_row: int, wake: Callable[[], None], told_elsewhere: ToldElsewhere) -> None:
        self._failures_in_a_row = failures_in_a_row
        self._wake = wake
        self._told_elsewhere = told_elsewhere

    async def run(self, prefect: Prefect, sessions: SessionFactory) -> None:
        """Do all that is to be done now."""
        while claims := await _oldest_claims(sessions):
            found = await asyncio.gather(*(_read(prefect.for_one_request(), claim) for claim in claims))
            for claim, failure in zip(claims, found, strict=True):
                async with transaction(sessions) as session:
                    await self._settle(session, claim, failure)
            self._wake()
        if await resolve(sessions):
            self._wake()

    async def _settle(self, session: AsyncSession, claim: RunAlertClaim, failure: "Failure | NewAlert | None") -> None:
        taken = await session.execute(
            delete(RunAlertClaim).where(RunAlertClaim.state_id == claim.state_id).returning(RunAlertClaim.state_id)
        )
        if taken.first() is None or failure is None:
            return
        if isinstance(failure, NewAlert):
            await put_alert(session, failure)
            return
        if failure.is_silenced:
            return
        if not await self._told_elsewhere(session, claim.run_id):
            await put_alert(session, failure.alert(claim))
        if (in_a_row := await self._streak(session, claim, failure)) is not None:
            await put_alert(session, in_a_row)

    async def _streak(self, session: AsyncSession, claim: RunAlertClaim, failure: "Failure") -> NewAlert | None:
        """The alert that a schedule has failed so many times in a row, once for each such row."""
        statistics = await session.get(DeploymentStatistics, claim.deployment_id)
        in_a_row = statistics.consecutive_failures if statistics else 0
        if in_a_row < self._failures_in_a_row or failure.deployment is None or not has_schedule(failure.deployment):
            return None
        of_deployment = (RunOutcome.deployment_id == claim.deployment_id, RunOutcome.outcome == COMPLETED)
        last_success = await session.scalar(select(func.max(RunOutcome.scheduled_at)).where(*of_deployment))
        return failure.streak_alert(claim, in_a_row, last_success.isoformat() if last_success else "never")


class Failure:
    """A run that failed, as Prefect has it."""

    def __init__(self, run: FlowRun, detail: WorkflowRunDetail, deployment: Deployment | None) -> None:
        self.run = run
        self.detail = detail
        self.deployment = deployment
        # A tag that was set after the run was planned counts; a deployment that is gone left its tags on its runs.
        self._tags = deployment.tags if deployment else run.tags

    @property
    def is_silenced(self) -> bool:
        """Whether nobody wants to hear of this deployment."""
        return SILENCING_TAG in self._tags

    def alert(self, claim: RunAlertClaim) -> NewAlert:
        """The alert for this failure."""
        crashed = self.run.state is not None and self.run.state.is_crashed()
        return NewAlert(
            severity=severity_of(self._tags),
            title=f"{self.detail.workflow_name} {'crashed' if crashed else 'failed'}",
            message=self._message(),
            source=self.detail.workflow_name,
            cause=f"run-failed:{claim.state_id}",
            domain=self._domain,
            details=self._details,
            run_id=str(self.run.id),
            execution_id=self.detail.execution_id,
            error_category=self.detail.error_category.value if self.detail.error_category else None,
            capture_id=self.detail.capture_id,
            dedup_key=f"run-failed:{claim.deployment_id}",
            deployment_id=claim.deployment_id,
            failed_at=claim.ended_at,
        )

    def streak_alert(self, claim: RunAlertClaim, in_a_row: int, since: str) -> NewAlert:
        """The alert that the schedule fails again and again, once since its last success."""
        name = self.deployment.name if self.deployment else self.detail.workflow_name
        return NewAlert(
            severity=Severity.CRITICAL,
            title=f"The schedule {name} failed {in_a_row} times in a row",
            message=f"It has not succeeded since {since}. The last failure:\n{self._message()}"[:LONGEST_MESSAGE],
            source=self.detail.workflow_name,
            cause=f"failures-in-a-row:{claim.deployment_id}:{since}",
            domain=self._domain,
            details=self._details,
            run_id=str(self.run.id),
            dedup_key=f"failures-in-a-row:{claim.deployment_id}",
            deployment_id=claim.deployment_id,
            failed_at=claim.ended_at,
        )

    @property
    def _domain(self) -> str | None:
        return domain_of(self._tags) or self.detail.domain

    @property
    def _failed_steps(self) -> list[str]:
        return [step.step_name for step in self.detail.steps if step.status is StepStatus.FAILED]

    @property
    def _details(self) -> dict[str, object]:
        return {
            "run_name": self.run.name,
            "deployment": self.deployment.name if self.deployment else None,
            "failed_steps": self._failed_steps,
            "attempt": self.detail.attempt,
            "prefect_url": self.detail.prefect_url,
        }

    def _message(self) -> str:
        """The failed step, the exception, the attempt and a link, one to a line."""
        error = exception_of(self.run.state) if is_exception(self.run.state) else self.detail.error
        steps = self._failed_steps
        where = f"Step {', '.join(steps)} failed" if steps else "The run failed"
        told = [
            f"{where}: {_CREDENTIALS_IN_URL.sub('***@', error or 'Prefect keeps no reason')}"[:LONGEST_MESSAGE],
            f"Run {self.run.name}, attempt {self.detail.attempt}"
            + (f", started by {self.detail.triggered_by}" if self.detail.triggered_by else ""),
            self.detail.prefect_url or "",
        ]
        return "\n".join(filter(None, told))


async def _oldest_claims(sessions: SessionFactory) -> Sequence[RunAlertClaim]:
    async with reading(sessions) as session:
        wanted = select(RunAlertClaim).order_by(RunAlertClaim.ended_at, RunAlertClaim.state_id)
        return (await session.scalars(wanted.limit(CLAIMS_AT_ONCE))).all()


async def _read(prefect: Prefect, claim: RunAlertClaim) -> Failure | NewAlert | None:
    """The failure that was claimed; None when the run is gone, or has been taken up again since.

    A run that Spine fails to make sense of is told of in a few words, so that it holds up nobody else's alert.
    """
    try:
        return await _read_failure(prefect, claim)
    except SpineError:
        raise
    except Exception as error:
        log.exception("run_alert_broke", run_id=str(claim.run_id))
        return NewAlert(
            severity=Severity.ERROR,
            title="A run failed",
            message=f"Run {claim.run_id} failed, and Spine could not read more of it ({type(error).__name__}).",
            source="spine.alerts",
            cause=f"run-failed:{claim.state_id}",
            run_id=str(claim.run_id),
        )


async def _read_failure(prefect: Prefect, claim: RunAlertClaim) -> Failure | None:
    try:
        run = await prefect.read_run(claim.run_id)
        if run.state is None or run.state.id != claim.state_id:
            # Should it fail again, that is a failure of its own.
            return None
        detail = await read_run(prefect, str(run.id))
    except NotFound:
        return None
    deployments = await prefect.deployments_by_id([claim.deployment_id])
    return Failure(run, detail, deployments.get(claim.deployment_id))


async def resolve(sessions: SessionFactory) -> bool:
    """Tell those who heard of failures that a later run succeeded; whether there was any."""
    open_ = (Alert.deployment_id.is_not(None), Alert.resolved_at.is_(None))
    first = func.min(Alert.failed_at).label("failed_at")
    failing = select(Alert.deployment_id, first).where(*open_).group_by(Alert.deployment_id).subquery()
    # One look into an index for each deployment, however long its history is.
    newest_success = (
        select(RunOutcome.ended_at)
        .where(RunOutcome.deployment_id == failing.c.deployment_id, RunOutcome.outcome == COMPLETED)
        .order_by(RunOutcome.scheduled_at.desc())
        .limit(1)
        .scalar_subquery()
    )
    over = select(failing.c.deployment_id, newest_success).where(newest_success > failing.c.failed_at)
    with database_errors():
        async with sessions() as session:
            found = (await session.execute(over)).all()
        for deployment_id, succeeded_at in found:
            async with sessions.begin() as session:
                mine = (*open_, Alert.deployment_id == deployment_id, Alert.failed_at < succeeded_at)
                closing = update(Alert).where(*mine).values(resolved_at=utc_now()).returning(Alert)
                resolved = (await session.scalars(closing, execution_options={"synchronize_session": False})).all()
                if resolved:
                    source = max(resolved, key=lambda alert: alert.id).source
                    title = f"RESOLVED: {source} succeeds again"
                    await tell_resolved(session, resolved, title, "A later run succeeded.")
    return bool(found)
