"""Acknowledgements: alerts about an acknowledged problem are stored and not sent, unless their severity is higher."""

from collections.abc import Collection, Mapping
from datetime import datetime

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from spine.alerts.problems import about_same_problem, state_of
from spine.alerts.schemas import AlertState
from spine.cache.statements import upsert
from spine.severity import Severity, stored_severity
from spine.tables.alerts import Alert, AlertAcknowledgement
from spine.tables.base import utc_now


class Acknowledgements:
    """The acknowledgements of some problems, locked until the transaction ends."""

    def __init__(self, rows: dict[str, tuple[AlertAcknowledgement, Alert]], now: datetime) -> None:
        self._rows = rows
        self._now = now
        self._ended: dict[str, Alert] = {}
        self._newest: dict[str, str] = {}

    @classmethod
    async def lock(cls, session: AsyncSession, wanted: Mapping[str, Severity], now: datetime) -> "Acknowledgements":
        """Lock those of these problems, each given with the highest severity of its new alerts.

        Everybody locks the alerts of a problem before its acknowledgement, and both in one order, so that two
        transactions never wait for each other. Alerts are locked only where an acknowledgement ends.
        """
        found = await _read(session, wanted) if wanted else {}
        for row, newest in found.values():
            if wanted[row.problem].rank > _severity_of(row).rank:
                await lock_open_alerts(session, newest)
        if found:
            await lock_acknowledgements(session, wanted)
            # Read again by a statement that sees what a transaction that held the lock before has changed.
            found = await _read(session, wanted)
        return cls(found, now)

    def take(self, problem: str, severity: Severity, alert_id: str) -> Alert | None:
        """The acknowledged alert whose acknowledgement the new alert `alert_id` shares; None if it is to be sent.

        An alert of a higher severity than those that were acknowledged ends the acknowledgement.
        """
        row, newest = self._rows.get(problem, (None, None))
        if row is None or newest is None:
            return None
        if newest.unreadable_fields() or state_of(newest, self._now) is not AlertState.ACKNOWLEDGED:
            return None
        if severity.rank > _severity_of(row).rank:
            self._ended[problem] = newest
            del self._rows[problem]
            return None
        self._newest[problem] = alert_id
        return newest

    async def settle(self, session: AsyncSession) -> None:
        """Store what `take` has changed, once the new alerts are stored."""
        for problem, alert_id in self._newest.items():
            moved = update(AlertAcknowledgement).where(AlertAcknowledgement.problem == problem)
            await session.execute(moved.values(alert_id=alert_id))
        for problem, newest in self._ended.items():
            await end_acknowledgement(session, problem, newest)


async def _read(session: AsyncSession, problems: Collection[str]) -> dict[str, tuple[AlertAcknowledgement, Alert]]:
    """The acknowledgements of these problems with their newest alerts, in one order."""
    its = select(AlertAcknowledgement, Alert).join(Alert, Alert.id == AlertAcknowledgement.alert_id)
    its = its.where(AlertAcknowledgement.problem.in_(problems)).order_by(AlertAcknowledgement.problem)
    found = await session.execute(its, execution_options={"populate_existing": True})
    return {row.problem: (row, newest) for row, newest in found}


def _severity_of(row: AlertAcknowledgement) -> Severity:
    # An alert too many does less harm than one that is lost.
    return stored_severity(row.severity, Severity.INFO, row.record, row.problem)


async def lock_open_alerts(session: AsyncSession, alert: Alert) -> None:
    """Lock the open alerts about the problem of this one, and those that were resolved with it."""
    together = Alert.resolved_at.is_(None) | (Alert.resolved_at == alert.resolved_at)
    wanted = select(Alert.id).where(about_same_problem(alert), together).order_by(Alert.id)
    await session.execute(wanted.with_for_update())


async def lock_acknowledgements(session: AsyncSession, problems: Collection[str]) -> None:
    """Lock the acknowledgements of these problems: who stores an alert that shares one has ended, or waits."""
    its = AlertAcknowledgement.problem
    await session.execute(select(its).where(its.in_(problems)).order_by(its).with_for_update())


async def put_acknowledgement(session: AsyncSession, problem: str, alert_id: str, severity: Severity) -> None:
    """Store that a problem is acknowledged, up to this severity; `alert_id` is its newest alert."""
    row = {"alert_id": alert_id, "severity": severity.value}
    storing = upsert(session, AlertAcknowledgement).values(problem=problem, **row)
    await session.execute(storing.on_conflict_do_update(index_elements=["problem"], set_=row))


async def end_acknowledgement(session: AsyncSession, problem: str, alert: Alert) -> None:
    """End the acknowledgement of a problem, of which `alert` is one: its open alerts are firing again."""
    await session.execute(delete(AlertAcknowledgement).where(AlertAcknowledgement.problem == problem))
    again = update(Alert).where(about_same_problem(alert), Alert.resolved_at.is_(None))
    again = again.values(acknowledged_by=None, snoozed_until=None)
    await session.execute(again, execution_options={"synchronize_session": False})


async def is_acknowledged(session: AsyncSession, problem: str) -> bool:
    """Whether the problem is acknowledged now."""
    its = select(Alert).join(AlertAcknowledgement, AlertAcknowledgement.alert_id == Alert.id)
    newest = (await session.scalars(its.where(AlertAcknowledgement.problem == problem))).one_or_none()
    return newest is not None and state_of(newest, utc_now()) is AlertState.ACKNOWLEDGED
