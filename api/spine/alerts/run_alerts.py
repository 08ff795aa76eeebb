"""Alerts that Spine raises by itself for failed runs, and for schedules that fail several times in a row.

The follower of run history writes a claim with each failure that it records. Here each claim becomes an alert, in the
transaction that deletes the claim: one alert for each failure, whichever processes stop in between.
"""

import asyncio
import re
import time
from collections.abc import Callable, Collection, Sequence
from enum import Enum
from typing import Literal
from uuid import UUID

import structlog
from sqlalchemy import delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from spine.alerts.outbox import AlertEvent, put_alert
from spine.alerts.recovery import resolve_recovered
from spine.auth.domains import EVERY_DOMAIN
from spine.database import SessionFactory, reading, transaction
from spine.errors import NotFound, SpineError
from spine.oddities import ODDITIES
from spine.prefect.around import PrefectUnreadable
from spine.prefect.client import Deployment, FlowRun, Prefect
from spine.run_history.outcomes import COMPLETED
from spine.schedules.deployments import has_schedule
from spine.severity import Severity
from spine.tables.run_history import DeploymentStatistics, RunAlertClaim, RunOutcome
from spine.tables.sources import Fetch
from spine.unreadable import Unreadable
from spine.workflows.labels import SILENCING_TAG, domain_of, severity_of
from spine.workflows.run_detail import read_run
from spine.workflows.schemas import StepStatus, WorkflowRunDetail

log = structlog.get_logger("spine.alerts")

# How many claims are processed at once. Their runs are read from Prefect concurrently.
CLAIMS_AT_ONCE = 10
LONGEST_MESSAGE = 5_000
# A run that Prefect cannot send may become readable again; then its alert has the details.
SECONDS_UNTIL_A_SHORT_ALERT = 30.0
_CREDENTIALS_IN_URL = re.compile(r"(?<=://)[^\s/@]+@")


class Later(Enum):
    """The claim must be processed later."""

    LATER = 1


LATER: Literal[Later.LATER] = Later.LATER


class RunAlerts:
    """A chore of the follower: raise an alert for each claim, and resolve the alerts of runs that succeed again."""

    def __init__(self, failures_in_a_row: int, wake: Callable[[], None]) -> None:
        self._failures_in_a_row = failures_in_a_row
        self._wake = wake
        # When the run of a claim was first found unreadable, by the monotonic clock.
        self._unreadable: dict[UUID, float] = {}

    async def run(self, prefect: Prefect, sessions: SessionFactory) -> None:
        """Process all claims that are stored now."""
        left: set[UUID] = set()
        while claims := await _oldest_claims(sessions, left):
            found = await asyncio.gather(*(self._read(prefect.for_one_request(), claim) for claim in claims))
            for claim, failure in zip(claims, found, strict=True):
                if failure is LATER or not await self._processed(sessions, claim, failure):
                    left.add(claim.state_id)
            self._wake()
        if await resolve_recovered(sessions):
            self._wake()

    async def _read(self, prefect: Prefect, claim: RunAlertClaim) -> "RunFailure | AlertEvent | Later | None":
        """`_read`, or `LATER` for a run that Prefect cannot send; after a while a short alert is raised for it."""
        try:
            found = await _read(prefect, claim)
        except PrefectUnreadable as reason:
            since = self._unreadable.setdefault(claim.state_id, time.monotonic())
            if time.monotonic() - since < SECONDS_UNTIL_A_SHORT_ALERT:
                return LATER
            ODDITIES.found("flow run", claim.run_id, reason.detail)
            found = _short_alert(claim, "Prefect cannot send them")
        self._unreadable.pop(claim.state_id, None)
        return found

    async def _processed(
        self, sessions: SessionFactory, claim: RunAlertClaim, failure: "RunFailure | AlertEvent | None"
    ) -> bool:
        """Process a claim; false if what it holds cannot be stored, which must not delay the next ones."""
        try:
            async with transaction(sessions) as session:
                await self._process(session, claim, failure)
        except SpineError:
            raise
        except IntegrityError:
            # Another process has raised the same alert at the same moment: the next run finds it.
            return False
        except Exception as error:
            ODDITIES.found("failed run", claim.run_id, f"its alert cannot be stored ({type(error).__name__})")
            return False
        return True

    async def _process(
        self, session: AsyncSession, claim: RunAlertClaim, failure: "RunFailure | AlertEvent | None"
    ) -> None:
        deleted = await session.execute(
            delete(RunAlertClaim).where(RunAlertClaim.state_id == claim.state_id).returning(RunAlertClaim.state_id)
        )
        if deleted.first() is None or failure is None:
            return
        if isinstance(failure, AlertEvent):
            await put_alert(session, failure)
            return
        if failure.is_silenced:
            return
        if not await _is_fetch(session, claim.run_id):
            await put_alert(session, failure.alert(claim))
        if (streak_alert := await self._streak_alert(session, claim, failure)) is not None:
            await put_alert(session, streak_alert)

    async def _streak_alert(
        self, session: AsyncSession, claim: RunAlertClaim, failure: "RunFailure"
    ) -> AlertEvent | None:
        """The alert that a schedule has failed several times in a row, once for each such streak."""
        statistics = await session.get(DeploymentStatistics, claim.deployment_id)
        in_a_row = statistics.consecutive_failures if statistics else 0
        if in_a_row < self._failures_in_a_row or failure.deployment is None or not has_schedule(failure.deployment):
            return None
        of_deployment = (RunOutcome.deployment_id == claim.deployment_id, RunOutcome.outcome == COMPLETED)
        last_success = await session.scalar(select(func.max(RunOutcome.scheduled_at)).where(*of_deployment))
        return failure.streak_alert(claim, in_a_row, last_success.isoformat() if last_success else "never")


class RunFailure:
    """A failed run, as Prefect records it."""

    def __init__(self, run: FlowRun, detail: WorkflowRunDetail, deployment: Deployment | None) -> None:
        self.run = run
        self.detail = detail
        self.deployment = deployment
        # The deployment's tags may be newer than the run's; the run keeps the tags of a deployment that was deleted.
        self._tags = deployment.tags if deployment else run.tags

    @property
    def is_silenced(self) -> bool:
        """Whether the deployment has the tag that turns alerts off."""
        return SILENCING_TAG in self._tags

    def alert(self, claim: RunAlertClaim) -> AlertEvent:
        """The alert for this failure."""
        crashed = self.run.state is not None and self.run.state.is_crashed()
        return AlertEvent(
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

    def streak_alert(self, claim: RunAlertClaim, in_a_row: int, since: str) -> AlertEvent:
        """The alert that the schedule failed several times in a row; it is raised once after each success."""
        name = self.deployment.name if self.deployment else self.detail.workflow_name
        return AlertEvent(
            severity=Severity.CRITICAL,
            title=f"The schedule {name} failed {in_a_row} times in a row",
            message=f"Last success: {since}. The latest failure:\n{self._message()}"[:LONGEST_MESSAGE],
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
        error = self.detail.error
        steps = self._failed_steps
        where = f"Step {', '.join(steps)} failed" if steps else "The run failed"
        lines = [
            f"{where}: {_CREDENTIALS_IN_URL.sub('***@', error or 'Prefect gives no reason')}"[:LONGEST_MESSAGE],
            f"Run {self.run.name}, attempt {self.detail.attempt}"
            + (f", started by {self.detail.triggered_by}" if self.detail.triggered_by else ""),
            self.detail.prefect_url or "",
        ]
        return "\n".join(filter(None, lines))


async def _oldest_claims(sessions: SessionFactory, left: Collection[UUID]) -> Sequence[RunAlertClaim]:
    """The oldest claims without those that are `left` for later, and without those that can never be deleted."""
    wanted = (
        select(RunAlertClaim)
        .where(RunAlertClaim.state_id.not_in(left))
        .order_by(RunAlertClaim.ended_at, RunAlertClaim.state_id)
    )
    claims: list[RunAlertClaim] = []
    place = 0
    async with reading(sessions) as session:
        while not claims and (page := (await session.scalars(wanted.limit(CLAIMS_AT_ONCE).offset(place))).all()):
            claims = [claim for claim in page if not isinstance(claim.state_id, Unreadable)]
            place += len(page)
    return claims


async def _is_fetch(session: AsyncSession, run_id: UUID) -> bool:
    """Whether a run fetched a source: its failure then raises an alert of the source instead."""
    return (await session.scalars(select(Fetch.id).where(Fetch.run_id == run_id).limit(1))).first() is not None


async def _read(prefect: Prefect, claim: RunAlertClaim) -> RunFailure | AlertEvent | None:
    """The failure that was claimed; None if the run was deleted, or has changed its state since.

    If a defect in Spine prevents reading the run, a short alert is raised instead, so that the next alerts are not
    delayed.
    """
    if claim.unreadable_fields():
        return _short_alert(claim, "its row cannot be read")
    try:
        return await _read_failure(prefect, claim)
    except SpineError:
        raise
    except Exception as error:
        log.exception("run_alert_error", run_id=str(claim.run_id))
        return _short_alert(claim, type(error).__name__)


def _short_alert(claim: RunAlertClaim, reason: str) -> AlertEvent:
    return AlertEvent(
        severity=Severity.ERROR,
        title="A run failed",
        message=f"Run {claim.run_id} failed. Spine could not read the details ({reason}).",
        source="spine.alerts",
        cause=f"run-failed:{claim.state_id}",
        run_id=str(claim.run_id),
    )


async def _read_failure(prefect: Prefect, claim: RunAlertClaim) -> RunFailure | None:
    try:
        run = await prefect.read_run(claim.run_id)
        if run.state is None or run.state.id != claim.state_id:
            # If it fails again, that is another failure, with its own claim.
            return None
        detail = await read_run(prefect, EVERY_DOMAIN, str(run.id))
    except NotFound:
        return None
    deployments = await prefect.deployments_by_id([claim.deployment_id])
    return RunFailure(run, detail, deployments.get(claim.deployment_id))
