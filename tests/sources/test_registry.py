"""Sources as clients register, read and change them."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from spine.prefect.client import Prefect
from spine.schedules.listing import ScheduleListing
from spine.sources.schedule import SourceSchedules
from spine.sources.schemas import SourceCreate
from spine.tables.sources import Source
from sqlalchemy import select

from tests.run_history.support import until
from tests.sources.support import CALLER, Desk
from tests.support.proxy import Proxy
from tests.support.stack import ADMIN_KEY, Api, PrefectStack

REF = "env:SPINE_SECRET_DESK_PASSWORD"
HTTP = {"url": "https://feeds.example.com/a.csv?key=s3cr3t", "headers": {"X-Desk": "s3cr3t-too"}}


@pytest.fixture
def registry(either_api: Api) -> Iterator[Api]:
    """The API on either database."""
    yield either_api
    for source in either_api.get("/sources", limit=100)["data"]:
        either_api.client.delete(f"/sources/{source['id']}")


def body(name: str | None = None, **fields: Any) -> dict[str, Any]:
    name = f"source-{uuid4().hex[:8]}" if name is None else name
    return {"name": name, "source_type": "http", "config": {"url": "https://feeds.example.com/a.csv"}, **fields}


def make(registry: Api, **fields: Any) -> dict[str, Any]:
    response = registry.client.post("/sources", json=body(**fields))
    assert response.status_code == 201, response.text
    assert response.json()["status"] == "created"
    found: dict[str, Any] = registry.get(f"/sources/{response.json()['id']}")
    return found


def test_a_new_source_has_every_field_of_the_contract(registry: Api) -> None:
    made = make(registry, name="Desk rates", domain="desk.rates", parser_type="CSV", parser_config={"delimiter": ";"})
    assert registry.get("/sources/Desk rates") == made
    fields = {name: made[name] for name in ("name", "source_type", "domain", "enabled", "parser_type", "parser_config")}
    assert fields == {
        "name": "Desk rates",
        "source_type": "http",
        "domain": "desk.rates",
        "enabled": True,
        "parser_type": "csv",
        "parser_config": {"delimiter": ";"},
    }
    untouched = [
        *("last_fetch_at", "last_fetch_status", "last_fetch_error", "next_fetch_at", "cron_expression"),
        *("avg_fetch_duration_ms", "last_content_hash", "last_etag", "last_modified"),
    ]
    assert {made[name] for name in untouched} == {None}
    assert (made["total_fetches"], made["success_rate"], made["consecutive_failures"]) == (0, 0.0, 0)
    assert made["created_by"] == "admin"


def test_secrets_are_shown_as_stars_and_sending_stars_keeps_them(registry: Api) -> None:
    made = make(registry, config=HTTP)
    assert made["config"] == {
        "url": "https://feeds.example.com/a.csv",
        "query": "***",
        "headers": {"X-Desk": "***"},
        "method": "GET",
    }
    kept = registry.client.patch(f"/sources/{made['id']}", json={"config": made["config"]})
    assert kept.status_code == 200, kept.text
    assert kept.json()["config"] == made["config"]
    lost = registry.client.patch(
        f"/sources/{made['id']}", json={"config": {**made["config"], "headers": {"X-New": "***"}}}
    )
    assert lost.status_code == 400
    assert not [answer for answer in registry.answers if "s3cr3t" in answer]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"source_type": "file", "config": {"path": "/etc/hostname"}}, "SPINE_FILE_ROOTS"),
        ({"source_type": "file", "config": {"path": "zip://a.csv::/etc/x.zip"}}, "path"),
        ({"config": {"url": "file:///etc/passwd"}}, "url"),
        ({"config": {"url": "http://169.254.169.254/latest"}}, "169.254.169.254"),
        ({"config": {"url": "http://127.0.0.1/x"}}, "SPINE_ALLOW_PRIVATE_ADDRESSES"),
        ({"config": {"url": "https://feeds.example.com", "auth": {"type": "basic", "password": "x"}}}, "auth"),
        ({"config": {"url": "https://feeds.example.com", "nonsense": 1}}, "nonsense"),
        ({"source_type": "s3", "config": {"bucket": "desk", "key": "simplecache::x"}}, "key"),
        (
            {"source_type": "sftp", "config": {"host": "h", "username": "u", "path": "/x", "password_ref": REF}},
            "host_key",
        ),
        ({"source_type": "database", "config": {"connection": "nobody", "query": "SELECT 1"}}, "connection"),
        ({"parser_config": {"delimiter": "too long"}}, "delimiter"),
        ({"parser_config": {"encoding": "klingon"}}, "encoding"),
        ({"parser_config": {"nonsense": 1}}, "nonsense"),
        ({"parser_config": {"footer_pattern": "("}}, "must be a regular expression as RE2 takes it: missing )"),
        ({"parser_config": {"skip_footer_rows": 101}}, "skip_footer_rows"),
        ({"parser_config": {"max_bad_fraction": 1.5}}, "max_bad_fraction"),
        ({"cron_expression": "every monday"}, "cron"),
        ({"name": "with/slash"}, "name"),
        ({"name": "cache"}, "reserved"),
        ({"name": "01J00000000000000000000001"}, "id"),
    ],
)
def test_a_wrong_value_is_400_and_creates_nothing(registry: Api, fields: dict[str, Any], expected: str) -> None:
    before = registry.get("/sources")["pagination"]["total"]
    response = registry.client.post("/sources", json=body(**fields))
    assert response.status_code == 400, response.text
    assert expected in response.text
    assert registry.get("/sources")["pagination"]["total"] == before


@pytest.mark.parametrize(
    "fields",
    [{"source_type": "ftp"}, {"unknown": 1}, {"config": "x"}, {"enabled": "no"}, {"parser_type": "xls"}, {"name": ""}],
)
def test_a_wrong_shape_is_422(registry: Api, fields: dict[str, Any]) -> None:
    assert registry.client.post("/sources", json=body(**fields)).status_code == 422


def test_a_name_can_be_used_once(registry: Api) -> None:
    make(registry, name="taken")
    assert registry.client.post("/sources", json=body(name="taken")).status_code == 409
    other = make(registry)
    assert registry.client.patch(f"/sources/{other['id']}", json={"name": "taken"}).status_code == 409
    assert registry.get(f"/sources/{other['id']}")["name"] == other["name"]


def schedule(name: str, workflow: str, tags: list[str], **params: Any) -> dict[str, Any]:
    return {
        "name": name,
        "target_type": "WORKFLOW",
        "target_name": workflow,
        "target_params": params,
        "tags": tags,
        "cron_expression": "0 6 * * MON",
    }


async def test_no_source_is_left_when_the_creation_of_its_schedule_is_cancelled(
    desk: Desk, stack: PrefectStack, proxy: Proxy
) -> None:
    new = SourceCreate.model_validate(body(cron_expression="0 6 * * *"))
    with temporary_settings({PREFECT_API_URL: proxy.url}):
        async with Prefect.connect(60) as prefect:
            schedules = SourceSchedules(prefect, desk.context.sessions, ScheduleListing(), CALLER)
            making = asyncio.create_task(replace(desk.registry, schedules=schedules).create(CALLER, new))
            await until(partial(is_any_source_of, desk), "its row", 30)
            with proxy.hanging():
                await asyncio.sleep(0.5)
                assert not making.done()
                making.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await making
    assert not await is_any_source_of(desk)


async def is_any_source_of(desk: Desk) -> bool:
    async with desk.context.sessions() as session:
        return (await session.scalars(select(Source.id))).first() is not None


def test_a_foreign_schedule_with_the_name_that_a_source_needs_stays(registry: Api) -> None:
    name = f"weekly-{uuid4().hex[:8]}"
    tag, gone = f"source:{name}", "01J00000000000000000000001"
    week = {"week_ending": "2026-01-05", "tier": "OTC"}
    for theirs in (
        schedule(f"fetch-{name}", "finra.weekly_refresh", [tag], source=gone, **week),
        schedule(f"fetch-{name}", "spine.fetch_source", [tag], source="weekly-otc"),
        schedule(f"fetch-{name}", "spine.fetch_source", [], source=gone),
    ):
        made = registry.client.post("/schedules", json=theirs)
        assert made.status_code == 201, made.text
        refused = registry.client.post("/sources", json=body(name, cron_expression="0 6 * * *"))
        assert refused.status_code == 409, refused.text
        assert (
            registry.get(f"/schedules/{made.json()['id']}")["target_params"]["source"]
            == theirs["target_params"]["source"]
        )
        assert registry.client.delete(f"/schedules/{made.json()['id']}").status_code == 200


def test_the_leftover_schedule_of_a_source_that_was_never_created_is_replaced(registry: Api) -> None:
    name = f"weekly-{uuid4().hex[:8]}"
    left = schedule(f"fetch-{name}", "spine.fetch_source", [f"source:{name}"], source="01J00000000000000000000001")
    assert registry.client.post("/schedules", json=left).status_code == 201
    made = make(registry, name=name, cron_expression="0 6 * * *")
    assert registry.get(f"/schedules/fetch-{name}")["target_params"]["source"] == made["id"]


def test_only_what_is_sent_changes(registry: Api) -> None:
    made = make(registry, domain="desk.rates", parser_type="csv")
    changed = registry.client.patch(f"/sources/{made['id']}", json={"domain": None, "name": "renamed"}).json()
    assert (changed["domain"], changed["name"], changed["parser_type"]) == (None, "renamed", "csv")
    assert changed["updated_at"] > made["updated_at"]
    for wrong in ({"source_type": "file"}, {"name": None}, {"config": None}, {"enabled": None}):
        assert registry.client.patch(f"/sources/{made['id']}", json=wrong).status_code == 422


def test_lists_are_newest_first_and_filtered(registry: Api) -> None:
    first = make(registry, domain="desk.rates")
    second = make(registry, enabled=False)
    listed = registry.get("/sources")
    assert [one["id"] for one in listed["data"]] == [second["id"], first["id"]]
    assert [one["id"] for one in registry.get("/sources", domain="desk.rates")["data"]] == [first["id"]]
    assert [one["id"] for one in registry.get("/sources", enabled=False)["data"]] == [second["id"]]
    assert registry.get("/sources", source_type="S3")["data"] == []
    assert registry.client.get("/sources", params={"source_type": "ftp"}).status_code == 422
    page = registry.get("/sources", offset=1, limit=1)
    assert ([one["id"] for one in page["data"]], page["pagination"]["total"]) == ([first["id"]], 2)


def test_an_unknown_source_or_fetch_is_404(registry: Api) -> None:
    for path in ("/sources/nobody", "/sources/nobody/fetches", "/sources/fetches/nobody", "/sources/%00"):
        assert registry.client.get(path).status_code == 404, path
    assert registry.client.delete("/sources/nobody").status_code == 404
    assert registry.client.patch("/sources/nobody", json={"enabled": True}).status_code == 404
    assert registry.client.post("/sources/nobody/fetch").status_code == 404


def test_a_disabled_source_is_not_fetched(registry: Api) -> None:
    made = make(registry, enabled=False)
    assert registry.client.post(f"/sources/{made['id']}/fetch").status_code == 409
    assert registry.get(f"/sources/{made['id']}/fetches")["data"] == []


@pytest.mark.slow
def test_a_fetch_that_was_answered_with_503_leaves_nothing_and_can_be_repeated(proxied_api: Api, proxy: Proxy) -> None:
    impatient = proxied_api.as_key(ADMIN_KEY)
    made = {"name": body()["name"]}
    made |= impatient.post("/sources", json=body(name=made["name"])).json()
    with proxy.refusing():
        assert impatient.post(f"/sources/{made['id']}/fetch").status_code == 503
    assert impatient.get(f"/sources/{made['id']}/fetches").json()["data"] == []
    assert impatient.get("/alerts", params={"source": made["name"]}).json()["data"] == []
    found = impatient.get(f"/sources/{made['id']}").json()
    assert (found["total_fetches"], found["last_fetch_status"], found["consecutive_failures"]) == (0, None, 0)
    assert impatient.post(f"/sources/{made['id']}/fetch").status_code == 201
