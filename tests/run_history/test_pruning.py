"""Pruning of what grows beside alerts: what is deleted, what stays, and that a dry run only counts."""

from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from spine.database import SessionFactory, make_engine, make_sessions
from spine.run_history.pruning import prune_outcomes
from spine.sources.pruning import prune_fetches
from spine.tables import Base
from spine.tables.base import new_id, utc_now
from spine.tables.cache import CacheBlob, CacheEntry
from spine.tables.idempotency import IdempotentRequest
from spine.tables.retries import RetryClaim
from spine.tables.run_history import RunOutcome
from spine.tables.sources import Fetch, Source, SourceUse
from spine.workflows.pruning import prune_requests
from sqlalchemy import URL, delete, select

NOW = utc_now()
BEFORE = NOW - timedelta(days=90)


@pytest.fixture
async def sessions(database: URL) -> AsyncIterator[SessionFactory]:
    engine = make_engine(database)
    sessions = make_sessions(engine)
    async with sessions.begin() as session:
        for table in (Source, RunOutcome, RetryClaim, IdempotentRequest):
            await session.execute(delete(table))
    yield sessions
    await engine.dispose()


async def store(sessions: SessionFactory, *rows: Base) -> None:
    async with sessions.begin() as session:
        for row in rows:
            session.add(row)
            await session.flush()


def fetch(source: Source, status: str, days: int) -> Fetch:
    at = NOW - timedelta(days=days)
    return Fetch(id=new_id(), source_id=source.id, status=status, trigger="API", created_at=at, completed_at=at)


async def test_old_fetches_go_with_their_uses_but_not_those_that_content_came_with(sessions: SessionFactory) -> None:
    sources = [Source(id=new_id(), name=uuid4().hex, source_type="file", config={}, enabled=True) for _ in range(2)]
    old, failed, of_content, last, pending = (
        fetch(sources[0], status, days)
        for status, days in (("SUCCESS", 120), ("FAILED", 99), ("SUCCESS", 110), ("SUCCESS", 100), ("PENDING", 100))
    )
    young = fetch(sources[1], "FAILED", 10)
    use = SourceUse(run_id=uuid4(), fetch_id=old.id, capture_id="0" * 64)
    blob = CacheBlob(content_hash="0" * 64)
    entry = {"cache_key": "0", "key_hash": "0", "position": 0, "content_hash": "0" * 64, "size_bytes": 1}
    content = CacheEntry(source_id=sources[0].id, fetch_id=of_content.id, name="0", validators={}, bad_rows=0, **entry)
    await store(sessions, *sources, old, failed, of_content, last, pending, young, use, blob, content)
    assert await prune_fetches(sessions, BEFORE, dry_run=True) == 2
    assert await prune_fetches(sessions, BEFORE, dry_run=False) == 2
    async with sessions() as session:
        assert set(await session.scalars(select(Fetch.id))) == {of_content.id, last.id, pending.id, young.id}
        assert not (await session.scalars(select(SourceUse))).all()
    async with sessions.begin() as session:
        await session.execute(delete(CacheEntry))
        await session.execute(delete(CacheBlob))


def outcome(deployment: UUID, of: str, days: int) -> RunOutcome:
    at = NOW - timedelta(days=days)
    times = dict.fromkeys(("scheduled_at", "started_at", "ended_at"), at)
    return RunOutcome(run_id=uuid4(), deployment_id=deployment, state_id=uuid4(), outcome=of, **times)


async def test_old_outcomes_go_up_to_the_last_success(sessions: SessionFactory) -> None:
    failing, working = uuid4(), uuid4()
    gone = [outcome(failing, "FAILED", 130), outcome(working, "COMPLETED", 100)]
    kept = [outcome(failing, "COMPLETED", 120), outcome(failing, "FAILED", 110), outcome(failing, "FAILED", 10)]
    kept += [outcome(working, "COMPLETED", 95), outcome(working, "FAILED", 91)]
    await store(sessions, *gone, *kept)
    assert await prune_outcomes(sessions, BEFORE, dry_run=True) == 2
    assert await prune_outcomes(sessions, BEFORE, dry_run=False) == 2
    async with sessions() as session:
        assert set(await session.scalars(select(RunOutcome.run_id))) == {one.run_id for one in kept}


async def test_old_claims_and_answers_go(sessions: SessionFactory) -> None:
    claims = [
        RetryClaim(state_id=uuid4(), run_id=uuid4(), claimed_by="a", claimed_at=NOW - timedelta(days=days))
        for days in (91, 89)
    ]
    answers = [
        IdempotentRequest(
            key_hash=uuid4().hex, owner="a", route="r", body_hash="b", created_at=NOW - timedelta(hours=h)
        )
        for h in (25, 23)
    ]
    await store(sessions, *claims, *answers)
    assert await prune_requests(sessions, BEFORE, dry_run=True) == 2
    assert await prune_requests(sessions, BEFORE, dry_run=False) == 2
    async with sessions() as session:
        assert list(await session.scalars(select(RetryClaim.state_id))) == [claims[1].state_id]
        assert list(await session.scalars(select(IdempotentRequest.id))) == [answers[1].id]
