"""Keys that are limited to domains: they see and change what belongs to these, and cannot find out what else exists."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from spine.auth.domains import Domains
from spine.database import make_engine, make_sessions
from spine.http.scopes import FIELD
from spine.prefect.client import Prefect
from spine.prefect.filters import RunFilter
from spine.run_history.domains import record_domains
from spine.workflows.known_domains import KnownDomains

from tests.api.test_auth import make_key
from tests.api.world import Desk, World, pages_of
from tests.support.api_here import api_here
from tests.support.stack import Api, PrefectStack
from tests.support.web import WEB

# Of each kind of thing, an id that nothing has, and a name if it can be found by one.
NOTHING = {
    **{kind: [str(uuid4()), "nobody"] for kind in ("run_id", "schedule_id")},
    **{kind: ["01JZZZZZZZZZZZZZZZZZZZZZZZ", "nobody"] for kind in ("source_id", "channel_id", "connection_id")},
    **{kind: ["01JZZZZZZZZZZZZZZZZZZZZZZZ"] for kind in ("fetch_id", "entry_id", "alert_id")},
    "workflow_name": ["nobody"],
}
# Bodies that the schema of each operation accepts.
BODIES: dict[str, Any] = {
    "trigger_workflow": {"params": {}},
    "update_schedule": {"description": "mine now"},
    "update_alert_channel": {"throttle_minutes": 9},
    "update_source": {"enabled": False},
    **{f"{action}_alert": {"note": "mine now"} for action in ("acknowledge", "resolve")},
}


@dataclass
class Limited:
    """An API with a desk that the client may see, and with others that it may not."""

    api: Api
    world: World
    client: httpx.Client
    seen: Desk
    hidden: list[Desk]
    connection: list[str]

    @property
    def operations(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Method, path and description of each operation below `/api/v1` that a limited key may use."""
        paths = WEB.get(f"{self.api.url}/openapi.json").json()["paths"]
        return [
            (method.upper(), path.removeprefix("/api/v1"), operation)
            for path, operations in paths.items()
            for method, operation in operations.items()
            if path.startswith("/api/v1/") and operation[FIELD] != "admin"
        ]

    @property
    def hidden_words(self) -> set[str]:
        """Every id and name that must not be seen."""
        known = {word for desk in self.hidden for words in desk.keys.values() for word in words}
        return known | {*self.connection, "hidden"}


@pytest.fixture(scope="module")
def limited(quiet_stack: PrefectStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Limited]:
    files = tmp_path_factory.mktemp("files")
    settings = {"SPINE_SEND_ALERTS": "false", "SPINE_ALLOW_PRIVATE_ADDRESSES": "true"}
    settings |= {"SPINE_FILE_ROOTS": str(files), "SPINE_PREFECT_DEADLINE_SECONDS": "9"}
    with api_here(quiet_stack.url, quiet_stack.home, tmp_path_factory.mktemp("desks"), **settings) as api:
        world = World(api.patient(), quiet_stack, files)
        connection = world.connection()
        hidden = [world.desk("hidden", domain) for domain in ("hidden.desk", None)]
        seen = world.desk("seen", "seen.desk")
        key = make_key(api, "desk", "configure", domains=["seen.*"])
        yield Limited(api, world, api.patient().as_key(key), seen, hidden, connection)
        world.close()


def test_lists_and_totals_have_only_what_belongs_to_the_domains(limited: Limited) -> None:
    lists = [path for method, path, one in limited.operations if method == "GET" and "{" not in path]
    assert len(lists) >= 10
    for path in lists:
        answer = limited.client.get(path, params={"limit": 100, "count": 100})
        assert answer.status_code == 200, (path, answer.text)
        assert not [word for word in limited.hidden_words if word in answer.text], (path, answer.text)
    own = limited.seen.keys
    assert {run["run_id"] for run in pages_of(limited.client, "/workflows/runs")} >= set(own["run_id"])
    assert [one["name"] for one in pages_of(limited.client, "/workflows/definitions")] == own["workflow_name"]
    assert [one["id"] for one in pages_of(limited.client, "/schedules")] == own["schedule_id"][:1]
    assert [one["id"] for one in pages_of(limited.client, "/schedules", enabled=True)] == own["schedule_id"][:1]
    assert [one["id"] for one in pages_of(limited.client, "/alerts")] == own["alert_id"]
    assert [one["id"] for one in pages_of(limited.client, "/alerts/channels")] == own["channel_id"][:1]
    assert [one["id"] for one in pages_of(limited.client, "/sources")] == own["source_id"][:1]
    assert [one["id"] for one in pages_of(limited.client, "/sources/cache")] == own["entry_id"]
    assert pages_of(limited.client, "/sources/connections") == []
    planned = limited.client.get("/schedules/preview-next").json()
    assert {one["schedule_id"] for one in planned} == set(own["schedule_id"][:1])
    stats = limited.client.get("/alerts/stats").json()
    assert (stats["total_alerts"], stats["by_domain"]) == (1, {"seen.desk": 1})
    cached = limited.client.get("/sources/cache/stats").json()
    assert (cached["total_entries"], cached["total_bytes"], cached["expired_entries"]) == (1, 4, 1)


@pytest.mark.parametrize("filters", [{"domain": "hidden.desk"}, {"workflow_name": "hidden"}, {"status": "FAILED"}])
def test_filters_find_nothing_of_other_domains(limited: Limited, filters: dict[str, str]) -> None:
    hidden = {word for word in limited.hidden_words if word != "hidden"}
    for method, path, operation in limited.operations:
        known = {one["name"] for one in operation.get("parameters", []) if one["in"] == "query"}
        if method == "GET" and "{" not in path and filters.keys() <= known:
            answer = limited.client.get(path, params=filters)
            assert answer.status_code == 200
            assert not [word for word in hidden if word in answer.text], path


def test_what_is_hidden_answers_exactly_as_what_does_not_exist(limited: Limited) -> None:
    checked = 0
    before = everything(limited)
    for method, path, operation in limited.operations:
        if not (kinds := re.findall(r"{(\w+)}", path)):
            continue
        (kind,) = kinds
        body = BODIES.get(operation["operationId"])
        missing = {by_id(word): send(limited.client, method, path, word, body) for word in NOTHING[kind]}
        hidden = [desk.keys[kind] for desk in limited.hidden] if kind != "connection_id" else [limited.connection]
        for word in (word for words in hidden for word in words):
            answer = send(limited.client, method, path, word, body)
            like = missing[by_id(word)] if by_id(word) in missing else missing[True]
            assert (answer.status_code, like.status_code) == (404, 404), (method, path, answer.text)
            assert not [other for other in limited.hidden_words if other in answer.text.replace(word, "")], answer.text
            assert without_word(answer, word) == without_word(like, like.request.extensions["word"]), (method, path)
            checked += 1
    assert checked > 60
    assert everything(limited) == before


def by_id(word: str) -> bool:
    return re.fullmatch(r"[0-9A-Z]{26}|[0-9a-f-]{36}", word) is not None


def send(client: httpx.Client, method: str, path: str, word: str, body: Any) -> httpx.Response:
    """A request for one thing."""
    extensions = {"word": word}
    return client.request(method, re.sub(r"{\w+}", word, path), json=body, extensions=extensions)


def without_word(answer: httpx.Response, word: str) -> str:
    """The answer without what depends on the word: the hint names those things of the caller that are spelt like it."""
    return re.sub(r" Did you mean [^?]*\?", "", answer.text.replace(word, "WORD"))


def everything(limited: Limited) -> str:
    """What the admin sees of everything, to compare."""
    sources = ["/sources", "/sources/cache", "/sources/connections"]
    found = []
    for path in ("/workflows/runs", "/schedules", "/alerts", "/alerts/channels", *sources):
        for row in pages_of(limited.api.patient().client, path):
            row.pop("duration_seconds", None)
            found.append(row)
    return repr(found)


def test_its_own_things_are_found_and_changed(limited: Limited) -> None:
    client, own = limited.client, limited.seen.keys
    assert client.get(f"/workflows/runs/{own['run_id'][0]}").json()["domain"] == "seen.desk"
    assert client.get(f"/workflows/definitions/{own['workflow_name'][0]}").status_code == 200
    for path, kind in (("/schedules", "schedule_id"), ("/sources", "source_id"), ("/alerts/channels", "channel_id")):
        for word in own[kind]:
            assert client.get(f"{path}/{word}").json()["id"] == own[kind][0]
    assert client.get(f"/sources/fetches/{own['fetch_id'][0]}").status_code == 200
    assert client.get(f"/alerts/{own['alert_id'][0]}").status_code == 200
    changed = client.patch(f"/schedules/{own['schedule_id'][0]}", json={"description": "of this desk"})
    assert (changed.status_code, changed.json()["description"]) == (200, "of this desk")
    assert client.patch(f"/sources/{own['source_id'][0]}", json={"enabled": True}).status_code == 200
    assert client.patch(f"/alerts/channels/{own['channel_id'][0]}", json={"throttle_minutes": 7}).status_code == 200
    started = client.post(f"/workflows/trigger/{own['workflow_name'][0]}")
    assert started.status_code == 201
    assert client.post(f"/workflows/runs/{started.json()['run_id']}/cancel").status_code == 200
    assert client.post(f"/schedules/{own['schedule_id'][0]}/run-now").status_code == 201


def test_a_new_workflow_of_the_domains_is_seen_at_once(limited: Limited) -> None:
    name = f"seen-late-{uuid4().hex[:8]}"
    limited.world.deploy(name, f"seen.{name}")
    run_id = limited.client.post(f"/workflows/trigger/{name}").json()["run_id"]
    assert run_id in {run["run_id"] for run in pages_of(limited.client, "/workflows/runs", workflow_name=name)}


async def test_the_domain_of_a_deployment_that_is_gone_is_remembered_from_its_runs(limited: Limited) -> None:
    stack, domain = limited.world.stack, f"seen.gone-{uuid4().hex[:8]}"
    made = limited.world.deploy(f"gone-{uuid4().hex[:8]}", domain)
    run_id = stack.make_run(made["flow_id"], "COMPLETED", deployment_id=made["id"], tags=[f"domain:{domain}"])
    stack.delete(f"/deployments/{made['id']}")
    engine = make_engine(limited.api.settings.sqlalchemy_url)
    sessions, seen = make_sessions(engine), Domains(("seen.*",))
    with temporary_settings({PREFECT_API_URL: stack.url}):
        async with Prefect.connect(9) as prefect:
            assert f"domain:{domain}" not in (await KnownDomains().tags(prefect, sessions, seen) or ())
            runs = await prefect.list_runs(RunFilter(runs={"id": {"any_": [run_id]}}), "ID_DESC")
            for _ in range(2):
                await record_domains(sessions, runs)
            assert f"domain:{domain}" in (await KnownDomains().tags(prefect, sessions, seen) or ())
    await engine.dispose()
    assert run_id in {run["run_id"] for run in pages_of(limited.client, "/workflows/runs")}


def test_nothing_can_be_put_into_another_domain_or_out_of_all(limited: Limited) -> None:
    client, own = limited.client, limited.seen.keys
    webhook = {"channel_type": "webhook", "config": {"url": "http://127.0.0.1:9/a"}}
    alert = {"severity": "ERROR", "title": "a", "message": "a", "source": "a"}
    source = {"source_type": "file", "config": {"path": "a.csv"}}
    schedule = {"target_type": "WORKFLOW", "target_name": own["workflow_name"][0], "interval_seconds": 900000}
    where = {"db_type": "postgresql", "host": "127.0.0.1", "port": 9, "database": "a"}
    refused = [
        *(("POST", "/alerts", {**alert, **domain}) for domain in ({}, {"domain": "hidden.desk"})),
        *(("POST", "/sources", {"name": "a", **source, **domain}) for domain in ({}, {"domain": "hidden.desk"})),
        *(("PATCH", f"/sources/{own['source_id'][0]}", {"domain": domain}) for domain in (None, "hidden.desk")),
        ("POST", "/alerts/channels", {"name": "a", **webhook}),
        *(
            ("POST", "/alerts/channels", {"name": "a", **webhook, "domains": domains})
            for domains in (["*"], ["hidden.desk"], ["seen.desk", "hidden.*"], ["[sh]een.*"], ["s*"], ["seen?desk"])
        ),
        *(("PATCH", f"/alerts/channels/{own['channel_id'][0]}", {"domains": one}) for one in (None, ["*"])),
        ("POST", "/schedules", {"name": "a", **schedule, "tags": ["domain:hidden.desk"]}),
        ("PATCH", f"/schedules/{own['schedule_id'][0]}", {"tags": ["domain:hidden.desk"]}),
        ("POST", "/sources/connections", {"name": "a", **where}),
    ]
    for method, path, body in refused:
        answer = client.request(method, path, json=body)
        assert answer.status_code == 403, (method, path, body, answer.text)
        assert "'seen.*'" in answer.json()["detail"]
    query = {"connection": limited.connection[1], "query": "SELECT 1"}
    database = {"name": "a", "source_type": "database", "config": query, "domain": "seen.desk"}
    assert client.post("/sources", json=database).status_code == 400
    target = {"name": "a", **schedule, "target_name": limited.hidden[0].workflow}
    nothing = {"name": "a", **schedule, "target_name": "nobody"}
    there, missing = (client.post("/schedules", json=body) for body in (target, nothing))
    assert (there.status_code, missing.status_code) == (400, 400)
    assert without_word(there, limited.hidden[0].workflow) == without_word(missing, "nobody")


def test_the_schedule_of_a_source_cannot_be_made_to_fetch_another(limited: Limited) -> None:
    body = {"source_type": "file", "config": {"path": "a.csv"}, "domain": "seen.desk", "cron_expression": "0 3 1 1 *"}
    name = f"seen-{uuid4().hex[:8]}"
    assert limited.client.post("/sources", json={"name": name, **body}).status_code == 201
    path = f"/schedules/fetch-{name}"
    hidden = limited.hidden[0].keys["source_id"][0]
    refused = limited.client.patch(path, json={"target_params": {"source": hidden}})
    assert refused.status_code == 403
    untouched = limited.client.get(path).json()
    assert untouched["target_params"]["source"] != hidden
    assert limited.client.delete(f"/sources/{name}").status_code == 200
    for workflow in ("/workflows/trigger/spine.fetch_source", "/workflows/definitions/spine.fetch_source"):
        method = "POST" if "trigger" in workflow else "GET"
        assert limited.client.request(method, workflow).status_code == 404


def test_a_key_without_a_pattern_that_matches_sees_nothing(limited: Limited) -> None:
    client = limited.api.patient().as_key(make_key(limited.api, "nobody", "configure", domains=["nobody.*", "no"]))
    for method, path, _ in limited.operations:
        if method == "GET" and "{" not in path:
            answer = client.get(path)
            assert answer.status_code == 200
            assert not re.search("hidden|seen", answer.text), path
    cleared = client.delete("/sources/cache")
    assert cleared.json()["message"].startswith("0 entries and 0 bytes")
    assert len(pages_of(limited.api.patient().client, "/sources/cache")) == 3


def test_an_alert_of_a_limited_key_does_not_throttle_those_of_others(limited: Limited) -> None:
    channel = {"channel_type": "webhook", "config": {"url": "http://127.0.0.1:9/a"}, "throttle_minutes": 60}
    limited.world.create("/alerts/channels", name=f"hidden-all-{uuid4().hex[:8]}", **channel)
    shared = {"severity": "CRITICAL", "title": "a", "message": "a", "source": "a", "dedup_key": "of-both"}
    first = limited.client.post("/alerts", json={**shared, "domain": "seen.desk"})
    assert "throttled" not in first.json()["message"]
    second = limited.client.post("/alerts", json={**shared, "domain": "seen.desk"})
    assert "throttled" in second.json()["message"]
    theirs = limited.api.patient().client.post("/alerts", json={**shared, "domain": "hidden.desk"})
    assert "throttled" not in theirs.json()["message"]


def test_an_alert_shows_only_deliveries_to_channels_that_the_key_sees(limited: Limited) -> None:
    channel = {"channel_type": "webhook", "config": {"url": "http://127.0.0.1:9/b"}, "min_severity": "INFO"}
    hidden, seen = f"of-everybody-{uuid4().hex[:8]}", f"of-the-desk-{uuid4().hex[:8]}"
    limited.world.create("/alerts/channels", name=hidden, **channel)
    limited.world.create("/alerts/channels", name=seen, **channel, domains=["seen.desk"])
    alert = {"severity": "CRITICAL", "title": uuid4().hex, "message": "a", "source": "a", "domain": "seen.desk"}
    alert_id = limited.client.post("/alerts", json=alert).json()["id"]
    of_all = limited.api.patient().client.get(f"/alerts/{alert_id}").json()["deliveries"]
    assert {hidden, seen} <= {one["channel_name"] for one in of_all}
    shown = [one["channel_name"] for one in limited.client.get(f"/alerts/{alert_id}").json()["deliveries"]]
    assert seen in shown
    assert hidden not in shown
