"""Alerts that are raised together are stored together, on both databases."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from spine.alerts.intake import Intake
from spine.alerts.outbox import AlertEvent
from spine.auth.domains import EVERY_DOMAIN
from spine.database import SessionFactory, make_engine, make_sessions
from spine.settings import Settings
from spine.severity import Severity
from spine.tables.alerts import PENDING, THROTTLED, Alert, AlertChannel, AlertDelivery, AlertThrottle
from sqlalchemy import create_engine, event, func, select

from tests.support.databases import migrate

ALERTS = 40


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    """A migrated database."""
    if request.param == "sqlite":
        made = Settings(home=tmp_path)
        migrate(made.sqlalchemy_url)
        yield made
        return
    with request.getfixturevalue("postgresql_databases").lend() as url:
        yield Settings.model_validate({"home": tmp_path, "database_url": url})


@pytest.fixture
async def sessions(settings: Settings) -> AsyncIterator[SessionFactory]:
    """The database with one channel, which throttles."""
    engine = make_engine(settings.sqlalchemy_url)
    made = make_sessions(engine)
    fields = {"channel_type": "webhook", "config": {}, "min_severity": "INFO", "enabled": True}
    async with made.begin() as session:
        session.add(AlertChannel(name="desk", recipients=[None], throttle_minutes=5, **fields))
    yield made
    await engine.dispose()


def _event(number: int, **fields: Any) -> AlertEvent:
    return AlertEvent(Severity.ERROR, f"alert {number}", "m", "test", **{"cause": f"request:{number}", **fields})


async def _raise_all(intake: Intake, events: list[AlertEvent]) -> list[Any]:
    return await asyncio.gather(*(intake.request_alert(EVERY_DOMAIN, one) for one in events), return_exceptions=True)


def _count_commits(sessions: SessionFactory) -> list[str]:
    commits: list[str] = []
    event.listen(sessions.kw["bind"].sync_engine, "commit", lambda _: commits.append("commit"))
    return commits


async def test_alerts_that_are_raised_together_share_transactions(sessions: SessionFactory) -> None:
    commits = _count_commits(sessions)
    answers = await _raise_all(Intake(sessions), [_event(number) for number in range(ALERTS)])
    assert {answer.message for answer in answers} == {"The alert was accepted: 1 delivery queued."}
    assert len({answer.id for answer in answers}) == ALERTS
    assert len(commits) <= 2
    async with sessions() as session:
        titles = dict((await session.execute(select(Alert.id, Alert.title))).tuples().all())
        receivers = (await session.scalars(select(AlertDelivery.alert_id))).all()
    assert [titles[answer.id] for answer in answers] == [f"alert {number}" for number in range(ALERTS)]
    assert sorted(receivers) == sorted(titles)


async def test_an_alert_is_committed_before_it_is_answered(settings: Settings, sessions: SessionFactory) -> None:
    url = settings.sqlalchemy_url
    other = create_engine(url.set(drivername=url.drivername.replace("+aiosqlite", "")))
    intake = Intake(sessions)

    async def raise_and_look(number: int) -> bool:
        answer = await intake.request_alert(EVERY_DOMAIN, _event(number))
        # No other task of this process can run between the answer and this look over another connection.
        with other.connect() as connection:
            return connection.scalar(select(func.count()).where(Alert.id == answer.id)) == 1

    assert await asyncio.gather(*(raise_and_look(number) for number in range(ALERTS))) == [True] * ALERTS
    other.dispose()


async def test_an_alert_that_cannot_be_stored_fails_alone(sessions: SessionFactory) -> None:
    events = [_event(number) for number in range(ALERTS)]
    events[7] = _event(7, details={"a": object()})
    answers = await _raise_all(Intake(sessions), events)
    assert [number for number, answer in enumerate(answers) if isinstance(answer, Exception)] == [7]
    async with sessions() as session:
        titles = Counter(await session.scalars(select(Alert.title)))
        deliveries = await session.scalar(select(func.count()).select_from(AlertDelivery))
    assert titles == Counter(f"alert {number}" for number in range(ALERTS) if number != 7)
    assert deliveries == ALERTS - 1


async def test_repeats_within_a_group_are_throttled(sessions: SessionFactory) -> None:
    events = [_event(number, dedup_key=f"key {number % 2}") for number in range(ALERTS)]
    await _raise_all(Intake(sessions), events)
    async with sessions() as session:
        statuses = Counter(await session.scalars(select(AlertDelivery.status)))
        held_back = (await session.scalars(select(AlertThrottle.held_back))).all()
    assert statuses == {PENDING: 2, THROTTLED: ALERTS - 2}
    assert held_back == [ALERTS // 2 - 1] * 2


async def test_one_cause_raises_one_alert_also_within_a_group_and_from_two_processes(
    settings: Settings, sessions: SessionFactory
) -> None:
    elsewhere = make_engine(settings.sqlalchemy_url)
    intakes = Intake(sessions), Intake(make_sessions(elsewhere))
    # Each process gets them in an order of its own.
    events = [_event(number % 10) for number in range(ALERTS)]
    found = await asyncio.gather(_raise_all(intakes[0], events), _raise_all(intakes[1], events[::-1]))
    await elsewhere.dispose()
    ids = {json.dumps([one.title, answer.id]) for one, answer in zip(events, found[0], strict=True)}
    ids |= {json.dumps([one.title, answer.id]) for one, answer in zip(events[::-1], found[1], strict=True)}
    assert len(ids) == 10
    async with sessions() as session:
        assert await session.scalar(select(func.count()).select_from(Alert)) == 10
        assert await session.scalar(select(func.count()).select_from(AlertDelivery)) == 10
