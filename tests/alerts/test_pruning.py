"""Pruning: a flow deletes old alerts, and by default only counts them."""

from datetime import timedelta

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from spine.flows.prune import prune
from spine.tables.alerts import AlertAcknowledgement
from spine.tables.base import utc_now
from sqlalchemy import create_engine, select, text

from tests.alerts.support import Alerts
from tests.support.databases import in_database
from tests.support.receivers import Receiver
from tests.support.stack import PrefectStack


def make_old(alerts: Alerts, alert_id: str, days: int) -> None:
    """Change the time of an alert to `days` ago."""
    url = alerts.api.settings.sqlalchemy_url.render_as_string(hide_password=False).replace("+aiosqlite", "")
    engine = create_engine(url)
    moment = utc_now() - timedelta(days=days)
    stored = moment if "postgresql" in url else moment.replace(tzinfo=None)
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE alerts SET created_at = :moment WHERE id = :id"), {"moment": stored, "id": alert_id}
        )
    engine.dispose()


async def test_only_old_alerts_without_pending_deliveries_are_deleted(
    alerts: Alerts, desk: Receiver, stack: PrefectStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = alerts.api.settings.sqlalchemy_url.render_as_string(hide_password=False)
    monkeypatch.setenv("SPINE_DATABASE_URL", url)
    alerts.channel(desk)
    old, young = alerts.alert(dedup_key="old"), alerts.alert()
    for one in (old, young):
        alerts.settled(one)
    alerts.done(old, "acknowledge")
    alerts.delete_channels()
    waiting_for = alerts.channel(config={"url": "http://127.0.0.1:9/"}, name="waits")
    waiting = alerts.alert()
    alerts.client.patch(f"/alerts/channels/{waiting_for['id']}", json={"enabled": False})
    for one in (old, waiting):
        make_old(alerts, one, 100)
    with temporary_settings({PREFECT_API_URL: stack.url}):
        counted = await prune(retention_days=99)
    assert counted["dry_run"] is True
    assert counted["alerts"] >= 1
    assert alerts.read(old)["delivery_count"] == 1
    with temporary_settings({PREFECT_API_URL: stack.url}):
        deleted = await prune(retention_days=99, dry_run=False)
    assert (deleted["alerts"], deleted["deliveries"]) == (counted["alerts"], counted["deliveries"])
    assert alerts.client.get(f"/alerts/{old}").status_code == 404
    with in_database(alerts.api.settings.sqlalchemy_url) as connection:
        acknowledged = select(AlertAcknowledgement.problem).where(AlertAcknowledgement.alert_id == old)
        assert connection.scalar(acknowledged) is None
    assert alerts.read(young)["delivery_count"] == 1
    assert alerts.read(waiting)["deliveries"][0]["status"] == "PENDING"
