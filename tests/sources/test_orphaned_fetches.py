"""Fetches that can no longer record their own result: which of them fail, and which are left alone."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from spine.cache.leases import acquire_lease
from spine.errors import PrefectUnavailable
from spine.prefect.client import Prefect
from spine.sources import fetch_state, orphaned_fetches
from spine.sources.fetch_requests import record_request, record_run
from spine.sources.fetch_state import OpenFetch, renew_lease
from spine.sources.orphaned_fetches import OrphanedFetches
from spine.sources.schemas import FetchDetail
from spine.tables.base import utc_now
from spine.tables.cache import CacheLease
from spine.tables.sources import Fetch
from sqlalchemy import select, update

from tests.sources.readers.support import settle
from tests.sources.support import ON_EACH_DATABASE, Desk
from tests.support.processes import free_port
from tests.support.stack import PrefectStack

pytestmark = ON_EACH_DATABASE

ROWS = b"a,b\n1,2\n"
LONG_AGO = timedelta(hours=1)
Details = dict[str, str]


@dataclass
class Office:
    """A desk beside a Prefect server without a worker, which counts how often the dispatcher of alerts was woken."""

    desk: Desk
    stack: PrefectStack
    prefect: Prefect
    flow_id: str
    woken: list[bool] = field(default_factory=list)

    async def source(self) -> str:
        settle(self.desk.file("a.csv", ROWS))
        return await self.desk.register("file", {"path": "a.csv"})

    async def request(self, name: str, state: str | None, details: Details | None = None) -> str:
        """A requested fetch, with a run in this state, or without one."""
        fetch_id = uuid4().hex[:26].upper()
        sessions = self.desk.context.sessions
        await record_request(sessions, name, fetch_id, by="tests", force=False)
        if state is not None:
            await record_run(sessions, fetch_id, self.run(state, details))
        return fetch_id

    async def start(self, name: str, state: str, details: Details | None = None) -> OpenFetch:
        """A fetch that has claimed its source, with a run in this state."""
        started = await self.desk.start(name, run_id=self.run(state, details))
        await self.desk.claim_source_of(started)
        return started

    def run(self, state: str, details: Details | None = None) -> UUID:
        run_id = self.stack.make_run(self.flow_id, "PENDING")
        body = {"state": {"type": state, **(details or {})}, "force": True}
        self.stack.post(f"/flow_runs/{run_id}/set_state", body)
        return UUID(run_id)

    async def change(self, fetch_id: str, **values: Any) -> None:
        async with self.desk.context.sessions.begin() as session:
            await session.execute(update(Fetch).where(Fetch.id == fetch_id).values(**values))

    async def grow_old(self, fetch_id: str) -> None:
        """Move the request and the start of a fetch into the past."""
        fetch = await self.desk.read_fetch(fetch_id)
        before = utc_now() - LONG_AGO
        await self.change(fetch_id, created_at=before, **({"started_at": before} if fetch.started_at else {}))

    async def abandon(self, fetch_id: str) -> None:
        """Let the lease and the grace period of a fetch expire."""
        await self.change(fetch_id, lease_until=utc_now() - LONG_AGO, grace_until=utc_now() - timedelta(seconds=1))

    async def check(self) -> None:
        """Check for orphaned fetches once."""
        await OrphanedFetches(lambda: self.woken.append(True)).run(self.prefect, self.desk.context.sessions)

    async def status(self, fetch_id: str) -> str:
        return (await self.desk.read_fetch(fetch_id)).status

    async def titles(self, name: str) -> list[str]:
        return [alert.title for alert in await self.desk.alerts(name)]


@pytest.fixture
def flow_id(stack: PrefectStack) -> Iterator[str]:
    """A flow of this test, deleted at the end with its runs."""
    made = stack.flow_id(f"fetching.{uuid4().hex[:10]}")
    yield made
    stack.delete(f"/flows/{made}")


@pytest.fixture
async def office(desk: Desk, stack: PrefectStack, flow_id: str) -> AsyncIterator[Office]:
    with temporary_settings({PREFECT_API_URL: stack.url}):
        async with Prefect.connect(8) as prefect:
            yield Office(desk, stack, prefect, flow_id)


def why(fetch: FetchDetail) -> tuple[str, str | None]:
    return fetch.status, fetch.error_category


ENDED: list[tuple[str, Details, str]] = [
    ("FAILED", {"message": "it fell over"}, "Failed before the fetch was complete: it fell over"),
    ("CRASHED", {"name": "Lost", "message": "exit code -9"}, "Lost before the fetch was complete: exit code -9"),
    ("COMPLETED", {}, "Completed before the fetch was complete: Prefect gives no reason"),
    ("FAILED", {"message": "x" * 5_000}, f"Failed before the fetch was complete: {'x' * 500}"),
]


async def test_a_fetch_whose_run_has_ended_fails_and_raises_an_alert(office: Office) -> None:
    for state, details, reason in ENDED:
        name = await office.source()
        started = await office.start(name, state, details)
        office.woken.clear()
        await office.check()
        failed = await office.desk.read_fetch(started.fetch_id)
        assert (why(failed), failed.error) == (("FAILED", "ORCHESTRATION"), f"Its flow run ended as {reason}")
        assert failed.completed_at is not None
        assert await office.titles(name) == [f"The source {name} could not be fetched"]
        source = await office.desk.source(name)
        assert (source.consecutive_failures, source.total_fetches, source.last_fetch_status) == (1, 1, "FAILED")
        assert office.woken == [True]


async def test_an_orphaned_fetch_releases_its_claim_and_its_leases_so_that_the_next_one_succeeds(
    office: Office,
) -> None:
    name = await office.source()
    started = await office.start(name, "CRASHED")
    sessions = office.desk.context.sessions
    async with sessions.begin() as session:
        await acquire_lease(session, "0" * 64, started.fetch_id, 600)
    await office.check()
    assert (await office.desk.source(name)).claimed_by is None
    async with sessions() as session:
        assert (await session.scalars(select(CacheLease))).all() == []
    assert (await office.desk.fetch(name)).status == "SUCCESS"
    # Fetches that have ended are not checked again.
    await office.check()
    assert (await office.desk.source(name)).total_fetches == 2
    assert (len(office.woken), len(await office.titles(name))) == (1, 1)


async def test_a_fetch_that_waits_for_a_worker_is_not_orphaned_however_long_it_waits(office: Office) -> None:
    for state in ("SCHEDULED", "PENDING"):
        fetch_id = await office.request(await office.source(), state)
        await office.grow_old(fetch_id)
        await office.check()
        assert await office.status(fetch_id) == "PENDING"
    assert office.woken == []


async def test_a_fetch_whose_run_ended_before_it_started_is_orphaned(office: Office) -> None:
    fetch_id = await office.request(await office.source(), "CRASHED", {"message": "no such image"})
    await office.check()
    orphaned = await office.desk.read_fetch(fetch_id)
    assert why(orphaned) == ("FAILED", "ORCHESTRATION")
    assert "no such image" in (orphaned.error or "")


async def test_a_running_fetch_is_not_orphaned_while_its_lease_is_renewed(office: Office) -> None:
    name = await office.source()
    started = await office.start(name, "RUNNING")
    await office.grow_old(started.fetch_id)
    await office.check()
    assert await office.status(started.fetch_id) == "RUNNING"
    assert (await office.desk.source(name)).claimed_by == started.fetch_id

    await office.abandon(started.fetch_id)
    await office.check()
    orphaned = await office.desk.read_fetch(started.fetch_id)
    assert why(orphaned) == ("FAILED", "ORCHESTRATION")
    assert orphaned.error == "The process that ran the fetch is gone."
    assert (await office.desk.source(name)).claimed_by is None
    assert office.woken == [True]


async def test_a_fetch_that_could_not_reach_the_database_for_a_while_is_not_orphaned(office: Office) -> None:
    started = await office.start(await office.source(), "RUNNING")
    for _ in range(2):
        await office.change(started.fetch_id, lease_until=utc_now() - LONG_AGO)
        # It is checked before it renews its lease, which it does in the grace period.
        await office.check()
        await office.check()
        assert await office.status(started.fetch_id) == "RUNNING"
        # The renewal ends the grace period, so that the next expiry starts a new one.
        await office.abandon(started.fetch_id)
        assert await renew_lease(office.desk.context.sessions, started.fetch_id)
        await office.check()
    assert await office.status(started.fetch_id) == "RUNNING"
    assert office.woken == []


async def test_a_fetch_that_does_not_renew_its_lease_in_the_grace_period_is_orphaned(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch_state, "GRACE_PERIOD", timedelta(seconds=0.5))
    started = await office.start(await office.source(), "RUNNING")
    await office.change(started.fetch_id, lease_until=utc_now() - LONG_AGO)
    await office.check()
    await asyncio.sleep(0.6)
    assert await office.status(started.fetch_id) == "RUNNING"
    await office.check()
    assert await office.status(started.fetch_id) == "FAILED"


async def test_a_run_that_a_person_cancelled_or_deleted_raises_no_alert(office: Office) -> None:
    for state, expected in (("CANCELLED", "Its flow run was cancelled."), (None, "Its flow run was deleted.")):
        name = await office.source()
        started = await office.start(name, state or "RUNNING")
        if state is None:
            run_id = (await office.desk.read_fetch(started.fetch_id)).run_id
            office.stack.delete(f"/flow_runs/{run_id}")
            await office.grow_old(started.fetch_id)
        await office.check()
        orphaned = await office.desk.read_fetch(started.fetch_id)
        assert (why(orphaned), orphaned.error) == (("FAILED", "ORCHESTRATION"), expected)
        assert await office.titles(name) == []
        source = await office.desk.source(name)
        assert (source.consecutive_failures, source.total_fetches) == (0, 1)


async def test_a_run_that_prefect_does_not_show_yet_gets_time_to_appear(office: Office) -> None:
    started = await office.desk.start(await office.source(), run_id=uuid4())
    await office.check()
    assert await office.status(started.fetch_id) == "RUNNING"
    await office.grow_old(started.fetch_id)
    await office.check()
    assert await office.status(started.fetch_id) == "FAILED"


async def test_a_fetch_that_was_never_started_is_orphaned_after_a_minute(office: Office) -> None:
    name = await office.source()
    fetch_id = await office.request(name, None)
    await office.change(fetch_id, created_at=utc_now() - timedelta(seconds=30))
    await office.check()
    assert await office.status(fetch_id) == "PENDING"
    await office.change(fetch_id, created_at=utc_now() - timedelta(seconds=90))
    await office.check()
    orphaned = await office.desk.read_fetch(fetch_id)
    assert (why(orphaned), orphaned.error) == (("FAILED", "ORCHESTRATION"), "The fetch was never started.")
    assert len(await office.titles(name)) == 1


async def test_each_of_many_open_fetches_is_checked_against_its_own_run(office: Office) -> None:
    states = ["RUNNING", "FAILED", "RUNNING", "CRASHED", "CANCELLED", "RUNNING"]
    started = [await office.start(await office.source(), state) for state in states]
    await office.check()
    found = [await office.status(one.fetch_id) for one in started]
    assert found == ["RUNNING", "FAILED", "RUNNING", "FAILED", "FAILED", "RUNNING"]
    # The dispatcher is woken for every fetch that ends, cancelled or not.
    assert len(office.woken) == 3


async def test_many_waiting_fetches_do_not_hide_orphaned_ones(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphaned_fetches, "MOST_AT_ONCE", 2)
    chore = OrphanedFetches(lambda: None)
    waiting = [await office.request(await office.source(), "SCHEDULED") for _ in range(4)]
    orphaned = await office.start(await office.source(), "CRASHED")
    for _ in range(3):
        assert await office.status(orphaned.fetch_id) == "RUNNING"
        await chore.run(office.prefect, office.desk.context.sessions)
    assert await office.status(orphaned.fetch_id) == "FAILED"
    # Then it starts from the oldest again, whose run may have ended since.
    run_id = (await office.desk.read_fetch(waiting[0])).run_id
    office.stack.post(f"/flow_runs/{run_id}/set_state", {"state": {"type": "CRASHED"}, "force": True})
    await chore.run(office.prefect, office.desk.context.sessions)
    assert [await office.status(one) for one in waiting] == ["FAILED", "PENDING", "PENDING", "PENDING"]


async def test_while_prefect_is_unreachable_no_fetch_counts_as_orphaned(office: Office) -> None:
    started = await office.start(await office.source(), "CRASHED")
    await office.abandon(started.fetch_id)
    await office.grow_old(started.fetch_id)
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api"}):
        async with Prefect.connect(0.5) as nobody:
            with pytest.raises(PrefectUnavailable):
                await OrphanedFetches(lambda: None).run(nobody, office.desk.context.sessions)
    assert await office.status(started.fetch_id) == "RUNNING"
    await office.check()
    assert await office.status(started.fetch_id) == "FAILED"
