"""A process on a machine whose clock is wrong: leases go by the clock of the database's server."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from spine import database_clock
from spine.database import make_engine, make_sessions
from spine.database_clock import CLOCK
from spine.settings import Settings
from spine.sources.fetch_state import claim_source, renew_lease
from spine.tables.base import new_id, utc_now
from spine.tables.sources import Fetch
from sqlalchemy import select

from tests.sources.support import Desk

pytestmark = pytest.mark.parametrize("database", ["postgresql"], indirect=True)


@contextmanager
def on_a_machine_with_another_clock(seconds: float) -> Iterator[None]:
    """Let this process have a clock that is so much ahead, and know nothing of the database's yet."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(database_clock, "local_now", lambda: datetime.now(UTC) + timedelta(seconds=seconds))
        patched.setattr(CLOCK, "_ahead", timedelta())
        patched.setattr(CLOCK, "_measured", float("-inf"))
        yield


def error() -> timedelta:
    """How far the time that this process takes for the present one is off."""
    return abs(utc_now() - datetime.now(UTC))


@pytest.mark.parametrize("seconds", [120, -120], ids=["ahead", "behind"])
async def test_a_live_lease_is_not_taken_by_a_process_with_another_clock(
    desk: Desk, settings: Settings, seconds: float
) -> None:
    living = await desk.start(await desk.register("file", {"path": "a.csv"}))
    await desk.claim_source_of(living)
    with on_a_machine_with_another_clock(seconds):
        assert error() > timedelta(seconds=100)
        engine = make_engine(settings.sqlalchemy_url)
        sessions = make_sessions(engine)
        assert await claim_source(sessions, living.source_id, new_id()) == living.fetch_id
        assert error() < timedelta(seconds=1)
        assert await lease(sessions, living.fetch_id) == (True, None)
        # A lease that it renews is as long as that of others.
        assert await renew_lease(sessions, living.fetch_id)
        await engine.dispose()
    assert await lease(desk.context.sessions, living.fetch_id) == (True, None)


async def lease(sessions: Any, fetch_id: str) -> tuple[bool, Any]:
    """Whether the lease of a fetch lasts, but for less than a minute, and the end of its grace period."""
    async with sessions() as session:
        fetch = (await session.scalars(select(Fetch).where(Fetch.id == fetch_id))).one()
    left = fetch.lease_until - datetime.now(UTC)
    return timedelta() < left < timedelta(minutes=1), fetch.grace_until


async def test_a_clock_that_changes_later_is_noticed_with_the_connections_that_are_open(desk: Desk) -> None:
    name = await desk.register("file", {"path": "a.csv"})
    with on_a_machine_with_another_clock(90):
        await desk.source(name)
        assert error() < timedelta(seconds=1)
    # The clock that it had before.
    assert error() < timedelta(seconds=1)


async def test_clocks_that_agree_within_a_second_are_left_alone(desk: Desk) -> None:
    name = await desk.register("file", {"path": "a.csv"})
    with on_a_machine_with_another_clock(0.5):
        await desk.source(name)
        assert timedelta(seconds=0.4) < error() < timedelta(seconds=0.6)
