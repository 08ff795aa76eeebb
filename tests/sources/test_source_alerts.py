"""Alerts of sources: one for each problem until it is over, and none for a request that could not be taken."""

from collections.abc import Sequence
from datetime import timedelta
from hashlib import sha256

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from spine.alerts.handling import acknowledge
from spine.alerts.schemas import AlertAcknowledge
from spine.database import transaction
from spine.errors import Unavailable
from spine.prefect.client import Prefect
from spine.sources.fetch_requests import record_request, request_fetch
from spine.sources.fetch_state import FetchRun, finish_fetch, start_fetch
from spine.sources.schemas import FetchTrigger
from spine.tables.alerts import Alert, AlertChannel, AlertDelivery, AlertThrottle
from spine.tables.base import new_id, utc_now
from spine.tables.sources import Fetch, Source
from spine.workflows.known_workflows import KnownWorkflows
from sqlalchemy import select, update

from tests.sources.readers.support import settle
from tests.sources.support import CALLER, Desk
from tests.support.processes import free_port

ROWS = b"day,venue,shares\n2026-01-05,AAA,1\n2026-01-05,BBB,2\n"


def rows(bad: int, of: int) -> bytes:
    return b"a,b\n" + b"1,2\n" * (of - bad) + b"1\n" * bad


async def titles(desk: Desk, name: str) -> Sequence[tuple[str, str, bool]]:
    return [(alert.severity, alert.title, alert.resolved_at is not None) for alert in await desk.alerts(name)]


async def test_a_partial_fetch_raises_one_warning_until_there_are_no_invalid_rows(desk: Desk) -> None:
    name = await desk.register("file", {"path": "a.csv"}, domain="desk.rates")
    title = f"The source {name} has invalid rows"
    for _ in range(3):
        settle(desk.file("a.csv", rows(1, 200)))
        assert (await desk.fetch(name, force=True)).status == "PARTIAL"
    (alert,) = await desk.alerts(name)
    assert (alert.severity, alert.title, alert.domain, alert.resolved_at) == ("WARNING", title, "desk.rates", None)
    assert alert.message.startswith("1 of 200 rows are invalid and were left out.\na.csv, line 201: has 1 field")
    settle(desk.file("a.csv", ROWS))
    assert (await desk.fetch(name)).status == "SUCCESS"
    assert await titles(desk, name) == [("WARNING", title, True)]
    settle(desk.file("a.csv", rows(1, 300)))
    await desk.fetch(name)
    assert await titles(desk, name) == [("WARNING", title, True), ("WARNING", title, False)]


async def test_a_source_that_keeps_failing_raises_one_alert_until_it_succeeds(desk: Desk) -> None:
    name = await desk.register("file", {"path": "a.csv"})
    title = f"The source {name} could not be fetched"
    for _ in range(3):
        assert (await desk.fetch(name)).status == "FAILED"
    assert (await desk.source(name)).consecutive_failures == 3
    assert await titles(desk, name) == [("ERROR", title, False)]
    # A partial fetch ends the failure, and is a problem of its own.
    settle(desk.file("a.csv", rows(1, 200)))
    await desk.fetch(name)
    partial = f"The source {name} has invalid rows"
    assert await titles(desk, name) == [("ERROR", title, True), ("WARNING", partial, False)]
    (desk.root / "a.csv").unlink()
    for _ in range(2):
        await desk.fetch(name)
    assert await titles(desk, name) == [("ERROR", title, True), ("WARNING", partial, False), ("ERROR", title, False)]
    settle(desk.file("a.csv", ROWS))
    await desk.fetch(name)
    assert all(resolved for _, _, resolved in await titles(desk, name))


async def throttled(desk: Desk) -> str:
    """A source whose failures a channel has throttled until now."""
    sessions, channel_id = desk.context.sessions, new_id()
    fields = {"channel_type": "webhook", "config": {}, "recipients": [None], "min_severity": "ERROR", "enabled": True}
    async with sessions.begin() as session:
        session.add(AlertChannel(id=channel_id, name="desk", throttle_minutes=5, **fields))
    name = await desk.register("file", {"path": "a.csv"})
    async with sessions.begin() as session:
        source_id = await session.scalar(select(Source.id).where(Source.name == name))
        key_hash = sha256(f"source-failed:{source_id}".encode()).hexdigest()
        soon = utc_now() + timedelta(minutes=5)
        session.add(AlertThrottle(channel_id=channel_id, key_hash=key_hash, quiet_until=soon, severity="ERROR"))
    # It fails within the five minutes, and keeps failing.
    for _ in range(2):
        await desk.fetch(name)
    assert await _deliveries(desk, name) == [["THROTTLED"]]
    async with sessions.begin() as session:
        await session.execute(update(AlertThrottle).values(quiet_until=utc_now()))
    return name


async def test_an_alert_that_a_channel_throttled_is_raised_again_when_the_throttling_has_ended(desk: Desk) -> None:
    name = await throttled(desk)
    for _ in range(2):
        await desk.fetch(name)
    assert await _deliveries(desk, name) == [["THROTTLED"], ["PENDING"]]


async def test_an_alert_that_is_acknowledged_is_not_raised_at_each_fetch(desk: Desk) -> None:
    name = await throttled(desk)
    (alert,) = await desk.alerts(name)
    async with transaction(desk.context.sessions) as session:
        await acknowledge(session, CALLER, alert.id, AlertAcknowledge())
    for _ in range(2):
        await desk.fetch(name)
    assert await _deliveries(desk, name) == [["THROTTLED"]]


async def test_a_failure_after_a_recovery_is_not_throttled(desk: Desk) -> None:
    fields = {"channel_type": "webhook", "config": {}, "recipients": [None], "min_severity": "INFO", "enabled": True}
    async with desk.context.sessions.begin() as session:
        session.add(AlertChannel(id=new_id(), name="desk", throttle_minutes=5, **fields))
    name = await desk.register("file", {"path": "a.csv"})
    await desk.fetch(name)
    settle(desk.file("a.csv", ROWS))
    await desk.fetch(name)
    (desk.root / "a.csv").unlink()
    for _ in range(2):
        await desk.fetch(name)
    assert await _deliveries(desk, name) == [["PENDING"]] * 3


async def _deliveries(desk: Desk, name: str) -> list[list[str]]:
    """The states of the deliveries of each alert of a source."""
    async with desk.context.sessions() as session:
        found = await session.scalars(select(AlertDelivery).order_by(AlertDelivery.alert_id))
        by_alert: dict[str, list[str]] = {}
        for delivery in found:
            by_alert.setdefault(delivery.alert_id, []).append(delivery.status)
    return [by_alert[alert.id] for alert in await desk.alerts(name)]


async def test_a_request_that_prefect_could_not_take_leaves_no_fetch_and_no_alert(desk: Desk) -> None:
    name = await desk.register("file", {"path": "a.csv"})
    sessions, operation_id = desk.context.sessions, new_id()
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api"}):
        async with Prefect.connect(1) as prefect:
            with pytest.raises(Unavailable):
                await request_fetch(
                    prefect, sessions, CALLER, name, force=False, operation_id=operation_id, known=KnownWorkflows()
                )
    async with sessions() as session:
        assert (await session.scalars(select(Fetch))).all() == []
        assert (await session.scalars(select(Alert))).all() == []
    source = await desk.source(name)
    assert (source.total_fetches, source.last_fetch_status) == (0, None)


async def test_a_run_whose_request_was_answered_with_503_is_the_fetch_that_the_repeated_request_gets(
    desk: Desk,
) -> None:
    settle(desk.file("a.csv", ROWS))
    name = await desk.register("file", {"path": "a.csv"})
    sessions, operation_id, run_id = desk.context.sessions, new_id(), (await desk.start(name)).run_id
    async with sessions.begin() as session:
        (only,) = await session.scalars(select(Fetch))
        await session.delete(only)
    assert run_id is not None
    run = FetchRun(run_id, FetchTrigger.API, "tests", False, "here:1")
    # Prefect had created the run, although its answer was lost.
    started = await start_fetch(sessions, name, operation_id, run)
    repeated = await record_request(sessions, name, operation_id, by="tests", force=False)
    assert (started.fetch_id, repeated.fetch_id, repeated.run_id) == (operation_id, operation_id, run_id)
    await finish_fetch(sessions, operation_id, await desk.run(started))
    async with sessions() as session:
        assert len((await session.scalars(select(Fetch))).all()) == 1
