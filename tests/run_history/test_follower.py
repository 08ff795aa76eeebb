"""The follower: at once with Prefect's event stream, within seconds without it, and across outages."""

import asyncio
import time
from collections.abc import Iterator, MutableMapping
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from spine.database import SessionFactory
from spine.errors import PrefectUnavailable
from spine.prefect.client import Prefect
from spine.run_history import follower
from spine.run_history.follower import Follower
from sqlalchemy import URL
from structlog.testing import capture_logs

from tests.run_history.support import Line, Spine, ago, spine_on, until
from tests.support.proxy import Proxy, proxy_to
from tests.support.stack import PrefectStack


@pytest.fixture
def gate(stack: PrefectStack) -> Iterator[Proxy]:
    """A proxy to Prefect that this test may close."""
    with proxy_to(int(stack.url.split(":")[2].split("/")[0])) as proxy:
        yield proxy


@pytest.fixture
def no_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turn polling off, so that only events cause anything."""
    monkeypatch.setattr(follower, "SECONDS_BETWEEN_POLLS", 600.0)
    monkeypatch.setattr(follower, "SECONDS_BETWEEN_CHORES", 600.0)


async def recorded(spine: Spine, line: Line, run_id: str, outcome: str, seconds: float = 15) -> float:
    """How long it takes until a run is recorded with this outcome."""

    async def is_recorded() -> bool:
        return (await spine.outcomes(line.id)).get(run_id) == outcome

    return await until(is_recorded, f"{run_id} to be recorded as {outcome}", seconds)


async def lease_acquired(spine: Spine) -> None:
    """Wait until a follower has the lease."""

    async def is_acquired() -> bool:
        return (await spine.cursor()).lease_owner is not None

    await until(is_acquired, "a follower to have the lease")


@pytest.mark.usefixtures("no_polling")
async def test_an_event_records_each_outcome_at_once(either_database: URL, stack: PrefectStack, line: Line) -> None:
    async with spine_on(either_database, stack.url) as spine:
        (old,) = line.copy(line.make("FAILED"), [ago(days=1)])
        await spine.begin_at(ago(days=1))
        async with Follower(spine.prefect, spine.sessions).running():
            await recorded(spine, line, old, "FAILED")
            for outcome in ("COMPLETED", "FAILED", "CANCELLED"):
                run_id = await asyncio.to_thread(line.run_through, "RUNNING", outcome)
                assert await recorded(spine, line, run_id, outcome) < 3
            # A run that ended long ago keeps its end time; only the event shows that its outcome has changed.
            await asyncio.to_thread(line.put, old, "COMPLETED")
            assert await recorded(spine, line, old, "COMPLETED") < 3


@pytest.mark.slow
async def test_without_the_stream_the_follower_polls_every_few_seconds(
    sqlite_database: URL, gate: Proxy, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "SECONDS_BETWEEN_POLLS", 0.5)
    gate.streams = False
    with capture_logs() as logs:
        async with spine_on(sqlite_database, gate.url) as spine:
            await spine.begin_at(ago(seconds=1))
            async with Follower(spine.prefect, spine.sessions).running():
                for outcome in ("COMPLETED", "FAILED"):
                    run_id = await asyncio.to_thread(line.make, outcome)
                    assert await recorded(spine, line, run_id, outcome) < 3
                await asyncio.sleep(follower.SECONDS_AFTER_AN_ERROR)
    assert [(entry["event"], entry["kind"]) for entry in logs] == [("follower_interrupted", "EventsUnavailable")]


async def test_an_outage_of_prefect_leaves_no_gap_and_logs_its_start_and_end(
    either_database: URL, gate: Proxy, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "SECONDS_BETWEEN_POLLS", 0.3)
    monkeypatch.setattr(follower, "SECONDS_AFTER_AN_ERROR", 0.3)
    with capture_logs() as logs:
        async with spine_on(either_database, gate.url, deadline_seconds=0.5) as spine:
            await spine.begin_at(ago(seconds=1))
            async with Follower(spine.prefect, spine.sessions).running():
                await recorded(spine, line, before := await asyncio.to_thread(line.make, "COMPLETED"), "COMPLETED")
                with gate.refusing():
                    during = await asyncio.to_thread(line.make, "FAILED")
                    await asyncio.sleep(2)
                    assert set(await spine.outcomes(line.id)) == {before}
                await recorded(spine, line, during, "FAILED")
                assert await spine.counts(line.id) == (2, 1, 1, 1)

                async def both_resumed() -> bool:
                    return {last for _, last in begun_and_ended(logs)} == {"follower_resumed"}

                await until(both_resumed, "both log lines")
    # On a busy machine a call may miss its short deadline; that is an outage of its own, with its own start and end.
    assert begun_and_ended(logs) == [("follower_interrupted", "follower_resumed")] * 2


def begun_and_ended(logs: list[MutableMapping[str, Any]]) -> list[tuple[str, str]]:
    """The first and the last log line about what failed, for the events and for Prefect; each in turn."""
    found = []
    for kind in ("EventsUnavailable", "PrefectUnavailable"):
        lines = [str(entry["event"]) for entry in logs if entry["kind"] == kind]
        assert all(one != other for one, other in pairwise(lines)), lines
        found += [(lines[0], lines[-1])] if lines else []
    return found


@pytest.mark.slow
async def test_the_follower_recovers_after_prefect_hangs(
    sqlite_database: URL, gate: Proxy, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "SECONDS_AFTER_AN_ERROR", 0.3)
    async with spine_on(sqlite_database, gate.url, deadline_seconds=0.5) as spine:
        await spine.begin_at(ago(seconds=1))
        async with Follower(spine.prefect, spine.sessions).running():
            await lease_acquired(spine)
            with gate.hanging():
                run_id = await asyncio.to_thread(line.make, "COMPLETED")
                await asyncio.sleep(1.5)
            await recorded(spine, line, run_id, "COMPLETED")


async def test_runs_that_ended_while_no_follower_ran_are_counted_afterwards(
    database: URL, stack: PrefectStack, line: Line
) -> None:
    async with spine_on(database, stack.url) as spine:
        await spine.begin_at(ago(seconds=1))
        async with Follower(spine.prefect, spine.sessions).running():
            retried = await asyncio.to_thread(line.run_through, "RUNNING", "FAILED")
            await recorded(spine, line, retried, "FAILED")
    for state in ("SCHEDULED", "RUNNING", "COMPLETED"):
        line.put(retried, state)
    missed = [line.run_through("RUNNING", outcome) for outcome in ("COMPLETED", "CRASHED", "CANCELLED")]
    async with spine_on(database, stack.url) as spine, Follower(spine.prefect, spine.sessions).running():
        await recorded(spine, line, missed[-1], "CANCELLED")
        assert await spine.counts(line.id) == (4, 2, 1, 1)


async def test_two_followers_at_once_count_exactly(
    postgresql_database: URL, stack: PrefectStack, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A lease that has expired already stops no process: the worst case of a broken clock.
    monkeypatch.setattr(follower, "LEASE", timedelta(seconds=-1))
    async with (
        spine_on(postgresql_database, stack.url) as one,
        spine_on(postgresql_database, stack.url) as other,
    ):
        await one.begin_at(ago(seconds=1))
        followers = [Follower(spine.prefect, spine.sessions) for spine in (one, other)]
        async with followers[0].running(), followers[1].running():
            for number in range(24):
                outcome = ("COMPLETED", "FAILED", "CRASHED")[number % 3]
                run_id = await asyncio.to_thread(line.make, outcome)
                if number % 6 == 1:
                    await asyncio.to_thread(line.put, run_id, "COMPLETED")
            await recorded(one, line, run_id, "FAILED")
            # Four runs were forced from failed to completed; two failures came after the last success.
            assert await one.counts(line.id) == (24, 12, 12, 2)


@pytest.mark.usefixtures("no_polling")
async def test_stopping_waits_for_no_pause_and_releases_the_lease(
    either_database: URL, stack: PrefectStack, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "LEASE", timedelta(hours=1))
    async with spine_on(either_database, stack.url) as spine:
        await spine.begin_at(ago(seconds=1))
        async with Follower(spine.prefect, spine.sessions).running():
            await recorded(spine, line, await asyncio.to_thread(line.make, "FAILED"), "FAILED")
            began = time.monotonic()
        # The pauses take ten minutes, and the lease an hour.
        assert time.monotonic() - began < 60

        async def is_released() -> bool:
            return (await spine.cursor()).lease_owner is None

        await until(is_released, "the lease to be released")
        async with Follower(spine.prefect, spine.sessions).running():
            await recorded(spine, line, await asyncio.to_thread(line.make, "COMPLETED"), "COMPLETED")


@pytest.mark.slow
async def test_stopping_is_quick_at_any_moment(sqlite_database: URL, stack: PrefectStack, line: Line) -> None:
    slowest = 0.0
    async with spine_on(sqlite_database, stack.url) as spine:
        await spine.begin_at(ago(seconds=1))
        for number in range(12):
            async with Follower(spine.prefect, spine.sessions).running():
                await asyncio.to_thread(line.make, "COMPLETED")
                await asyncio.sleep(number * 0.02)
                began = time.monotonic()
            slowest = max(slowest, time.monotonic() - began)
    # Its two steps have limits of less than half a second each; on a busy machine they end later.
    assert slowest < 5


class Counting:
    """A chore that counts how often it ran."""

    def __init__(self) -> None:
        self.done = 0

    async def run(self, prefect: Prefect, sessions: SessionFactory) -> None:
        self.done += 1


class Failing(Counting):
    """A chore that never succeeds."""

    async def run(self, prefect: Prefect, sessions: SessionFactory) -> None:
        await super().run(prefect, sessions)
        raise PrefectUnavailable("not today") if self.done % 2 else RuntimeError("a defect")


class Slow(Counting):
    """A chore that never ends."""

    async def run(self, prefect: Prefect, sessions: SessionFactory) -> None:
        await super().run(prefect, sessions)
        await asyncio.Event().wait()


async def test_a_failing_chore_is_repeated_and_stops_neither_other_chores_nor_the_ingest(
    sqlite_database: URL, stack: PrefectStack, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "SECONDS_BETWEEN_CHORES", 0.05)
    failing, counting = Failing(), Counting()
    with capture_logs() as logs:
        async with spine_on(sqlite_database, stack.url) as spine:
            await spine.begin_at(ago(seconds=1))
            async with Follower(spine.prefect, spine.sessions, [failing, counting]).running():
                await recorded(spine, line, await asyncio.to_thread(line.make, "COMPLETED"), "COMPLETED")
                await asyncio.sleep(0.5)
    assert failing.done == pytest.approx(counting.done, abs=1)
    assert counting.done > 4
    events = [(entry["event"], entry["work"], entry["kind"]) for entry in logs]
    assert events == [
        ("follower_interrupted", "Failing", "PrefectUnavailable"),
        ("follower_failed", "Failing", "RuntimeError"),
    ]


async def test_a_slow_chore_delays_no_outcome(sqlite_database: URL, stack: PrefectStack, line: Line) -> None:
    slow = Slow()
    async with spine_on(sqlite_database, stack.url) as spine:
        await spine.begin_at(ago(seconds=1))
        async with Follower(spine.prefect, spine.sessions, [slow]).running():
            await lease_acquired(spine)
            assert await recorded(spine, line, await asyncio.to_thread(line.make, "COMPLETED"), "COMPLETED") < 3
    assert slow.done == 1


@pytest.mark.usefixtures("no_polling")
async def test_a_changed_deployment_runs_the_chores_at_once(
    sqlite_database: URL, stack: PrefectStack, line: Line
) -> None:
    chore = Counting()
    async with spine_on(sqlite_database, stack.url) as spine:
        await spine.begin_at(ago(seconds=1))
        async with Follower(spine.prefect, spine.sessions, [chore]).running():
            # The events of the previous minute arrive first.
            await until(lambda: _at_least(chore, 1), "the first run of the chore")
            await asyncio.sleep(1)
            before = chore.done
            await asyncio.to_thread(stack.patch, f"/deployments/{line.id}", {"description": "changed"})
            assert await until(lambda: _at_least(chore, before + 1), "the chore to run") < 3


async def _at_least(chore: Counting, times: int) -> bool:
    return chore.done >= times
