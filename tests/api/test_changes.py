"""Each log line of a request names the key and the client's address, and each change is one line."""

import json
from typing import Any

import httpx
import pytest

from tests.api.test_auth import make_key, unique
from tests.support.processes import wait_until
from tests.support.stack import Api, PrefectStack
from tests.support.web import WEB

WEBHOOK = {"channel_type": "webhook", "config": {"url": "https://hooks.example.com/a"}}


def lines_of(api: Api, request_id: str) -> list[dict[str, Any]]:
    """The log lines of a request, of which the last is written when the client has its answer."""
    found: list[dict[str, Any]] = []

    def is_whole() -> bool:
        lines = [json.loads(line) for line in api.log.read_text().splitlines() if request_id in line]
        found[:] = [line for line in lines if line.get("request_id") == request_id]
        return "request" in {line["event"] for line in found}

    wait_until(is_whole, "the log of the request", 30)
    return found


def changes_of(api: Api, answer: httpx.Response) -> list[tuple[str, str, str, str | None]]:
    """Action, type, id and name of what a request changed."""
    lines = [line for line in lines_of(api, answer.headers["X-Request-ID"]) if line["event"] == "changed"]
    return [(line["action"], line["resource_type"], line["resource_id"], line["resource_name"]) for line in lines]


def test_every_line_of_a_request_has_the_name_of_the_key_and_the_address(quiet_api: Api) -> None:
    name = unique("logged")
    client = quiet_api.as_key(make_key(quiet_api, name, "read"))
    answer = client.get("/sources")
    lines = lines_of(quiet_api, answer.headers["X-Request-ID"])
    assert lines
    for line in lines:
        assert (line["key"], line["address"]) == (name, "127.0.0.1")
        assert line["key_id"]
    nobody = WEB.get(f"{quiet_api.url}/api/v1/sources", headers={"X-API-Key": "spine_wrong"})
    lines = lines_of(quiet_api, nobody.headers["X-Request-ID"])
    assert {line["event"] for line in lines} == {"credential_refused", "request"}
    assert {(line["key"], line["address"]) for line in lines} == {(None, "127.0.0.1")}


def test_whoever_changed_or_deleted_something_is_found(quiet_api: Api) -> None:
    key, name = unique("changer"), unique("desk")
    client = quiet_api.as_key(make_key(quiet_api, key, "configure"))
    made = client.post("/alerts/channels", json={"name": name, **WEBHOOK})
    channel_id = made.json()["id"]
    assert changes_of(quiet_api, made) == [("created", "channel", channel_id, name)]
    changed = client.patch(f"/alerts/channels/{name}", json={"throttle_minutes": 1})
    assert changes_of(quiet_api, changed) == [("updated", "channel", channel_id, name)]
    deleted = client.delete(f"/alerts/channels/{channel_id}")
    assert changes_of(quiet_api, deleted) == [("deleted", "channel", channel_id, name)]
    (line,) = [line for line in lines_of(quiet_api, deleted.headers["X-Request-ID"]) if line["event"] == "changed"]
    assert (line["key"], line["address"]) == (key, "127.0.0.1")


def test_cancelling_a_run_is_logged_for_each_child_run_and_leaves_those_of_other_domains(
    quiet_api: Api, quiet_stack: PrefectStack
) -> None:
    stack, flows = quiet_stack, []

    def run(domain: str, **fields: Any) -> str:
        flow_id = stack.flow_id(unique("family"))
        flows.append(flow_id)
        body = {"name": "family", "flow_id": flow_id, "entrypoint": "a.py:flow", "tags": [f"domain:{domain}"]}
        made = stack.post("/deployments/", body)
        return stack.make_run(flow_id, "PENDING", deployment_id=made["id"], tags=made["tags"], **fields)

    def child_of(parent: str, domain: str) -> str:
        step = {"flow_run_id": parent, "task_key": "child", "dynamic_key": unique("call"), "state": {"type": "RUNNING"}}
        return run(domain, parent_task_run_id=stack.post("/task_runs/", step)["id"])

    parent = run("family.own")
    seen, hidden = (child_of(parent, domain) for domain in ("family.own", "other.desk"))
    client = quiet_api.as_key(make_key(quiet_api, unique("canceller"), "write", domains=["family.*"]))
    cancelled = client.post(f"/workflows/runs/{parent}/cancel")
    assert cancelled.status_code == 200
    states = [stack.get(f"/flow_runs/{run_id}")["state"]["type"] for run_id in (parent, seen, hidden)]
    assert states == ["CANCELLING", "CANCELLING", "PENDING"]
    changes = changes_of(quiet_api, cancelled)
    assert [(action, what, run_id) for action, what, run_id, _ in changes] == [
        ("cancelled", "run", run_id) for run_id in (parent, seen)
    ]
    assert quiet_api.client.post(f"/workflows/runs/{hidden}/cancel").status_code == 200
    # Prefect would end them while another test looks at all runs.
    for flow_id in flows:
        stack.delete(f"/flows/{flow_id}")


def test_a_refused_request_logs_no_change(quiet_api: Api) -> None:
    client = quiet_api.as_key(make_key(quiet_api, unique("refused"), "configure"))
    for answer in (client.delete("/alerts/channels/nobody"), client.post("/alerts/channels", json={})):
        assert answer.status_code >= 400
        assert changes_of(quiet_api, answer) == []


@pytest.mark.parametrize("kind", ["connection", "source", "alert", "cache"])
def test_each_kind_of_change_is_logged(quiet_api: Api, kind: str) -> None:
    name = unique(kind)
    client = quiet_api.as_key(make_key(quiet_api, unique("kinds"), "configure"))
    where = {"db_type": "postgresql", "host": "db.example.com", "port": 5432, "database": "a"}
    alert = {"severity": "INFO", "title": name, "message": "a", "source": "a"}
    web = {"source_type": "http", "config": {"url": "https://files.example.com/a.csv"}}
    actions: dict[str, list[tuple[str, str, Any, str]]] = {
        "connection": [
            ("POST", "/sources/connections", {"name": name, **where}, "created"),
            ("DELETE", f"/sources/connections/{name}", None, "deleted"),
        ],
        "source": [
            ("POST", "/sources", {"name": name, **web}, "created"),
            ("PATCH", f"/sources/{name}", {"enabled": False}, "updated"),
            ("DELETE", f"/sources/{name}", None, "deleted"),
        ],
        "alert": [("POST", "/alerts", alert, "raised")],
        "cache": [("DELETE", "/sources/cache", None, "cleared")],
    }
    for method, path, body, action in actions[kind]:
        answer = client.request(method, path, json=body)
        assert answer.is_success, answer.text
        ((found, resource, _, found_name),) = changes_of(quiet_api, answer)
        assert (found, resource) == (action, kind)
        assert found_name == (None if kind == "cache" else name)
