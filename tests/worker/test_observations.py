"""Code observes with both workers the same, while it is imported and in a run."""

from collections.abc import Iterator

import pytest

from tests.support.stack import PrefectStack
from tests.worker.observations import differences, missing_modules, shared_draws
from tests.worker.pool import Pool, served_pool

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pools(stack: PrefectStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Pool]]:
    """A pool with a spine worker, and one with a process worker."""
    folder = tmp_path_factory.mktemp("observations")
    with (
        served_pool("spine", stack, folder / "spine") as spine,
        served_pool("process", stack, folder / "process") as process,
    ):
        for pool in (spine, process):
            pool.deploy("observes.py:observes", "observes_anew.py:observes_anew")
        yield [spine, process]


@pytest.mark.parametrize("function", ["observes", "observes_anew"])
def test_a_forked_run_observes_what_one_of_the_process_worker_does(pools: list[Pool], function: str) -> None:
    spine, process = pools
    runs = [pool.start(function) for pool in (spine, spine, process)]
    assert [run.ended() for run in runs] == ["COMPLETED"] * 3
    first, second, other = (run.fact for run in runs)
    assert "spine_worker" in first["run"]["packages"]
    assert differences(spine, first, process, other) == {}
    assert differences(spine, first, spine, second) == {}
    assert missing_modules(first, other) == []
    assert shared_draws(runs) == set()


def test_an_exception_that_nothing_catches_ends_a_forked_run_as_it_ends_an_interpreter(pools: list[Pool]) -> None:
    messages = []
    for pool in pools:
        pull = [{"prefect.deployments.steps.set_working_directory": {"directory": str(pool.project)}}]
        deployment = {
            "name": "interrupted",
            "flow_id": pool.stack.flow_id("observes"),
            "entrypoint": "interrupted.py:interrupted",
            "pull_steps": pull,
            "work_pool_name": pool.name,
        }
        made = pool.stack.post("/deployments/", deployment)
        run = pool.of(pool.stack.post(f"/deployments/{made['id']}/create_flow_run", {})["id"], "none")
        assert run.ended() == "CRASHED"
        assert (pool.project / "interrupted").read_text() == "KeyboardInterrupt"
        messages.append(run.state["message"])
    # The process worker does not name the signal.
    assert {message.replace(" (SIGINT)", "") for message in messages} == {messages[1].replace(" (SIGINT)", "")}
    assert any("-2 (SIGINT)" in message for message in messages)
