"""A row of Spine's own tables that holds something unknown stops neither lists nor alerts nor metrics."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from spine.oddities import ODDITIES
from spine.tables import Base
from sqlalchemy import Connection, insert, select, text

from tests.alerts.conftest import FAST_RETRIES
from tests.alerts.support import Alerts
from tests.support.api_here import api_here
from tests.support.databases import LentDatabases, in_database
from tests.support.processes import wait_until
from tests.support.receivers import receiver
from tests.support.stack import Api, PrefectStack
from tests.support.variants import one_by_default
from tests.support.web import WEB

LISTS = {
    "alert_channels": ("/alerts/channels", "channel_type", "channel"),
    "alerts": ("/alerts", "severity", "alert"),
    "sources": ("/sources", "source_type", "source"),
    "database_connections": ("/sources/connections", "db_type", "connection"),
}


@pytest.fixture(scope="module", params=one_by_default(["sqlite", "postgresql"]))
def api(request: pytest.FixtureRequest, stack: PrefectStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """An API on a database of its own."""
    folder = Path(tmp_path_factory.mktemp("poisoned-rows"))
    if request.param == "sqlite":
        with api_here(stack.url, stack.home, folder, **FAST_RETRIES) as made:
            yield made
        return
    databases: LentDatabases = request.getfixturevalue("postgresql_databases")
    with databases.lend() as url, api_here(stack.url, stack.home, folder, url, **FAST_RETRIES) as made:
        yield made


def poison(connection: Connection, table_name: str, row_id: str, **values: Any) -> str:
    """Store a copy of a row with these values and give its id."""
    table = Base.metadata.tables[table_name]
    row = dict(connection.execute(select(table).where(table.c.id == row_id)).mappings().one())
    copy_id = f"{row_id[:10]}{uuid4().hex[:16].upper()}"
    unique = {name: f"odd-{uuid4().hex[:8]}" for name in ("name", "cause") if name in row}
    connection.execute(insert(table), [{**row, **unique, "id": copy_id, **values}])
    return copy_id


def make_good(api: Api, table: str) -> str:
    """Make a good row of a table over the API and give its id."""
    name = f"good-{uuid4().hex[:8]}"
    bodies: dict[str, dict[str, Any]] = {
        "alert_channels": {"channel_type": "webhook", "config": {"url": "http://127.0.0.1:9/a"}},
        "alerts": {"severity": "ERROR", "title": name, "message": "m", "source": "poison.test"},
        "sources": {"source_type": "http", "config": {"url": "http://127.0.0.1:9/a"}},
        "database_connections": {"db_type": "postgresql", "host": "127.0.0.1", "port": 9, "database": "d"},
    }
    body = bodies[table] if table == "alerts" else {"name": name, **bodies[table]}
    made = api.client.post(LISTS[table][0], json=body)
    assert made.status_code == 201, made.text
    return str(made.json()["id"])


@pytest.mark.parametrize("table", list(LISTS))
def test_a_list_shows_the_rows_beside_one_with_an_unknown_value(api: Api, table: str) -> None:
    path, column, kind = LISTS[table]
    good = make_good(api, table)
    with in_database(api.settings.sqlalchemy_url) as connection:
        odd = poison(connection, table, good, **{column: "STRANGE"})
    shown = {one["id"] for one in api.get(path, limit=100)["data"]}
    assert good in shown
    assert odd not in shown
    assert ODDITIES.knows(kind, odd)
    assert WEB.get(f"{api.url}/health/ready").json()["records"]["state"] == "degraded"
    assert f'spine_records_set_aside{{kind="{kind}"}}' in WEB.get(f"{api.url}/metrics").text


def test_a_channel_of_an_unknown_severity_and_an_alert_of_one_delay_no_other_alert(api: Api) -> None:
    alerts = Alerts(api)
    with receiver() as desk:
        channel = alerts.channel(desk)
        with in_database(api.settings.sqlalchemy_url) as connection:
            odd_alert = poison(connection, "alerts", make_good(api, "alerts"), severity="STRANGE")
            poison(connection, "alert_channels", channel["id"], min_severity="STRANGE")
            deliveries = Base.metadata.tables["alert_deliveries"]
            (row,) = connection.execute(select(deliveries).limit(1)).mappings()
            again = {"alert_id": odd_alert, "id": "0" * 26, "status": "PENDING", "due_at": row["created_at"]}
            values = {**row, **again, "channel_id": channel["id"], "lease": None, "next_retry_at": None}
            connection.execute(insert(deliveries), [values])
        raised = alerts.alert(title="beside the poison")
        wait_until(lambda: any(one.json["title"] == "beside the poison" for one in desk.posts), "the alert", 20)
        assert alerts.read(raised)["delivery_count"] >= 2


def test_broken_json_in_a_row_stops_no_list_and_no_alert(api: Api) -> None:
    if api.database_url:
        pytest.skip("PostgreSQL stores valid JSON only")
    alerts = Alerts(api)
    good, source = make_good(api, "alert_channels"), make_good(api, "sources")
    with in_database(api.settings.sqlalchemy_url) as connection:
        odd = poison(connection, "alert_channels", good)
        odd_source = poison(connection, "sources", source)
        for column in ("domains", "config", "recipients"):
            change = text(f"UPDATE alert_channels SET {column} = '[broken' WHERE id = :id")  # noqa: S608
            connection.execute(change, {"id": odd})
        connection.execute(text("UPDATE sources SET config = '{' WHERE id = :id"), {"id": odd_source})
    assert good in {one["id"] for one in api.get("/alerts/channels", limit=100)["data"]}
    assert source in {one["id"] for one in api.get("/sources", limit=100)["data"]}
    with receiver() as desk:
        alerts.channel(desk)
        alerts.alert(title="beside broken JSON")
        wait_until(lambda: any(one.json["title"] == "beside broken JSON" for one in desk.posts), "the alert", 20)
    assert 'spine_records_set_aside{kind="source"}' in WEB.get(f"{api.url}/metrics").text
