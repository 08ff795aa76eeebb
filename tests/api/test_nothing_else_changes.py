"""Each route that changes something changes in Prefect what it was asked to change, and nothing else.

It leaves exactly one entry in the audit trail.

The cases walk the OpenAPI document: a route without a case fails.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import pytest

from tests.administration.support import as_one_request, check_one_entry
from tests.api.prefect_objects import ROWS, deploy_all, objects_of, unexpected
from tests.http.support import operations
from tests.schedules.support import FAR_AWAY, Schedules, Workflow, make_workflow
from tests.support.stack import Api, PrefectStack
from tests.support.variants import one_in
from tests.support.web import WEB

FETCH_FLOW = "spine.fetch_source"


@dataclass
class World:
    """A workflow with two deployments that have everything, and what a case adds."""

    api: Api
    workflow: Workflow
    own: str
    other: str
    fetching: str
    made: str = ""
    source: str = ""
    rows: dict[str, str] = field(default_factory=dict)

    def send(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        answer = self.api.client.request(method, path, json=body, params=query)
        assert answer.is_success, answer.text
        return answer.json()

    def make(self, path: str, **body: Any) -> str:
        return str(self.send("POST", path, body)["id"])

    def objects(self) -> dict[str, Any]:
        schedules = [self.api.get(f"/sources/{self.source}")["schedule_id"]] if self.source else []
        return objects_of(self.workflow, self.fetching, *filter(None, schedules))


@dataclass(frozen=True)
class Case:
    """A request, and what it may change in Prefect."""

    send: Callable[[World], Any]
    may_change: tuple[str, ...] = ()
    # Makes what the request is about.
    before: Callable[[World], Any] = lambda _: None


def name() -> str:
    return f"thing-{uuid4().hex[:8]}"


def make_schedule(world: World) -> None:
    world.made = Schedules(world.api, world.workflow).make()


def make_source(world: World, **more: Any) -> None:
    body = {
        "source_type": "http",
        "config": {"url": "https://files.example.com/a.csv"},
        "enabled": False,
        "cron_expression": FAR_AWAY,
    }
    world.source = name()
    world.make("/sources", name=world.source, **{**body, **more})


def customise(world: World) -> None:
    """Change the schedule of the source in Prefect, as an operator does."""
    make_source(world)
    schedule_id = world.api.get(f"/sources/{world.source}")["schedule_id"]
    (row,) = world.workflow.read(schedule_id)["schedules"]
    world.workflow.stack.patch(
        f"/deployments/{schedule_id}",
        {"description": "Mine.", "tags": [f"source:{world.source}", "mine"], "concurrency_limit": 2},
    )
    timing = {"cron": FAR_AWAY, "timezone": "Asia/Tokyo", "day_or": False}
    changed = {"schedule": timing, "max_scheduled_runs": 7, "parameters": {"force": True}}
    world.workflow.stack.patch(f"/deployments/{schedule_id}/schedules/{row['id']}", changed)


def delete_source(world: World) -> None:
    world.send("DELETE", f"/sources/{world.source}")
    world.source = ""


def make_channel(world: World) -> None:
    body = {"channel_type": "webhook", "config": {"url": "https://hooks.example.com/a"}, "min_severity": "CRITICAL"}
    world.rows["channel"] = world.make("/alerts/channels", name=name(), **body)


def make_connection(world: World) -> None:
    where = {"db_type": "postgresql", "host": "db.example.com", "port": 5432, "database": "a"}
    world.rows["connection"] = world.make("/sources/connections", name=name(), **where)


def make_key(world: World) -> None:
    world.rows["key"] = world.make("/keys", name=name())


def make_run(world: World, state: str) -> None:
    world.rows["run"] = world.workflow.stack.make_run(
        world.workflow.flow_id, state, deployment_id=world.own, parameters={"week": "w1"}, tags=["mine"], name="mine"
    )


def make_alert(world: World) -> None:
    of_alert = {"severity": "INFO", "title": name(), "message": "m", "source": "tests"}
    world.rows["alert"] = world.make("/alerts", **of_alert)


def resolve_alert(world: World) -> None:
    make_alert(world)
    world.send("POST", f"/alerts/{world.rows['alert']}/resolve")


PLANNED = ("/planned*",)
STATE = tuple(
    f"/runs/*/{one}*"
    for one in ("state", "end_time", "start_time", "total_run_time", "next_scheduled", "estimated", "run_count")
)
CASES: dict[str, Case] = {
    "create_schedule": Case(make_schedule, ("/deployments/sched-*", *PLANNED)),
    "update_schedule": Case(
        lambda world: world.send("PATCH", f"/schedules/{world.own}", {"description": "Other."}),
        ("/deployments/idle*/description", *PLANNED),
    ),
    "delete_schedule": Case(
        lambda world: world.send("DELETE", f"/schedules/{world.own}"), ("/deployments/idle*/schedules", *PLANNED)
    ),
    "enable_schedule": Case(
        lambda world: world.send("POST", f"/schedules/{world.other}/enable"),
        ("/deployments/full*/schedules/0/active", *PLANNED),
        lambda world: world.send("POST", f"/schedules/{world.other}/disable"),
    ),
    "disable_schedule": Case(
        lambda world: world.send("POST", f"/schedules/{world.own}/disable"), ("/deployments/idle*/paused", *PLANNED)
    ),
    "run_schedule_now": Case(lambda world: world.send("POST", f"/schedules/{world.other}/run-now"), ("/runs/*",)),
    "trigger_workflow": Case(
        lambda world: world.send("POST", f"/workflows/trigger/{world.workflow.name}", {"params": {"week": "w2"}}),
        ("/runs/*",),
    ),
    "cancel_run": Case(
        lambda world: world.send("POST", f"/workflows/runs/{world.rows['run']}/cancel"),
        STATE,
        lambda world: make_run(world, "SCHEDULED"),
    ),
    "retry_run": Case(
        lambda world: world.send("POST", f"/workflows/runs/{world.rows['run']}/retry"),
        # What kind of retry it is.
        (*STATE, "/runs/*/empirical_policy/retry_type"),
        lambda world: make_run(world, "FAILED"),
    ),
    "create_source": Case(make_source, ("/deployments/fetch-*", *PLANNED)),
    "update_source": Case(
        lambda world: world.send("PATCH", f"/sources/{world.source}", {"cron_expression": "0 4 1 1 *"}),
        (
            "/deployments/fetch-*/schedules/0/schedule/cron",
            "/deployments/fetch-*/schedules/0/id",
            "/deployments/fetch-*/schedules/0/created",
        ),
        customise,
    ),
    "delete_source": Case(
        delete_source,
        ("/deployments/fetch-*",),
        customise,
    ),
    "fetch_source": Case(
        lambda world: world.send("POST", f"/sources/{world.source}/fetch"),
        before=lambda world: make_source(world, enabled=True),
    ),
    "clear_cache": Case(
        lambda world: world.send("DELETE", "/sources/cache", source_id=world.source), before=make_source
    ),
    "create_connection": Case(make_connection),
    "delete_connection": Case(
        lambda world: world.send("DELETE", f"/sources/connections/{world.rows['connection']}"), before=make_connection
    ),
    "test_connection": Case(
        lambda world: world.send("POST", f"/sources/connections/{world.rows['connection']}/test"),
        before=make_connection,
    ),
    "create_alert_channel": Case(make_channel),
    "update_alert_channel": Case(
        lambda world: world.send("PATCH", f"/alerts/channels/{world.rows['channel']}", {"enabled": False}),
        before=make_channel,
    ),
    "delete_alert_channel": Case(
        lambda world: world.send("DELETE", f"/alerts/channels/{world.rows['channel']}"), before=make_channel
    ),
    "test_alert_channel": Case(
        lambda world: world.send("POST", f"/alerts/channels/{world.rows['channel']}/test"), before=make_channel
    ),
    "create_key": Case(make_key),
    "revoke_key": Case(lambda world: world.send("DELETE", f"/keys/{world.rows['key']}"), before=make_key),
    "create_alert": Case(make_alert),
    "acknowledge_alert": Case(
        lambda world: world.send("POST", f"/alerts/{world.rows['alert']}/acknowledge", {"note": "n"}), before=make_alert
    ),
    "resolve_alert": Case(
        lambda world: world.send("POST", f"/alerts/{world.rows['alert']}/resolve", {"note": "n"}), before=make_alert
    ),
    "reopen_alert": Case(
        lambda world: world.send("POST", f"/alerts/{world.rows['alert']}/reopen"), before=resolve_alert
    ),
}


@pytest.fixture
def world(api: Api, stack: PrefectStack) -> Iterator[World]:
    workflow = make_workflow(stack)
    own = deploy_all(workflow, ROWS["several"], workflow.name)
    other = deploy_all(workflow, ROWS["a cron with a slug"])
    made = World(api, workflow, own, other, str(stack.deployment(FETCH_FLOW, FETCH_FLOW)["id"]))
    yield made
    for kind, path in (("channel", "/alerts/channels"), ("connection", "/sources/connections")):
        if kind in made.rows:
            api.client.delete(f"{path}/{made.rows[kind]}")
    if made.source:
        api.client.delete(f"/sources/{made.source}")
    stack.delete(f"/flows/{workflow.flow_id}")


def test_each_route_that_changes_something_has_a_case(api: Api) -> None:
    document = WEB.get(f"{api.url}/openapi.json").json()
    changing = {one["operationId"] for method, _, one in operations(document) if method != "GET"}
    assert changing == CASES.keys()


@pytest.mark.parametrize("operation", one_in(4, CASES))
def test_a_route_changes_nothing_else_in_prefect_and_leaves_one_audit_entry(world: World, operation: str) -> None:
    case, api = CASES[operation], world.api
    case.before(world)
    before = world.objects()
    world.api, request_id = as_one_request(api)
    case.send(world)
    world.api = api
    after = world.objects()
    check_one_entry(api, request_id, operation)
    assert not unexpected(before, after, case.may_change)
    if case.may_change:
        assert before != after
