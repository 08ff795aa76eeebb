"""What the dispatcher leases, sends and releases, on both databases."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from spine.alerts import delivery_queue
from spine.alerts.channels.base import ChannelConfig
from spine.alerts.channels.webhook import WebhookConfig
from spine.alerts.delivery_queue import RetryPolicy
from spine.alerts.dispatcher import LANE_WIDTH, MOST_LEASED, Dispatcher
from spine.alerts.messages import AlertMessage, Outcome
from spine.alerts.outbox import AlertEvent, raise_alert
from spine.database import SessionFactory, make_engine, make_sessions
from spine.settings import Settings
from spine.severity import Severity
from spine.tables.alerts import SENT, AlertChannel, AlertDelivery
from sqlalchemy import func, select

from tests.support.databases import migrate

ALERTS = 120


class FakeSender:
    """Sends the first `quick` deliveries at once, and takes `slowly` seconds for each of the others."""

    def __init__(self, quick: int, slowly: float = 0.0) -> None:
        self.sends: Counter[str] = Counter()
        self.at_once = self.most_at_once = 0
        self._quick, self._slowly = quick, slowly

    async def send(self, config: ChannelConfig, message: AlertMessage, recipient: str | None) -> Outcome:
        self.sends[message.delivery_id] += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0 if sum(self.sends.values()) <= self._quick else self._slowly)
        self.at_once -= 1
        return Outcome(sent=True, status=200)


@asynccontextmanager
async def _filled(settings: Settings) -> AsyncIterator[SessionFactory]:
    await asyncio.to_thread(migrate, settings.sqlalchemy_url)
    engine = make_engine(settings.sqlalchemy_url)
    made = make_sessions(engine)
    async with made.begin() as session:
        fields = {"channel_type": "webhook", "config": {}, "min_severity": "INFO", "enabled": True}
        session.add(AlertChannel(name="desk", recipients=[None], throttle_minutes=0, **fields))
    for number in range(ALERTS):
        await raise_alert(made, AlertEvent(Severity.ERROR, f"alert {number}", "m", "test", cause=f"test:{number}"))
    yield made
    await engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
async def sessions(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SessionFactory]:
    """A database with a channel and alerts whose deliveries are due."""
    if request.param == "sqlite":
        async with _filled(Settings.model_validate({"home": tmp_path})) as made:
            yield made
        return
    with request.getfixturevalue("postgresql_databases").lend() as url:
        async with _filled(Settings.model_validate({"home": tmp_path, "database_url": url})) as made:
            yield made


async def has_own_key() -> None:
    """The key of this process is that of the database."""


async def send_all(sessions: SessionFactory, sender: FakeSender) -> None:
    """Dispatch until all deliveries are recorded as sent."""
    config = WebhookConfig.model_validate({"url": "https://example.com/none"})
    retry_policy = RetryPolicy(3, timedelta(seconds=1))
    async with Dispatcher(sessions, lambda _: config, sender, retry_policy, has_own_key).dispatching():
        until = time.monotonic() + 30
        while await count(sessions, AlertDelivery.status == SENT) < ALERTS:
            assert time.monotonic() < until
            await asyncio.sleep(0.05)


async def count(sessions: SessionFactory, *conditions: object) -> int:
    async with sessions() as session:
        return await session.scalar(select(func.count()).select_from(AlertDelivery).where(*conditions)) or 0  # type: ignore[arg-type]


async def test_each_delivery_is_sent_once_and_the_number_in_flight_is_limited(sessions: SessionFactory) -> None:
    sender = FakeSender(quick=ALERTS)
    await send_all(sessions, sender)
    assert set(sender.sends.values()) == {1}
    assert len(sender.sends) == ALERTS
    assert sender.most_at_once <= LANE_WIDTH
    async with sessions() as session:
        channel = await session.scalar(select(AlertChannel))
        assert channel is not None
        assert channel.last_success_at is not None
    assert await count(sessions, AlertDelivery.lease.is_not(None), AlertDelivery.delivery_ms.is_(None)) == 0


async def test_a_dispatcher_that_stops_leaves_the_rest_to_others_and_none_is_sent_twice(
    sessions: SessionFactory,
) -> None:
    sender = FakeSender(quick=0, slowly=0.05)
    config = WebhookConfig.model_validate({"url": "https://example.com/none"})
    dispatcher = Dispatcher(sessions, lambda _: config, sender, RetryPolicy(3, timedelta(seconds=1)), has_own_key)
    async with dispatcher.dispatching():
        while len(sender.sends) < LANE_WIDTH:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        dispatcher.stop_leasing()
        while sender.at_once:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        begun = len(sender.sends)
        await asyncio.sleep(0.3)
        assert len(sender.sends) == begun < ALERTS
    await send_all(sessions, sender)
    assert set(sender.sends.values()) == {1}
    assert len(sender.sends) == ALERTS


@pytest.mark.slow
async def test_deliveries_whose_lease_gets_too_short_for_a_slow_receiver_are_released(
    sessions: SessionFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_queue, "LEASE", timedelta(seconds=2))
    monkeypatch.setattr(delivery_queue, "LONGEST_ATTEMPT", timedelta(seconds=1.4))
    sender = FakeSender(quick=ALERTS // 4, slowly=0.3)
    released = 0
    real = delivery_queue._release

    async def counted(*arguments: object) -> None:
        nonlocal released
        released += 1
        await real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(delivery_queue, "_release", counted)
    await send_all(sessions, sender)
    # Of those leased while it is quick, few can be sent before the lease is too short for another attempt.
    assert 0 < released <= MOST_LEASED
    assert set(sender.sends.values()) == {1}
    assert len(sender.sends) == ALERTS
    assert await count(sessions, AlertDelivery.attempt != 1) == 0
