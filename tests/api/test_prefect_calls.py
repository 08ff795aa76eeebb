"""How many requests of Prefect each route takes, counted by a proxy: they are what its time is made of."""

from collections import Counter
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.support.proxy import Proxy
from tests.support.stack import Api, PrefectStack

COUNT, RUNS, DEPLOYMENTS = "/flow_runs/count", "/flow_runs/filter", "/deployments/filter"


@pytest.fixture
def fewest(proxy: Proxy) -> Callable[[Callable[[], httpx.Response]], Counter[str]]:
    """Sends a request several times and gives the fewest requests of Prefect that it took, with ids left out.

    The first answer fills what is kept in memory, and what other tests change meanwhile costs requests, too.
    """

    def sent(request: Callable[[], httpx.Response]) -> Counter[str]:
        proxy.requests.clear()
        response = request()
        assert response.is_success, response.text
        paths = [line.split()[1].removeprefix("/api") for line in proxy.requests]
        return Counter("/".join("*" if len(part) == 36 else part for part in path.split("/")) for path in paths)

    return lambda request: min((sent(request) for _ in range(4)), key=Counter.total)


@pytest.fixture
def workflow(stack: PrefectStack) -> str:
    """A copy of `demo.typed` that no worker runs."""
    pool = f"nobody-{uuid4().hex[:6]}"
    stack.post("/work_pools/", {"name": pool, "type": "process"})
    return stack.copy_deployment("demo.typed", pool)


def test_a_list_of_runs(proxied_api: Api, stack: PrefectStack, fewest: Any) -> None:
    name = f"counted.{uuid4().hex[:8]}"
    for state in ("COMPLETED", "RUNNING", "COMPLETED", "SCHEDULED"):
        stack.make_run(stack.flow_id(name), state)

    def page(**query: Any) -> Callable[[], httpx.Response]:
        return lambda: proxied_api.client.get("/workflows/runs", params={"workflow_name": name, **query})

    # Rows and total in one; two counts of the runs that are not planned but lie in the future; two for the steps.
    steps = {"/ui/flow_runs/count-task-runs": 1, "/task_runs/filter": 1}
    assert fewest(page()) == {"/flow_runs/paginate": 1, COUNT: 2, **steps}
    assert fewest(page(limit=1, offset=1)) == {RUNS: 1, COUNT: 3, **steps}
    # Runs that no worker has taken have no steps, and no filter of these leaves planned runs to be set apart.
    assert fewest(page(status="PENDING", trigger="MANUAL")).total() <= 4
    assert fewest(page(status="COMPLETED")) == {"/flow_runs/paginate": 1, **steps}


def test_a_run(proxied_api: Api, stack: PrefectStack, fewest: Any) -> None:
    run_id = stack.make_run(stack.flow_id(f"counted.{uuid4().hex[:8]}"), "RUNNING")
    path = f"/workflows/runs/{run_id}"
    assert fewest(lambda: proxied_api.client.get(path)) == {"/flow_runs/*": 1, "/task_runs/filter": 1}


def test_a_trigger_that_hears_no_events(proxied_api: Api, workflow: str, fewest: Any) -> None:
    body = {"params": {"day": "2025-12-15", "tier": "A"}}
    trigger = fewest(lambda: proxied_api.client.post(f"/workflows/trigger/{workflow}", json=body))
    assert trigger == {DEPLOYMENTS: 1, "/deployments/*/create_flow_run": 1}


def test_a_fetch(proxied_api: Api, fewest: Any) -> None:
    def fetch() -> httpx.Response:
        config = {"url": f"https://files.example.com/{uuid4().hex}.csv"}
        source = {"name": f"counted-{uuid4().hex[:8]}", "source_type": "http", "config": config}
        made = proxied_api.client.post("/sources", json=source)
        assert made.status_code == 201, made.text
        return proxied_api.client.post(f"/sources/{made.json()['id']}/fetch")

    assert fewest(fetch) == {"/deployments/*/create_flow_run": 1}


@pytest.mark.slow
def test_schedules(proxied_api: Api, stack: PrefectStack, workflow: str, fewest: Any) -> None:
    def create() -> httpx.Response:
        body = {"name": f"counted-{uuid4().hex[:8]}", "target_type": "WORKFLOW", "target_name": workflow}
        params = {"day": "2025-12-15", "tier": "A"}
        timing = {"cron_expression": "0 3 1 1 *"}
        return proxied_api.client.post("/schedules", json={**body, "target_params": params, **timing})

    # The workflow and the name are looked for, the deployment is made, and its runs are planned.
    assert fewest(create) == {DEPLOYMENTS: 2, "/deployments/": 1, "/deployments/*/schedule": 1}

    schedule_id = create().json()["id"]
    run_now = fewest(lambda: proxied_api.client.post(f"/schedules/{schedule_id}/run-now"))
    assert run_now == {"/deployments/*": 1, "/deployments/*/create_flow_run": 1}

    # The page and its total, the deployments without a schedule, runs in progress, runs that ended, runs that were
    # dropped. Beyond the first page also the newest deployments.
    page = fewest(lambda: proxied_api.client.get("/schedules"))
    assert page == {DEPLOYMENTS: 2, "/deployments/count": 1, RUNS: 3}
    later = fewest(lambda: proxied_api.client.get("/schedules", params={"offset": 1, "limit": 2}))
    assert later == {DEPLOYMENTS: 3, "/deployments/count": 1, RUNS: 3}

    # The planned runs, their deployments, those that run at the time of the last, and the runs that were dropped.
    preview = fewest(lambda: proxied_api.client.get("/schedules/preview-next", params={"count": 2}))
    assert preview.total() <= 4


def test_the_requests_for_a_page_do_not_depend_on_its_size(proxied_api: Api, stack: PrefectStack, fewest: Any) -> None:
    name = f"counted.{uuid4().hex[:8]}"
    for _ in range(12):
        stack.make_run(stack.flow_id(name), "COMPLETED")

    def page(limit: int) -> Counter[str]:
        query: dict[str, Any] = {"workflow_name": name, "limit": limit}
        found: Counter[str] = fewest(lambda: proxied_api.client.get("/workflows/runs", params=query))
        return found

    assert page(12) == page(3)
