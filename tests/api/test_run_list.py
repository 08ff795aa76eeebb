"""`GET /runs`: filters, pages, and the number of requests to Prefect."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from spine.workflows.labels import API_TAG

from tests.support.processes import wait_until
from tests.support.proxy import Proxy
from tests.support.stack import Api, PrefectStack
from tests.support.variants import one_by_default

NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)
# Schedules that count from here plan nothing that falls due while a test runs.
HALF_AN_HOUR_AGO = (datetime.now(UTC) - timedelta(minutes=30)).isoformat()


def listed(api: Api, **query: Any) -> list[dict[str, Any]]:
    data: list[dict[str, Any]] = api.get("/workflows/runs", limit=100, **query)["data"]
    return data


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return [row["run_id"] for row in rows]


@pytest.fixture
def flow(stack: PrefectStack) -> tuple[str, str]:
    """The name and id of a flow that no other test uses."""
    name = f"listed.{uuid4().hex}"
    return name, stack.flow_id(name)


def scheduled(when: datetime, **details: Any) -> dict[str, Any]:
    return {"type": "SCHEDULED", "state_details": {"scheduled_time": when.isoformat()}, **details}


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("SCHEDULED", "PENDING"),
        ("PENDING", "PENDING"),
        ("RUNNING", "RUNNING"),
        ("PAUSED", "RUNNING"),
        ("CANCELLING", "RUNNING"),
        ("COMPLETED", "COMPLETED"),
        ("FAILED", "FAILED"),
        ("CRASHED", "FAILED"),
        ("CANCELLED", "CANCELLED"),
    ],
)
def test_each_state_of_prefect_has_one_status_and_is_found_by_it(
    api: Api, stack: PrefectStack, flow: tuple[str, str], state: str, status: str
) -> None:
    name, flow_id = flow
    run_id = stack.make_run(flow_id, state)
    (run,) = listed(api, workflow_name=name)
    assert (run["run_id"], run["status"]) == (run_id, status)
    for asked in ("PENDING", "running", "Completed", "FAILED", "CANCELLED"):
        expected = [run_id] if asked.upper() == status else []
        assert ids(listed(api, workflow_name=name, status=asked)) == expected


def test_runs_that_a_schedule_only_planned_are_not_listed(api: Api, stack: PrefectStack, flow: tuple[str, str]) -> None:
    name, flow_id = flow
    deployment = stack.post(
        "/deployments/",
        {
            "name": "planned",
            "flow_id": flow_id,
            "work_pool_name": "spine",
            "tags": ["domain:planned"],
            "schedules": [{"schedule": {"interval": 3600, "anchor_date": HALF_AN_HOUR_AGO}, "active": True}],
        },
    )
    planned: list[dict[str, Any]] = []

    def is_planned() -> bool:
        of_flow = {"flows": {"name": {"any_": [name]}}, "sort": "START_TIME_ASC"}
        planned[:] = stack.post("/flow_runs/filter", of_flow)
        return len(planned) >= 3

    wait_until(is_planned, "Prefect's scheduler to plan runs", 30)
    for query in ({}, {"status": "PENDING"}, {"trigger": "SCHEDULE"}, {"domain": "planned"}):
        body = api.get("/workflows/runs", workflow_name=name, **query)
        assert (body["data"], body["pagination"]["total"]) == ([], 0)
    # One of them is cancelled before it is due, one starts early: neither is a mere plan any more.
    for run, state in zip(planned, ("CANCELLED", "RUNNING"), strict=False):
        stack.post(f"/flow_runs/{run['id']}/set_state", {"state": {"type": state}, "force": True})
    body = api.get("/workflows/runs", workflow_name=name)
    assert {row["status"] for row in body["data"]} == {"CANCELLED", "RUNNING"}
    assert body["pagination"]["total"] == 2
    assert {(row["trigger"], row["schedule_id"]) for row in body["data"]} == {("SCHEDULE", deployment["id"])}
    stack.http.delete(f"{stack.url}/deployments/{deployment['id']}")


def test_a_run_that_a_person_scheduled_for_later_is_listed_as_pending(
    api: Api, stack: PrefectStack, flow: tuple[str, str]
) -> None:
    name, flow_id = flow
    later = datetime.now(UTC) + timedelta(days=1)
    body = {"flow_id": flow_id, "state": scheduled(later)}
    for_later = stack.post("/flow_runs/", body)["id"]
    done = stack.make_run(flow_id)
    assert ids(listed(api, workflow_name=name)) == [for_later, done]
    assert ids(listed(api, workflow_name=name, status="PENDING")) == [for_later]
    assert ids(listed(api, workflow_name=name, trigger="MANUAL")) == [for_later, done]
    second = api.get("/workflows/runs", workflow_name=name, offset=1, limit=1)
    assert (ids(second["data"]), second["pagination"]["total"]) == ([done], 2)


def test_since_and_until_bound_the_start_time_at_any_offset(
    api: Api, stack: PrefectStack, flow: tuple[str, str]
) -> None:
    name, flow_id = flow
    made = [
        stack.post("/flow_runs/", {"flow_id": flow_id, "state": scheduled(NOON + timedelta(hours=hour))})["id"]
        for hour in range(4)
    ]
    everything = list(reversed(made))
    assert ids(listed(api, workflow_name=name)) == everything
    assert ids(listed(api, workflow_name=name, since="2024-03-01T13:00:00Z")) == everything[:3]
    assert ids(listed(api, workflow_name=name, since="2024-03-01T15:00:00+02:00")) == everything[:3]
    assert ids(listed(api, workflow_name=name, since="2024-03-01T14:00:00")) == everything[:2]
    assert ids(listed(api, workflow_name=name, until="2024-03-01T13:30:00Z")) == everything[2:]
    both = {"since": "2024-03-01T13:00:00Z", "until": "2024-03-01T14:00:00Z"}
    assert ids(listed(api, workflow_name=name, **both)) == everything[1:3]


def test_filters_combine_and_triggers_show_what_started_a_run(
    api: Api, stack: PrefectStack, flow: tuple[str, str]
) -> None:
    name, flow_id = flow
    manual = stack.make_run(flow_id, tags=["domain:a.b"])
    ours = stack.make_run(flow_id, "FAILED", tags=["domain:a.b", "spine:api"])
    headers = {"prefect-automation-id": str(uuid4()), "prefect-automation-name": "bmlnaHRseQ=="}
    automated = stack.http.post(
        f"{stack.url}/flow_runs/", json={"flow_id": flow_id, "state": {"type": "COMPLETED"}}, headers=headers
    ).json()["id"]
    parent = stack.make_run(stack.flow_id("listed.parent"), "RUNNING")
    task_run = {"flow_run_id": parent, "name": "t", "task_key": "t-1", "dynamic_key": "0"}
    stands_for = stack.post("/task_runs/", task_run)["id"]
    child = stack.make_run(flow_id, parent_task_run_id=stands_for)
    expected = {"MANUAL": {manual}, "API": {ours}, "DEPENDENCY": {automated, child}, "SCHEDULE": set(), "RETRY": set()}
    for trigger, run_ids in expected.items():
        body = api.get("/workflows/runs", workflow_name=name, trigger=trigger)
        assert set(ids(body["data"])) == run_ids
        assert body["pagination"]["total"] == len(run_ids)
        assert {row["trigger"] for row in body["data"]} <= {trigger}
    assert set(ids(listed(api, workflow_name=name, domain="a.b"))) == {manual, ours}
    assert ids(listed(api, workflow_name=name, domain="a.b", status="FAILED")) == [ours]
    assert ids(listed(api, workflow_name=name, domain="a.b", status="FAILED", trigger="manual")) == []
    assert api.run(automated)["triggered_by"] == "nightly"


def test_an_unknown_workflow_has_an_empty_page(api: Api) -> None:
    body = api.get("/workflows/runs", workflow_name="no.such")
    assert body == {"data": [], "pagination": {"offset": 0, "limit": 20, "total": 0, "has_more": False}}


def make_runs(stack: PrefectStack, name: str, starts: list[datetime], tags: list[list[str]] | None = None) -> list[str]:
    """Store runs of a new flow and return their ids in the same order."""
    first = stack.post("/flow_runs/", {"flow_id": stack.flow_id(name), "state": scheduled(starts[0])})["id"]
    with stack.tables() as tables:
        times = ("expected_start_time", "next_scheduled_start_time")
        copies: list[dict[str, Any]] = [dict.fromkeys(times, tables.time(start)) for start in starts[1:]]
        for copy, tagged in zip(copies, tags[1:] if tags else [], strict=False):
            copy["tags"] = tagged
        return [first, *tables.copy_runs(first, copies)]


@pytest.fixture(scope="module")
def crowd(stack: PrefectStack) -> tuple[str, list[str]]:
    """500 runs of one flow in 12 groups of one start time each, some with the API's tag."""
    name = f"crowd.{uuid4().hex}"
    starts = [NOON + timedelta(minutes=index // 25 if index < 250 else 30 + index // 125) for index in range(500)]
    return name, make_runs(stack, name, starts, [["spine:api"] if index % 3 else [] for index in range(500)])


@pytest.mark.parametrize(
    ("limit", "trigger"), one_by_default([(13, None), (100, None), (50, "MANUAL"), (100, "API")], default=2)
)
def test_all_pages_together_have_each_run_exactly_once(
    api: Api, crowd: tuple[str, list[str]], limit: int, trigger: str | None
) -> None:
    name, made = crowd
    expected = {None: made, "MANUAL": made[0::3], "API": made[1::3] + made[2::3]}[trigger]
    seen: list[str] = []
    starts: list[str] = []
    while True:
        query = {"workflow_name": name, "offset": len(seen), "limit": limit, "trigger": trigger}
        body = api.get("/workflows/runs", **{key: value for key, value in query.items() if value is not None})
        assert body["pagination"]["total"] == len(expected)
        seen += ids(body["data"])
        starts += [row["created_at"] for row in body["data"]]
        if not body["pagination"]["has_more"]:
            break
        assert len(body["data"]) == limit
    assert Counter(seen) == Counter(expected)


def test_pages_are_the_same_for_every_request(api: Api, crowd: tuple[str, list[str]]) -> None:
    name, _ = crowd
    pages = [ids(api.get("/workflows/runs", workflow_name=name, offset=37, limit=30)["data"]) for _ in range(3)]
    assert pages[0] == pages[1] == pages[2]
    assert pages[0] == ids(api.get("/workflows/runs", workflow_name=name, limit=100)["data"])[37:67]


@pytest.mark.slow
def test_a_page_of_100_needs_as_few_requests_as_a_page_of_20(
    proxied_api: Api, proxy: Proxy, stack: PrefectStack, crowd: tuple[str, list[str]]
) -> None:
    spread = f"spread.{uuid4().hex}"
    make_runs(stack, spread, [NOON + timedelta(minutes=minute) for minute in range(120)])
    # Prefect's client gets the token that each of its requests has with the first of them.
    proxied_api.get("/workflows/runs")

    def calls(**query: Any) -> list[str]:
        proxy.requests.clear()
        assert len(proxied_api.get("/workflows/runs", **query)["data"]) == query["limit"]
        return sorted(proxy.requests)

    assert 1 <= len(calls(workflow_name=spread, limit=100)) <= 6
    # The steps of runs that ended long ago are known from now on.
    assert calls(workflow_name=spread, limit=100) == calls(workflow_name=spread, limit=20)
    assert 1 <= len(calls(workflow_name=spread, limit=100)) <= 3
    # Pages whose edges cut through groups of one start time cost a few more.
    assert len(calls(workflow_name=crowd[0], limit=100, offset=100)) <= 13


@pytest.mark.slow
def test_few_manual_runs_among_thousands_of_the_api_are_found_with_few_requests(
    proxied_api: Api, proxy: Proxy, stack: PrefectStack, flow: tuple[str, str]
) -> None:
    name, flow_id = flow
    model = stack.make_run(flow_id, tags=[API_TAG])
    with stack.tables() as tables:
        times = [tables.time(NOON + timedelta(seconds=number)) for number in range(6_000)]
        fields = ("start_time", "end_time", "expected_start_time", "state_timestamp")
        tables.copy_runs(model, [dict.fromkeys(fields, time) for time in times])
        manual = []
        for place in (5, 2_000, 2_001, 5_990):
            manual += tables.copy_runs(model, [{**dict.fromkeys(fields, times[place]), "tags": []}])
    manual.reverse()
    for offset, limit in ((0, 2), (1, 3), (0, 10), (4, 2)):
        proxy.requests.clear()
        found = proxied_api.get("/workflows/runs", workflow_name=name, trigger="MANUAL", offset=offset, limit=limit)
        assert ids(found["data"]) == manual[offset:][:limit]
        assert found["pagination"]["total"] == len(manual)
        assert len(proxy.requests) < 90
