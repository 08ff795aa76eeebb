"""The audit trail: what entries have, how they are found, and who may read them."""

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from spine.tables.audit import AuditEntry
from sqlalchemy import select, update

from tests.administration.support import Entry, entries, made_by
from tests.api.test_auth import invoke, make_key, unique
from tests.support.api_here import api_here
from tests.support.databases import LentDatabases, in_database
from tests.support.processes import free_port
from tests.support.stack import Api
from tests.support.variants import one_by_default

SECRET = "s3cr3t-that-nobody-may-see"


@pytest.fixture(scope="module", params=one_by_default(["sqlite", "postgresql"]))
def lonely(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """An API without Prefect."""
    folder, nowhere = tmp_path_factory.mktemp("audit"), f"http://127.0.0.1:{free_port()}/api"
    settings = {"SPINE_PREFECT_DEADLINE_SECONDS": "0.05", "SPINE_ALLOW_PRIVATE_ADDRESSES": "true"}
    if request.param == "sqlite":
        with api_here(nowhere, folder, folder / "home", None, **settings) as started:
            yield started
        return
    databases: LentDatabases = request.getfixturevalue("postgresql_databases")
    with databases.lend() as url, api_here(nowhere, folder, folder / "home", url, **settings) as started:
        yield started


def make_channel(client: httpx.Client, **more: Any) -> tuple[str, httpx.Response]:
    name = unique("desk")
    body = {"name": name, "channel_type": "webhook", "config": {"url": f"https://hooks.example.com/{SECRET}"}, **more}
    return name, client.post("/alerts/channels", json=body)


def test_an_entry_says_who_changed_what_from_what_to_what(lonely: Api) -> None:
    key = unique("changer")
    client = lonely.as_key(make_key(lonely, key, "configure"))
    name, made = make_channel(client)
    changed = client.patch(f"/alerts/channels/{name}", json={"throttle_minutes": 1}, headers={"X-Request-ID": key})
    entry = made_by(lonely, changed)
    assert (entry["actor"], entry["actor_kind"], entry["request_id"]) == (key, "KEY", key)
    assert (entry["resource_id"], entry["resource_name"]) == (made.json()["id"], name)
    differing = {field for field in entry["after"] if entry["after"][field] != entry["before"][field]}
    assert differing == {"throttle_minutes"}
    assert (entry["before"]["throttle_minutes"], entry["after"]["throttle_minutes"]) == (5, 1)
    deleted = made_by(lonely, client.delete(f"/alerts/channels/{name}"))
    assert (deleted["before"], deleted["after"]) == (entry["after"], None)
    assert [one["action"] for one in entries(lonely, resource=f"channel:{name}")] == ["deleted", "updated", "created"]


def test_no_secret_is_in_the_trail(lonely: Api) -> None:
    client = lonely.client
    name, _ = make_channel(client)
    client.patch(f"/alerts/channels/{name}", json={"config": {"url": f"https://hooks.example.com/{SECRET}/2"}})
    login = {"url": f"https://user:{SECRET}@files.example.com/a", "headers": {"Authorization": SECRET}}
    for config in (login, {"url": "https://files.example.com/a", "headers": {"X-Token": SECRET}}):
        client.post("/sources", json={"name": unique("source"), "source_type": "http", "config": config})
    where = {"db_type": "postgresql", "host": "db.example.com", "port": 5432, "database": "a"}
    reference = {"name": unique("db"), **where, "password_ref": "env:SPINE_SECRET_DB"}
    assert made_by(lonely, client.post("/sources/connections", json=reference))["after"]["password_ref"]
    key = client.post("/keys", json={"name": unique("desk")}).json()["key"]
    with in_database(lonely.settings.sqlalchemy_url) as connection:
        stored = [tuple(row) for row in connection.execute(select(AuditEntry.before, AuditEntry.after))]
    read = client.get("/audit", headers={"Accept": "application/x-ndjson"}).text
    for text in (json.dumps(stored), read):
        assert SECRET not in text
        assert key not in text
        assert "$sealed" not in text
        assert "***" in text


def test_pages_by_cursor_never_overlap_though_entries_are_added(lonely: Api) -> None:
    actor = unique("pages")
    client = lonely.as_key(make_key(lonely, actor, "configure"))
    for _ in range(5):
        make_channel(client)
    first = lonely.get("/audit", actor=actor, limit=2)
    assert (first["pagination"]["total"], first["pagination"]["has_more"]) == (5, True)
    make_channel(client)
    found, page = [*first["data"]], first
    while cursor := page["pagination"]["next_cursor"]:
        page = lonely.get("/audit", actor=actor, limit=2, cursor=cursor)
        assert page["pagination"]["total"] is None
        found += page["data"]
    assert len({one["id"] for one in found}) == len(found) == 5
    assert [one["at"] for one in found] == sorted((one["at"] for one in found), reverse=True)
    assert not page["pagination"]["has_more"]
    for wrong in ("x", "W10", "WyIyMDI2LTAxLTAxIiwgIjEiXQ", "é"):
        assert lonely.client.get("/audit", params={"cursor": wrong}).status_code == 422, wrong


def test_the_filters_find_what_they_say(lonely: Api) -> None:
    actor = unique("filters")
    client = lonely.as_key(make_key(lonely, actor, "configure"))
    name, made = make_channel(client)
    client.patch(f"/alerts/channels/{name}", json={"enabled": False})
    client.delete(f"/alerts/channels/{name}")

    def actions(**query: Any) -> list[str]:
        return [one["action"] for one in entries(lonely, actor=actor, **query)]

    assert actions() == ["deleted", "updated", "created"]
    assert actions(action=["created", "deleted"]) == ["deleted", "created"]
    assert actions(resource=f"channel:{made.json()['id']}") == actions(resource="channel") == actions()
    assert actions(resource=["source", "key:admin"]) == []
    times = [one["at"] for one in entries(lonely, actor=actor)]
    assert actions(since=times[1]) == ["deleted", "updated"]
    assert actions(until=times[1]) == ["updated", "created"]
    assert len(entries(lonely, actor=["nobody", actor])) == 3


def test_an_export_has_every_entry(lonely: Api) -> None:
    actor = unique("=exports")
    client = lonely.as_key(make_key(lonely, actor, "configure"))
    for _ in range(3):
        make_channel(client)
    listed = entries(lonely, actor=actor)
    lines = lonely.client.get("/audit", params={"actor": actor}, headers={"Accept": "application/x-ndjson"})
    assert lines.headers["Content-Type"] == "application/x-ndjson"
    assert [json.loads(line) for line in lines.text.splitlines()] == listed
    table = lonely.client.get("/audit", params={"actor": actor}, headers={"Accept": "text/csv"})
    assert 'filename="audit.csv"' in table.headers["Content-Disposition"]
    rows = list(csv.DictReader(io.StringIO(table.text)))
    assert [row["id"] for row in rows] == [one["id"] for one in listed]
    # No spreadsheet takes it for a formula.
    assert {row["actor"] for row in rows} == {f"'{actor}"}
    assert json.loads(rows[0]["after"]) == listed[0]["after"]
    printed = invoke(lonely, "audit", "export", "--since", "2026-01-01")
    assert printed.exit_code == 0, printed.output
    assert {one["id"] for one in listed} <= {entry["id"] for entry in ndjson(printed.stdout)}
    assert ndjson(invoke(lonely, "audit", "export", "--until", "2020-01-01").stdout) == []
    assert invoke(lonely, "audit", "export", "--since", "soon").exit_code == 1


def ndjson(text: str) -> list[Entry]:
    # An API in this process may log at the same time.
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def test_commands_are_changes_of_the_user_who_runs_them(lonely: Api) -> None:
    name = unique("by-hand")
    make_key(lonely, name, "read", domains=["finra.*"])
    assert invoke(lonely, "keys", "expire", name, "2099-01-31").exit_code == 0
    assert invoke(lonely, "keys", "revoke", name).exit_code == 0
    assert invoke(lonely, "keys", "revoke", name).exit_code == 1
    revoked, updated, created = entries(lonely, resource=f"key:{name}")
    for entry, action in ((revoked, "revoked"), (updated, "updated"), (created, "created")):
        assert (entry["action"], entry["actor_kind"], entry["request_id"]) == (action, "CLI", None)
        assert entry["actor"]
    assert created["after"] == {"scopes": ["read"], "domains": ["finra.*"], "expires_at": None}
    assert (updated["before"]["expires_at"], updated["after"]["expires_at"][:10]) == (None, "2099-01-31")
    (upgraded, *_) = entries(lonely, resource="database")
    assert (upgraded["action"], upgraded["actor_kind"]) == ("upgraded", "CLI")


def test_a_change_in_prefect_that_may_have_been_made_stays_started(lonely: Api) -> None:
    answer = lonely.client.post("/workflows/trigger/anything", headers={"Idempotency-Key": unique("once")})
    assert answer.status_code == 503
    (entry,) = entries(lonely, request_id=answer.headers["X-Request-ID"])
    assert (entry["action"], entry["outcome"]) == ("started", "STARTED")
    assert entry["resource_id"] == f"spine-{entry['id']}"


def test_only_administrators_read_it(lonely: Api) -> None:
    reader = lonely.as_key(make_key(lonely, unique("reader"), "configure"))
    for accept in ("application/json", "text/csv"):
        assert reader.get("/audit", headers={"Accept": accept}).status_code == 403


def test_an_entry_that_cannot_be_read_is_left_out_and_hides_no_other(lonely: Api) -> None:
    actor = unique("odd")
    client = lonely.as_key(make_key(lonely, actor, "configure"))
    made = [make_channel(client)[1].json()["id"] for _ in range(3)]
    with in_database(lonely.settings.sqlalchemy_url) as connection:
        strange = update(AuditEntry).where(AuditEntry.resource_id == made[1])
        connection.execute(strange.values(outcome="STRANGE"))
    assert [one["resource_id"] for one in entries(lonely, actor=actor)] == [made[2], made[0]]
    lines = lonely.client.get("/audit", params={"actor": actor}, headers={"Accept": "application/x-ndjson"}).text
    assert len(lines.splitlines()) == 2
