"""Statistics are exact when they are read, whether or not a follower runs."""

import asyncio
from uuid import uuid4

import pytest
from spine.run_history.follower import Follower
from spine.run_history.ingest import catch_up
from spine.run_history.statistics import Statistics, read_statistics
from sqlalchemy import URL

from tests.run_history.support import Line, Spine, ago, spine_on
from tests.support.proxy import proxy_to
from tests.support.stack import PrefectStack


async def numbers(spine: Spine, line: Line) -> tuple[int, int, int, int]:
    found = (await read_statistics(spine.prefect, spine.sessions, [line.id]))[line.id]
    return found.run_count, found.success_count, found.failure_count, found.consecutive_failures


async def test_statistics_are_exact_in_every_state_without_a_follower(
    database: URL, stack: PrefectStack, line: Line
) -> None:
    async with spine_on(database, stack.url) as spine:
        await spine.begin_at(ago(seconds=1))
        run_id = line.make("SCHEDULED")
        # States of one run and the expected counts: a retried run counts once, a waiting run does not count.
        story = [
            ("SCHEDULED", None, (0, 0, 0, 0)),
            ("PENDING", None, (0, 0, 0, 0)),
            ("RUNNING", None, (1, 0, 0, 0)),
            ("PAUSED", None, (1, 0, 0, 0)),
            ("SCHEDULED", "Resuming", (1, 0, 0, 0)),
            ("PENDING", None, (1, 0, 0, 0)),
            ("RUNNING", None, (1, 0, 0, 0)),
            ("SCHEDULED", "AwaitingRetry", (1, 0, 0, 0)),
            ("RUNNING", "Retrying", (1, 0, 0, 0)),
            ("CANCELLING", None, (1, 0, 0, 0)),
            ("FAILED", None, (1, 0, 1, 1)),
            ("SCHEDULED", "AwaitingRetry", (1, 0, 1, 1)),
            ("RUNNING", None, (1, 0, 1, 1)),
            ("COMPLETED", None, (1, 1, 0, 0)),
        ]
        for state, name, expected in story:
            line.put(run_id, state, **({"name": name} if name else {}))
            assert await numbers(spine, line) == expected, (state, name)


async def test_a_run_that_is_cancelled_before_it_starts_counts_only_after_it_runs(
    database: URL, stack: PrefectStack, line: Line
) -> None:
    async with spine_on(database, stack.url) as spine:
        await spine.begin_at(ago(seconds=1))
        run_id = line.run_through("CANCELLED")
        assert await read_statistics(spine.prefect, spine.sessions, [line.id]) == {line.id: Statistics()}
        for state, runs in (("SCHEDULED", 0), ("RUNNING", 1), ("CANCELLED", 1)):
            line.put(run_id, state)
            assert await numbers(spine, line) == (runs, 0, 0, 0), state


async def test_the_last_run_is_the_newest_that_started(database: URL, stack: PrefectStack, line: Line) -> None:
    async with spine_on(database, stack.url) as spine:
        await spine.begin_at(ago(seconds=1))
        done, running = line.run_through("RUNNING", "COMPLETED"), line.run_through("RUNNING")
        line.run_through("CANCELLED")
        nothing = uuid4()
        found = await read_statistics(spine.prefect, spine.sessions, [line.id, nothing])
        (started,) = [run.start_time for run in await line.read(spine, running)]
        assert found == {line.id: Statistics(run_count=2, success_count=1, last_run_at=started), nothing: Statistics()}
        line.put(running, "COMPLETED")
        found = await read_statistics(spine.prefect, spine.sessions, [line.id])
        assert found == {line.id: Statistics(run_count=2, success_count=2, last_run_at=started)}
        assert set(await spine.outcomes(line.id)) >= {done, running}


async def test_a_page_of_deployments_costs_two_calls_of_prefect(
    sqlite_database: URL, stack: PrefectStack, line: Line
) -> None:
    with proxy_to(int(stack.url.split(":")[2].split("/")[0])) as proxy:
        async with spine_on(sqlite_database, proxy.url) as spine:
            await spine.begin_at(ago(seconds=1))
            line.make("COMPLETED")
            assert await read_statistics(spine.prefect, spine.sessions, []) == {}
            await numbers(spine, line)
            proxy.requests.clear()
            others = [uuid4() for _ in range(99)]
            line.make("FAILED")
            found = await read_statistics(spine.prefect, spine.sessions, [line.id, *others])
            assert (len(found), found[line.id].run_count) == (100, 2)
            assert proxy.requests == ["POST /api/flow_runs/filter HTTP/1.1"] * 2


@pytest.mark.slow
async def test_far_behind_the_cursor_only_runs_in_progress_are_added(
    either_database: URL, stack: PrefectStack, line: Line
) -> None:
    async with spine_on(either_database, stack.url) as spine:
        first = line.make("COMPLETED")
        line.copy(first, [ago(hours=2, seconds=number) for number in range(210)])
        line.make("RUNNING")
        for begin in (None, ago(hours=3)):
            await spine.begin_at(begin)
            assert await numbers(spine, line) == (1, 0, 0, 0)
            assert await spine.outcomes(line.id) == {}
        await catch_up(spine.prefect, spine.sessions, lambda: asyncio.sleep(0))
        assert await numbers(spine, line) == (212, 211, 0, 0)


async def test_before_the_first_full_read_a_short_history_is_exact(
    database: URL, stack: PrefectStack, line: Line
) -> None:
    async with spine_on(database, stack.url) as spine:
        await spine.begin_at(None)
        first = line.make("FAILED")
        line.copy(first, [ago(days=1)])
        assert await numbers(spine, line) == (2, 0, 2, 2)


async def test_concurrent_readers_and_a_follower_never_show_a_wrong_count(
    database: URL, stack: PrefectStack, line: Line
) -> None:
    async with spine_on(database, stack.url) as spine, spine_on(database, stack.url) as other:
        await spine.begin_at(ago(seconds=1))
        run_ids = [line.make("RUNNING") for _ in range(12)]
        done = asyncio.Event()

        async def read() -> list[int]:
            seen = []
            while not done.is_set():
                seen += [(await numbers(reader, line))[0] for reader in (spine, other)]
            return seen

        async with Follower(spine.prefect, spine.sessions).running():
            readers = [asyncio.create_task(read()) for _ in range(3)]
            for run_id in run_ids:
                await asyncio.to_thread(line.put, run_id, "COMPLETED")
            done.set()
            seen = [count for counts in await asyncio.gather(*readers) for count in counts]
        assert set(seen) == {12}
        assert await numbers(spine, line) == (12, 12, 0, 0)
