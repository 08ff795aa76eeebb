"""`POST /runs/{run_id}/cancel` while a worker picks the run up: the cancellation wins, in whatever order they come."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from uuid import uuid4

import httpx
import pytest

from tests.support.api_here import api_here
from tests.support.proxy import Proxy
from tests.support.stack import Api, PrefectStack
from tests.support.variants import one_by_default, one_in

PATIENCE = 60
RETRY = {"type": "SCHEDULED", "name": "AwaitingRetry"}
SCHEDULED = {"type": "SCHEDULED"}
LATE = {"type": "SCHEDULED", "name": "Late"}
PENDING = {"type": "PENDING"}
RUNNING = {"type": "RUNNING"}


@pytest.fixture(scope="module")
def enduring_api(stack: PrefectStack, proxy: Proxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """An API behind the proxy that waits for Prefect as long as it can be told to, for what happens meanwhile."""
    folder = tmp_path_factory.mktemp("enduring-api")
    with api_here(proxy.url, stack.home, folder, SPINE_PREFECT_DEADLINE_SECONDS="9.9") as started:
        yield started


def propose(stack: PrefectStack, run_id: str, *states: dict[str, str], later: timedelta = timedelta()) -> None:
    """Set these states one after the other, each with a time that is `later`."""
    path = f"/flow_runs/{run_id}/set_state"
    made = [stack.post(path, {"state": state, "force": True})["state"] for state in states]
    if later:
        with stack.tables() as tables:
            for state in made:
                when = tables.time(datetime.fromisoformat(state["timestamp"]) + later)
                tables.change("flow_run_state", state["id"], timestamp=when)


def history(stack: PrefectStack, run_id: str) -> set[str]:
    return {state["type"] for state in stack.get(f"/flow_run_states/?flow_run_id={run_id}")}


def state_of(stack: PrefectStack, run_id: str) -> str:
    return str(stack.get(f"/flow_runs/{run_id}")["state_type"])


@contextmanager
def cancelling(api: Api, proxy: Proxy, run_id: str, held: str = "") -> Iterator[Callable[[], httpx.Response]]:
    """A cancellation that has read the runs and has not yet proposed a state to `held`; gives its answer afterwards."""
    pool = ThreadPoolExecutor(1)
    with proxy.holding(f"/flow_runs/{held or run_id}/set_state") as proposes:
        answer = pool.submit(api.client.post, f"/workflows/runs/{run_id}/cancel")
        pool.shutdown(wait=False)
        assert proposes.wait(PATIENCE)
        yield lambda: answer.result(PATIENCE)


@pytest.mark.parametrize("later", one_by_default([timedelta(), timedelta(minutes=1)]), ids=["in order", "out of order"])
@pytest.mark.parametrize(
    ("before", "meanwhile"),
    one_in(
        3,
        [
            ([], [PENDING]),
            ([], [PENDING, RUNNING]),
            ([], [PENDING, RUNNING, RETRY]),
            ([LATE], [PENDING]),
            ([PENDING, RUNNING, {"type": "FAILED"}, RETRY], [PENDING]),
        ],
    ),
    ids=["claimed", "begun", "begun and failed", "claimed late", "claimed again"],
)
def test_a_run_that_a_worker_picks_up_meanwhile_is_stopped(
    enduring_api: Api,
    proxy: Proxy,
    stack: PrefectStack,
    before: list[dict[str, str]],
    meanwhile: list[dict[str, str]],
    later: timedelta,
) -> None:
    run_id = stack.make_run(stack.flow_id("demo.sleeper"), "SCHEDULED")
    propose(stack, run_id, *before)
    with cancelling(enduring_api, proxy, run_id) as answer:
        # Prefect gives a state its time before it takes effect, so that of the claim may be after the cancellation's.
        propose(stack, run_id, *meanwhile, later=later)
    assert answer().json()["message"].endswith("is being stopped by its worker.")
    # From CANCELLED Prefect would let the worker begin, or go on with, the run.
    assert "CANCELLING" in history(stack, run_id)


def test_a_late_mark_that_seems_to_follow_the_claim_hides_nothing(
    enduring_api: Api, proxy: Proxy, stack: PrefectStack
) -> None:
    run_id = stack.make_run(stack.flow_id("demo.sleeper"), "SCHEDULED")
    propose(stack, run_id, LATE, later=timedelta(minutes=1))
    with cancelling(enduring_api, proxy, run_id) as answer:
        propose(stack, run_id, PENDING)
    assert answer().status_code == 200
    assert "CANCELLING" in history(stack, run_id)


def test_a_run_that_a_worker_has_given_back_is_cancelled_at_once(
    enduring_api: Api, proxy: Proxy, stack: PrefectStack
) -> None:
    run_id = stack.make_run(stack.flow_id("demo.sleeper"), "SCHEDULED")
    propose(stack, run_id, PENDING, SCHEDULED)
    with cancelling(enduring_api, proxy, run_id) as answer:
        pass
    assert answer().json()["message"].endswith("is cancelled.")
    assert history(stack, run_id) == {"SCHEDULED", "PENDING", "CANCELLED"}


def test_a_run_that_ends_meanwhile_keeps_how_it_ended(enduring_api: Api, proxy: Proxy, stack: PrefectStack) -> None:
    run_id = stack.make_run(stack.flow_id("demo.sleeper"), "SCHEDULED")
    with proxy.holding("/flow_run_states/") as looks:
        with cancelling(enduring_api, proxy, run_id) as answer:
            propose(stack, run_id, PENDING)
        assert looks.wait(PATIENCE)
        propose(stack, run_id, RUNNING, {"type": "COMPLETED"})
    assert answer().status_code == 409
    assert state_of(stack, run_id) == "COMPLETED"


@pytest.mark.slow
def test_a_cancellation_that_fails_half_way_can_be_repeated(
    enduring_api: Api, proxy: Proxy, stack: PrefectStack
) -> None:
    run_id = stack.make_run(stack.flow_id("demo.sleeper"), "SCHEDULED")
    with proxy.holding("/flow_run_states/") as looks:
        with cancelling(enduring_api, proxy, run_id) as answer:
            propose(stack, run_id, PENDING, later=timedelta(minutes=1))
        assert looks.wait(PATIENCE)
        with proxy.refusing():
            assert answer().status_code == 503
    assert history(stack, run_id) == {"SCHEDULED", "PENDING", "CANCELLED"}
    assert enduring_api.client.post(f"/workflows/runs/{run_id}/cancel").status_code == 200
    assert "CANCELLING" in history(stack, run_id)


@pytest.fixture
def family(stack: PrefectStack) -> tuple[str, str]:
    """A run that is running, and a child run of a deployment that waits for a worker."""
    flow_id = stack.flow_id("demo.sleeper")
    deployed = stack.post("/deployments/", {"name": f"alone-{uuid4().hex[:6]}", "flow_id": flow_id})["id"]
    parent = stack.make_run(flow_id, "RUNNING")
    call = stack.post("/task_runs/", {"flow_run_id": parent, "task_key": "call", "dynamic_key": "0"})["id"]
    child = stack.make_run(flow_id, "SCHEDULED", parent_task_run_id=call, deployment_id=deployed)
    return parent, child


def test_a_child_run_that_a_worker_picks_up_meanwhile_is_stopped(
    enduring_api: Api, proxy: Proxy, stack: PrefectStack, family: tuple[str, str]
) -> None:
    parent, child = family
    with cancelling(enduring_api, proxy, parent, child) as answer:
        propose(stack, child, PENDING, later=timedelta(minutes=1))
    assert answer().status_code == 200
    assert "CANCELLING" in history(stack, child)
