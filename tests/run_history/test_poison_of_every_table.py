"""Rows of every table with a column that cannot be read: lists, alerts, pruning and metrics go around and name them."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from spine.alerts.pruning import prune_alerts
from spine.cache.eviction import evict
from spine.cache.ownership import adopt_store
from spine.cache.reconciling import reconcile
from spine.cache.store import BlobStore
from spine.database import make_engine, make_sessions
from spine.oddities import ODDITIES
from spine.run_history.pruning import prune_outcomes
from spine.sources.pruning import prune_fetches
from spine.workflows.pruning import prune_requests
from sqlalchemy import text

from tests.alerts.conftest import FAST_RETRIES
from tests.alerts.support import Alerts
from tests.run_history.odd_rows import NOW, Rows, store_odd_rows
from tests.support.api_here import api_here
from tests.support.databases import LentDatabases, in_database
from tests.support.processes import wait_until
from tests.support.receivers import receiver
from tests.support.stack import FOLLOWING, Api, PrefectStack
from tests.support.variants import one_by_default
from tests.support.web import WEB

# The routes that show one row of a table, or act on it.
ONE = {
    "alert_channels": ("/alerts/channels/{}", "/alerts/channels/{}/test"),
    "alerts": ("/alerts/{}", None),
    "sources": ("/sources/{}", "/sources/{}/fetch"),
    "fetches": ("/sources/fetches/{}", None),
    "database_connections": ("/sources/connections/{}", "/sources/connections/{}/test"),
    "cache_entries": ("/sources/cache/{}/content", None),
}
LISTS = {
    "alert_channels": "/alerts/channels",
    "alerts": "/alerts",
    "sources": "/sources",
    "database_connections": "/sources/connections",
    "cache_entries": "/sources/cache",
    "audit_entries": "/audit",
    "api_keys": "/keys",
}
# Words that only the detail of a row has.
NOT_IN_LISTS = ("error_category = 'STRANGE'", "parser_type = 'STRANGE'")


@pytest.fixture(scope="module", params=one_by_default(["sqlite", "postgresql"]))
def api(request: pytest.FixtureRequest, stack: PrefectStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """An API that follows runs, on a database of its own."""
    folder, more = Path(tmp_path_factory.mktemp("odd-rows")), {**FAST_RETRIES, **FOLLOWING}
    if request.param == "sqlite":
        with api_here(stack.url, stack.home, folder, **more) as made:
            yield made
    else:
        databases: LentDatabases = request.getfixturevalue("postgresql_databases")
        with databases.lend() as url, api_here(stack.url, stack.home, folder, url, **more) as made:
            yield made
    ODDITIES.forget()


@pytest.fixture(scope="module")
def rows(api: Api) -> Rows:
    """Odd rows in all its tables. Their broken secrets must not be the ones that its key is compared with first."""
    assert ready(api)["secrets"]["state"] == "up"
    with in_database(api.settings.sqlalchemy_url) as connection:
        return store_odd_rows(connection, not api.database_url)


def test_every_list_is_shown_with_its_good_rows(api: Api, rows: Rows) -> None:
    paths = WEB.get(f"{api.url}/openapi.json").json()["paths"]
    for path, routes in paths.items():
        if "get" in routes and "{" not in path:
            answer = api.client.get(f"{api.url}{path}", params={"limit": 100} if "/api/" in path else None)
            # The dates that a preview needs are another matter, and so is a Prefect that answers late.
            assert answer.status_code in (200, 422, 503), f"{path}: {answer.text}"
    for table, path in LISTS.items():
        found = every_row(api, path)
        # Maintenance deletes the entries of the cache whose content is not stored.
        assert table == "cache_entries" or rows.good[table]["id"] in found, path
        odd = {what: one for what, one in rows.odd[table].items() if one in found}
        assert not [what for what in odd if not what.startswith(NOT_IN_LISTS) and "sealed" not in what], path


def every_row(api: Api, path: str) -> set[str]:
    found: set[str] = set()
    for offset in range(0, 10_000, 100):
        page = api.get(path, limit=100, offset=offset)
        found |= {one["id"] for one in page["data"]}
        if not page["pagination"]["has_more"]:
            break
    return found


@pytest.mark.slow
def test_one_odd_row_is_refused_by_name_and_can_be_deleted(api: Api, rows: Rows) -> None:
    for table, (path, action) in ONE.items():
        for what, row_id in rows.odd[table].items():
            answer = api.client.get(path.format(row_id))
            assert answer.status_code in (200, 404, 409, 503), f"{table}, {what}: {answer.text}"
            # The follower ends a fetch that no run has begun, and so replaces its odd time.
            is_ended = table == "fetches" and answer.json().get("error") == "The fetch was never started."
            if table != "cache_entries" and "sealed" not in what and not is_ended:
                assert answer.status_code == 409, f"{table}, {what}: {answer.text}"
                assert row_id in answer.text
            for method, route in (("POST", action), ("PATCH", path if action else None)):
                if route is not None and (method, table) != ("PATCH", "database_connections"):
                    done = api.client.request(method, route.format(row_id), json={} if method == "PATCH" else None)
                    assert done.status_code != 500, f"{method} {route}, {what}: {done.text}"
    for what, row_id in rows.odd["alerts"].items():
        for action in ("acknowledge", "resolve", "reopen"):
            done = api.client.post(f"/alerts/{row_id}/{action}")
            assert done.status_code in (200, 409), f"{action}, {what}: {done.text}"
    for table in ("alert_channels", "sources", "database_connections"):
        for what, row_id in rows.odd[table].items():
            gone = api.client.delete(ONE[table][0].format(row_id))
            assert gone.status_code in (200, 409), f"{table}, {what}: {gone.text}"


def test_an_odd_key_grants_nothing_more_and_stops_nobody(api: Api, rows: Rows) -> None:
    for key in rows.keys:
        answer = WEB.get(f"{api.url}/api/v1/alerts", headers={"Authorization": f"Bearer {key}"})
        assert answer.status_code in (200, 401, 403), answer.text
        made = WEB.post(
            f"{api.url}/api/v1/alerts/channels", headers={"Authorization": f"Bearer {key}"}, json={"name": "n"}
        )
        assert made.status_code in (401, 403), made.text


def test_an_answer_that_cannot_be_read_is_not_sent_again(api: Api) -> None:
    body = {"severity": "INFO", "title": "once", "message": "m", "source": "poison.test"}
    key = {"Idempotency-Key": uuid4().hex}
    assert api.client.post("/alerts", json=body, headers=key).status_code == 201
    broken = "x'ff'" if not api.database_url else r"'\xff'"
    with in_database(api.settings.sqlalchemy_url) as connection:
        connection.execute(text(f"UPDATE idempotent_requests SET answer = {broken} WHERE answer IS NOT NULL"))  # noqa: S608
    again = api.client.post("/alerts", json=body, headers=key)
    assert again.status_code == 409
    assert "Idempotency-Key" in again.text


def test_alerts_are_sent_and_everything_else_goes_on(api: Api, rows: Rows) -> None:
    with receiver() as desk:
        Alerts(api).channel(desk)
        Alerts(api).alert(title="beside odd rows")
        wait_until(lambda: any(one.json["title"] == "beside odd rows" for one in desk.posts), "the alert", 20)

    async def work() -> None:
        engine = make_engine(api.settings.sqlalchemy_url)
        sessions, store = make_sessions(engine), BlobStore.from_settings(api.settings)
        for prune in (prune_alerts, prune_fetches, prune_outcomes, prune_requests):
            await prune(sessions, NOW + timedelta(days=1), dry_run=True)
            await prune(sessions, NOW - timedelta(days=1), dry_run=False)
        # The content of the stored entries has never been there.
        await adopt_store(sessions, store)
        await reconcile(sessions, store)
        await evict(sessions, store, 1)
        await engine.dispose()

    asyncio.run(work())
    wait_until(lambda: ready(api)["follower"]["state"] == "up", "the follower to go on", 40)
    found = ready(api)["records"]
    assert found["state"] == "degraded"
    assert 'spine_records_set_aside{kind="channel"}' in WEB.get(f"{api.url}/metrics").text


def ready(api: Api) -> dict[str, Any]:
    found: dict[str, Any] = WEB.get(f"{api.url}/health/ready").json()
    return found
