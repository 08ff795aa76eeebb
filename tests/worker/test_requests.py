"""The requests to Prefect's server that a run of three steps costs: no more than it needs."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.support.processes import wait_until
from tests.support.proxy import Proxy, proxy_to
from tests.support.stack import PrefectStack
from tests.support.variants import one_by_default
from tests.worker.pool import Pool, Run, served_pool

FLOWS = ["three_steps", "three_steps_async"]
# What `spine up` sets, and no polls and heartbeats: only what runs need.
SETTINGS = {
    "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "false",
    "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
    "PREFECT_WORKER_QUERY_SECONDS": "600",
    "PREFECT_WORKER_HEARTBEAT_SECONDS": "600",
}
OF_WORKER = {
    "POST /work_pools/POOL/get_scheduled_flow_runs": 1,
    "GET /deployments/ID": 1,
    "GET /admin/storage": 1,
    "POST /flow_runs/ID/set_state": 1,
    "PATCH /flow_runs/ID/labels": 1,
    "POST /logs/": 1,
}
OF_RUN = {
    "PATCH /flow_runs/ID": 1,
    "POST /flow_runs/ID/set_state": 2,
    "GET /flow_runs/ID": 1,
    # Its events of steps.
    "GET /events/in": 1,
    "POST /logs/": 1,
}
EXPECTED = Counter(OF_WORKER) + Counter(OF_RUN)
# A run that takes more than a second also observes suspensions.
OF_LONGER_RUN = {"GET /flow_runs/ID": 1, "GET /events/out": 1}
# Prefect's clients send records of a log when they have waited for two seconds: on a slow machine in two parts. The
# worker reads a flow again after a minute.
OF_SLOW_MACHINE = {"POST /logs/": 2, "GET /flows/ID": 1}
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")


@dataclass
class Counted:
    """A pool whose worker and runs reach Prefect's server through a proxy."""

    pool: Pool
    proxy: Proxy

    def requests_of(self, function: str) -> Counter[str]:
        """What one run has requested, until its last record is in its log."""
        before = len(self.proxy.requests)
        run = self.pool.run(function)
        wait_until(lambda: self._is_complete(run), "the labels and the log", 30)
        return Counter(_kind(line, self.pool) for line in self.proxy.requests[before:])

    def _is_complete(self, run: Run) -> bool:
        stored = self.pool.stack.get(f"/flow_runs/{run.id}")
        logged = run.logged()
        worker_is_done = any("submitted to infrastructure" in one for one in logged)
        run_is_done = any(one.startswith("Finished in state Completed") for one in logged)
        return worker_is_done and run_is_done and "prefect.worker.name" in stored["labels"]


@pytest.fixture(scope="module")
def counted(stack: PrefectStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Counted]:
    """A pool with a spine worker whose requests are counted."""
    folder = tmp_path_factory.mktemp("requests") / "spine"
    port = int(stack.url.split(":")[2].split("/")[0])
    with (
        proxy_to(port) as proxy,
        served_pool("spine", stack, folder, **SETTINGS, PREFECT_API_URL=proxy.url) as pool,
    ):
        pool.deploy(*(f"steps.py:{name}" for name in FLOWS))
        served = Counted(pool, proxy)
        for name in FLOWS:
            # Before the first run the flow may have to be imported, and the worker reads its name.
            served.requests_of(name)
        yield served


@pytest.mark.parametrize("function", one_by_default(FLOWS))
def test_a_run_of_three_steps_costs_no_request_more_than_it_needs(counted: Counted, function: str) -> None:
    found = counted.requests_of(function)
    more = found - EXPECTED - Counter(OF_LONGER_RUN) - Counter(OF_SLOW_MACHINE)
    assert not more, f"{dict(more)} more than expected of {dict(found)}"
    assert not EXPECTED - found


def test_a_run_has_what_fewer_requests_store(counted: Counted) -> None:
    run = counted.pool.run("three_steps")
    wait_until(lambda: counted._is_complete(run), "the labels and the log", 30)
    stored = counted.pool.stack.get(f"/flow_runs/{run.id}")
    assert int(stored["infrastructure_pid"]) > 0
    assert stored["labels"]["prefect.work-pool.name"] == counted.pool.name
    assert stored["flow_version"]
    assert stored["empirical_policy"]["retries"] == 0
    states = counted.pool.stack.get(f"/flow_run_states/?flow_run_id={run.id}")
    assert [one["name"] for one in sorted(states, key=lambda one: one["timestamp"])] == [
        *("Scheduled", "Pending", "Running", "Completed")
    ]


def test_events_of_steps_name_all_that_they_are_part_of(counted: Counted) -> None:
    pool = counted.pool
    run = pool.run("three_steps")
    deployment = pool.deployment("three_steps")
    which = {
        "filter": {"related": {"id": [f"prefect.flow-run.{run.id}"]}, "event": {"name": ["prefect.task-run.Completed"]}}
    }
    found: list[dict[str, str]] = []

    def are_stored() -> bool:
        events = pool.stack.post("/events/filter", which)["events"]
        found[:] = [one for event in events for one in event["related"]]
        return len(events) == 3

    wait_until(are_stored, "the events of the steps", 30)
    names = {(one["prefect.resource.role"], one.get("prefect.resource.name")) for one in found}
    assert {
        ("flow", "three-steps"),
        ("deployment", deployment["name"]),
        ("work-queue", "default"),
        ("work-pool", pool.name),
    } <= names
    ids = {one["prefect.resource.id"] for one in found}
    assert f"prefect.deployment.{deployment['id']}" in ids
    assert f"prefect.work-queue.{deployment['work_queue_id']}" in ids


def _kind(line: str, pool: Pool) -> str:
    """A request without ids and its query, such as `GET /flow_runs/ID`."""
    method, path, _ = line.split(" ")
    path = path.partition("?")[0].removeprefix("/api").replace(pool.name, "POOL")
    return f"{method} {_ID.sub('ID', path)}"


def test_a_server_that_fails_for_a_while_ends_no_worker(counted: Counted) -> None:
    with counted.proxy.failing("/deployments/") as failed:
        first = counted.pool.start("three_steps")
        assert failed.wait(30)
    # Its event starts a poll, as the time does elsewhere.
    second = counted.pool.start("three_steps")
    assert (first.ended(), second.ended()) == ("COMPLETED", "COMPLETED")
