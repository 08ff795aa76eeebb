"""The follower in separate processes: killed, stopped, and started without Prefect."""

import asyncio
import json
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
from spine.run_history import follower
from spine.run_history.follower import Follower
from sqlalchemy import URL

from tests.run_history.support import Line, ago, spine_on, until
from tests.support.postgres import fresh_database
from tests.support.processes import free_port, running, wait_until
from tests.support.stack import FOLLOWING, Api, PrefectStack, api_process
from tests.support.variants import one_by_default

LEASE_SECONDS = 3.0


@pytest.fixture
def other_follower(postgresql_database: URL, stack: PrefectStack, tmp_path: Path) -> Iterator[psutil.Popen]:
    """A process that only follows."""
    database = postgresql_database.render_as_string(hide_password=False)
    command = ["tests.run_history.support", database, stack.url, str(LEASE_SECONDS)]
    with running(command, {}, tmp_path / "follower.log") as process:
        yield process


@pytest.mark.slow
async def test_another_process_takes_over_when_the_lease_owner_is_killed(
    postgresql_database: URL,
    stack: PrefectStack,
    line: Line,
    other_follower: psutil.Popen,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # So that ours tries to acquire the lease as soon as it expires.
    monkeypatch.setattr(follower, "SECONDS_BETWEEN_POLLS", 0.3)
    async with spine_on(postgresql_database, stack.url) as spine:
        await spine.begin_at(ago(seconds=1))

        async def the_other_has_the_lease() -> bool:
            return (await spine.cursor()).lease_owner is not None

        await until(the_other_has_the_lease, "the other process to acquire the lease", 30)
        lease_owner = (await spine.cursor()).lease_owner
        ours = Follower(spine.prefect, spine.sessions)
        async with ours.running():
            first = await asyncio.to_thread(line.make, "FAILED")

            async def is_recorded(run_id: str) -> bool:
                return run_id in await spine.outcomes(line.id)

            await until(lambda: is_recorded(first), "the first run")
            assert (await spine.cursor()).lease_owner == lease_owner
            other_follower.send_signal(signal.SIGKILL)
            second = await asyncio.to_thread(line.make, "COMPLETED")
            await until(lambda: is_recorded(second), "the second run")
            assert (await spine.cursor()).lease_owner not in (None, lease_owner)
            assert await spine.counts(line.id) == (2, 1, 1, 0)


@pytest.fixture(params=one_by_default(["sqlite", "postgresql"]))
def own_api(request: pytest.FixtureRequest, stack: PrefectStack, tmp_path: Path) -> Iterator[Api]:
    """An API process with its own database, which follows and which this test may stop."""
    with ExitStack() as cleanup:
        database = None
        if request.param == "postgresql":
            database = cleanup.enter_context(fresh_database(request.getfixturevalue("postgresql_url")))
        yield cleanup.enter_context(api_process(stack.url, stack.home, tmp_path, database, **FOLLOWING))


@pytest.mark.slow
async def test_an_api_process_follows_and_stops(own_api: Api, stack: PrefectStack, line: Line) -> None:
    async with spine_on(own_api.settings.sqlalchemy_url, stack.url) as spine:
        run_id = line.make("CRASHED")

        async def is_recorded() -> bool:
            return run_id in await spine.outcomes(line.id)

        await until(is_recorded, "the API to record the run", 30)
        assert await spine.counts(line.id) == (1, 0, 1, 1)
        own_api.process.terminate()
        # A follower that does not stop keeps the process for ever.
        own_api.process.wait(60)
        assert (await spine.cursor()).lease_owner is None


@pytest.mark.slow
def test_an_api_without_prefect_starts_and_logs_it_once(tmp_path: Path) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}/api"
    with api_process(nowhere, tmp_path / "home", tmp_path, **FOLLOWING, SPINE_PREFECT_DEADLINE_SECONDS="0.5") as api:

        def lines() -> list[dict[str, Any]]:
            return [json.loads(line) for line in api.log.read_text().splitlines() if line.startswith("{")]

        def kinds() -> list[str]:
            return sorted(line["kind"] for line in lines() if line["event"] == "follower_interrupted")

        both = ["EventsUnavailable", "PrefectUnavailable"]
        wait_until(lambda: set(both) <= set(kinds()), "both outages in the log")
        # Meanwhile it tries again, several times.
        time.sleep(5)
        assert kinds() == both
        assert len(lines()) < 6, lines()
