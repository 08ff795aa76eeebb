"""What Spine's own tasks change is attributed to them: the follower's chores, and the pruning."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from spine.actors import Actor, ActorKind
from spine.alerts.pruning import prune_alerts
from spine.audit.pruning import prune_audit
from spine.audit.trail import Trail, acting_as, changing, record, within_another_change
from spine.database import SessionFactory, make_engine, make_sessions, transaction
from spine.errors import Conflict, PrefectUnavailable
from spine.prefect.client import Prefect
from spine.run_history.follower import Follower
from spine.settings import Settings
from spine.tables.alerts import Alert
from spine.tables.audit import AuditEntry
from spine.tables.base import new_id, utc_now
from sqlalchemy import URL, event, select, update

from tests.support.databases import migrate
from tests.support.processes import free_port
from tests.support.variants import one_by_default

PRUNER = Actor("spine.prune", ActorKind.SYSTEM)


@pytest.fixture(params=one_by_default(["sqlite", "postgresql"]))
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[URL]:
    """A database with all tables."""
    if request.param == "sqlite":
        made = Settings(home=tmp_path).sqlalchemy_url
        migrate(made)
        yield made
        return
    with request.getfixturevalue("postgresql_databases").lend() as lent:
        yield Settings.model_validate({"database_url": lent}).sqlalchemy_url


@pytest.fixture
async def sessions(url: URL) -> AsyncIterator[SessionFactory]:
    engine = make_engine(url)
    yield make_sessions(engine)
    await engine.dispose()


async def entries(sessions: SessionFactory, *actions: str) -> list[AuditEntry]:
    wanted = select(AuditEntry).where(AuditEntry.action.in_(actions)).order_by(AuditEntry.at, AuditEntry.id)
    async with sessions() as session:
        return list(await session.scalars(wanted))


async def test_the_chores_of_the_follower_act_as_the_follower(sessions: SessionFactory) -> None:
    done = asyncio.Event()

    class Chore:
        async def run(self, prefect: Prefect, sessions: SessionFactory) -> None:
            if not done.is_set():
                async with changing("disabled", "schedule", "an-id"):
                    pass
            done.set()

    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api"}):
        async with Prefect.connect(0.05) as prefect, Follower(prefect, sessions, [Chore()]).running():
            await asyncio.wait_for(done.wait(), 20)
    (entry,) = await entries(sessions, "disabled")
    assert (entry.actor, entry.actor_kind, entry.outcome) == ("spine.follower", "SYSTEM", "DONE")


async def test_a_pruning_has_one_entry_and_a_dry_run_none(sessions: SessionFactory) -> None:
    fields = {"severity": "INFO", "title": "old", "message": "m", "source": "s"}
    old = utc_now() - timedelta(days=100)
    async with transaction(sessions) as session:
        session.add_all([Alert(id=new_id(), created_at=old, **fields) for _ in range(1_003)])
    before = utc_now() - timedelta(days=90)
    with acting_as(PRUNER):
        assert (await prune_alerts(sessions, before, dry_run=True)).alerts == 1_003
        assert await prune_audit(sessions, before, dry_run=True) == 0
        assert await entries(sessions, "pruned") == []
        # In two transactions.
        assert (await prune_alerts(sessions, before, dry_run=False)).alerts == 1_003
        assert (await prune_alerts(sessions, before, dry_run=False)).alerts == 0
        assert await prune_audit(sessions, before, dry_run=False) == 0
    (entry,) = await entries(sessions, "pruned")
    assert (entry.actor, entry.actor_kind, entry.resource_type) == ("spine.prune", "SYSTEM", "alerts")
    assert entry.after == {"created_before": before.isoformat(), "deleted": 1_003, "deliveries": 0}


async def test_old_entries_are_deleted_and_that_is_recorded(sessions: SessionFactory) -> None:
    for name in ("old", "young"):
        async with transaction(sessions) as session:
            await record(session, "created", "channel", name)
    async with transaction(sessions) as session:
        old = update(AuditEntry).where(AuditEntry.resource_id == "old")
        await session.execute(old.values(at=utc_now() - timedelta(days=400)))
    before = utc_now() - timedelta(days=365)
    with acting_as(PRUNER):
        assert await prune_audit(sessions, before, dry_run=True) == 1
        assert await prune_audit(sessions, before, dry_run=False) == 1
    assert [one.resource_id for one in await entries(sessions, "created")] == ["young"]
    assert [one.resource_type for one in await entries(sessions, "pruned")] == ["audit"]


async def test_an_entry_and_its_change_are_one_transaction(sessions: SessionFactory) -> None:
    async def refused() -> None:
        async with transaction(sessions) as session:
            await record(session, "created", "channel", "an-id")
            raise Conflict("the name is taken")

    with pytest.raises(Conflict):
        await refused()
    assert await entries(sessions, "created") == []


async def test_a_change_in_prefect_is_recorded_before_it_is_made(sessions: SessionFactory) -> None:
    with acting_as(Actor("desk", ActorKind.KEY), Trail(sessions)):
        async with changing("started", "run", "key", operation_id="1" * 26) as change:
            (before,) = await entries(sessions, "started")
            assert (before.outcome, before.resource_id) == ("STARTED", "key")
            change.resource_id, change.after = "run-id", {"workflow": "w"}
        (after,) = await entries(sessions, "started")
        assert (after.id, after.outcome, after.resource_id) == ("1" * 26, "DONE", "run-id")
        # A repetition of the operation that is refused takes nothing back.
        with pytest.raises(Conflict):
            async with changing("started", "run", "key", operation_id="1" * 26):
                raise Conflict("no")
        assert len(await entries(sessions, "started")) == 1


async def test_changes_that_are_made_together_are_recorded_together(sessions: SessionFactory) -> None:
    commits: list[str] = []
    event.listen(sessions.kw["bind"].sync_engine, "commit", lambda _: commits.append("commit"))

    async def start(number: int) -> None:
        async with changing("started", "run", f"key-{number}", operation_id=f"{number:026}") as change:
            await asyncio.sleep(0.05)
            change.resource_id = f"run-{number}"
            if number % 5 == 0:
                raise Conflict("no")

    with acting_as(Actor("desk", ActorKind.KEY), Trail(sessions)):
        await asyncio.gather(*(start(number) for number in range(50)), return_exceptions=True)
    found = await entries(sessions, "started")
    assert {one.resource_id for one in found} == {f"run-{number}" for number in range(50) if number % 5}
    assert {(one.id, one.outcome) for one in found} == {(f"{n:026}", "DONE") for n in range(50) if n % 5}
    assert len(commits) < 20


async def test_a_refusal_leaves_nothing_and_an_outage_leaves_started(sessions: SessionFactory) -> None:
    with acting_as(Actor("desk", ActorKind.KEY), Trail(sessions)):
        with pytest.raises(Conflict):
            async with changing("cancelled", "run", "refused"):
                raise Conflict("it has ended")
        for error in (PrefectUnavailable("no answer"), RuntimeError("a defect"), asyncio.CancelledError()):
            with pytest.raises(type(error)):
                async with changing("cancelled", "run", type(error).__name__):
                    raise error
        with within_another_change():
            async with changing("cancelled", "run", "part of another"):
                pass
    found = {one.resource_id: one.outcome for one in await entries(sessions, "cancelled")}
    assert found == dict.fromkeys(("PrefectUnavailable", "RuntimeError", "CancelledError"), "STARTED")
