"""Workers and processes that are gone without a word, on Prefect's own server with Prefect's own settings.

Everything is started and killed at once, because Spine waits for heartbeats: the tests then look at what became of it.
"""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.support.prefect_processes import STOCK, prefect_environment, prefect_server
from tests.support.processes import free_port, wait_until
from tests.support.stack import FOLLOWING, Api, PrefectStack, api_process
from tests.worker.pool import Pool, Run, served_pool, serving

pytestmark = pytest.mark.slow

SECONDS_TO_CRASH = 90
SECONDS_TO_CANCEL = 30


@dataclass
class Scene:
    """What was started, and when it was killed."""

    api: Api
    killed: Pool
    orphaned: Pool
    runs: dict[str, Run]
    at: float

    def ended(self, name: str, within: float) -> str:
        """The type of the state in which a run ended, so many seconds after the kill at most."""
        return self.runs[name].ended(within - (time.time() - self.at))


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectStack]:
    """A server as `prefect server start` gives it, which takes 300 s for a run that nobody cancels."""
    folder = tmp_path_factory.mktemp("lost-workers")
    environment = prefect_environment(folder / "prefect", free_port())
    environment = {name: value for name, value in environment.items() if "CANCELLATION_CLEANUP" not in name}
    with prefect_server(environment, folder / "server.log", STOCK):
        yield PrefectStack(environment["PREFECT_API_URL"], folder / "prefect", {**os.environ, **environment})


@pytest.fixture(scope="module")
def scene(stack: PrefectStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A machine that dies with its worker, a worker that is killed alone, and processes that vanish."""
    folder = tmp_path_factory.mktemp("scene")
    often = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}
    with ExitStack() as cleanup:
        api = cleanup.enter_context(api_process(stack.url, stack.home, folder / "api", **FOLLOWING))
        killed = cleanup.enter_context(served_pool("spine", stack, folder / "killed"))
        living = cleanup.enter_context(served_pool("spine", stack, folder / "living"))
        orphaned = cleanup.enter_context(served_pool("process", stack, folder / "orphaned", **often))
        plain = cleanup.enter_context(served_pool("process", stack, folder / "plain", **often))
        deploy(killed, "sleeps_at_first")
        deploy(killed, "sleeps_for", concurrency_limit=1)
        killed.deploy("launches.py:ignores_sigterm")
        for pool in (living, orphaned, plain):
            deploy(pool, "sleeps_for", "vanishes")
        runs = {
            "with a limit": killed.start("sleeps_for"),
            "with retries": killed.start("sleeps_at_first"),
            "cancelled": killed.start("ignores_sigterm"),
            "of the killed worker": orphaned.start("sleeps_for", seconds=150),
            "of a living worker": living.start("sleeps_for", seconds=150),
        }
        assert all(run.fact for run in runs.values())
        # By then the workers have given the runs their labels, and the first heartbeats are stored.
        time.sleep(10)
        machine = [killed.worker, *killed.worker.children(recursive=True)]
        for process in [*machine, orphaned.worker]:
            process.kill()
        at = time.time()
        runs |= {"vanished": living.start("vanishes"), "vanished from Prefect's worker": plain.start("vanishes")}
        answer = api.client.post(f"/workflows/runs/{runs['cancelled'].id}/cancel")
        assert answer.status_code == 200
        yield Scene(api, killed, orphaned, runs, at)


def deploy(pool: Pool, *flows: str, **more: object) -> None:
    """Deploy flows of the project, without the variables that other tests give their runs."""
    pool.deploy(*(f"launches.py:{flow}" for flow in flows), work_pool={"name": pool.name}, **more)


def test_a_process_that_vanishes_from_a_spine_worker_crashes_its_run_at_once(scene: Scene) -> None:
    run = scene.runs["vanished"]
    assert run.ended(30) == "CRASHED"
    assert "without a report" in run.state["message"]


def test_the_cancellation_of_a_run_whose_machine_is_gone_ends_within_half_a_minute(scene: Scene) -> None:
    assert scene.ended("cancelled", SECONDS_TO_CANCEL) == "CANCELLED"


def test_the_runs_of_a_machine_that_is_gone_crash_within_90_seconds_and_say_why(scene: Scene) -> None:
    assert scene.ended("with a limit", SECONDS_TO_CRASH) == "CRASHED"
    message = scene.runs["with a limit"].state["message"]
    assert "no sign of life" in message
    assert scene.killed.name in message
    assert scene.runs["with retries"].becomes("CRASHED", "SCHEDULED", seconds=5)


def test_a_process_that_vanishes_from_prefects_worker_crashes_its_run_within_90_seconds(scene: Scene) -> None:
    assert scene.ended("vanished from Prefect's worker", SECONDS_TO_CRASH + 10) == "CRASHED"


def test_lost_runs_are_alerted(scene: Scene) -> None:
    names = ("with a limit", "with retries", "vanished", "vanished from Prefect's worker")
    ids = {scene.runs[name].id for name in names}

    def alerted() -> bool:
        alerts = scene.api.get("/alerts", limit=100)["data"]
        return ids <= {scene.api.get(f"/alerts/{alert['id']}")["run_id"] for alert in alerts}

    wait_until(alerted, "the alerts", 20)


def test_another_worker_retries_what_has_retries_and_finds_the_slots_free(scene: Scene) -> None:
    with serving(scene.killed):
        # It is CRASHED until its alert is raised.
        assert scene.runs["with retries"].becomes("COMPLETED", seconds=180) == "COMPLETED"
        assert [fact["attempt"] for fact in scene.runs["with retries"].facts] == [1, 2]
        assert scene.killed.start("sleeps_for", seconds=1).ended() == "COMPLETED"


def test_runs_that_live_are_left_alone(scene: Scene) -> None:
    for name in ("of the killed worker", "of a living worker"):
        assert scene.ended(name, 200) == "COMPLETED", name
    orphan = scene.runs["of the killed worker"]
    assert [fact.get("attempt") for fact in orphan.facts] == [1, 1]
    assert scene.orphaned.worker.wait(5) is not None
