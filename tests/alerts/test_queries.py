"""Lists of alerts and their statistics."""

from datetime import datetime, timedelta
from uuid import uuid4

from tests.alerts.support import Alerts
from tests.support.receivers import Receiver, refuse


def test_filters_combine_and_pages_do_not_overlap(alerts: Alerts) -> None:
    source = f"source-{uuid4().hex[:8]}"
    made = [
        alerts.alert(source=source, severity=severity, domain=domain)
        for severity in ("ERROR", "WARNING")
        for domain in ("a", "b", None)
    ]
    pages = [alerts.api.get("/alerts", source=source, limit=4, offset=offset) for offset in (0, 4)]
    assert [row["id"] for page in pages for row in page["data"]] == made[::-1]
    assert [page["pagination"]["has_more"] for page in pages] == [True, False]
    found = alerts.api.get("/alerts", source=source, severity="error", domain="b")
    assert [row["id"] for row in found["data"]] == [made[1]]
    third = datetime.fromisoformat(alerts.read(made[2])["created_at"])
    since = alerts.api.get("/alerts", source=source, since=third.isoformat())
    assert [row["id"] for row in since["data"]] == made[:1:-1]
    later = alerts.api.get("/alerts", source=source, since=(third + timedelta(days=1)).isoformat())
    assert (later["data"], later["pagination"]["total"]) == ([], 0)
    assert alerts.client.get("/alerts", params={"severity": "FATAL"}).status_code == 422
    assert alerts.client.get("/alerts", params={"since": "yesterday"}).status_code == 422
    assert alerts.api.get("/alerts", source="nul\x00")["data"] == []
    for missing in ("01ARZ3NDEKTSV4RRFFQ69G5FAV", "no-id", "nul%00"):
        assert alerts.client.get(f"/alerts/{missing}").status_code == 404


def test_statistics_count_alerts_and_deliveries(alerts: Alerts, desk: Receiver) -> None:
    before = alerts.api.get("/alerts/stats", period="HOUR")
    source = f"counted-{uuid4().hex[:8]}"
    alerts.channel(desk)
    for severity, domain in (("ERROR", f"{source}.x"), ("ERROR", None), ("CRITICAL", f"{source}.x")):
        alerts.settled(alerts.alert(source=source, severity=severity, domain=domain))
    desk.always = refuse(404)
    alerts.settled(alerts.alert(source=source, severity="INFO"))
    after = alerts.api.get("/alerts/stats", period="hour")
    assert after["period"] == "hour"
    # The abandoned delivery raises another alert.
    assert after["by_source"][source] == 4
    assert after["by_domain"][f"{source}.x"] == 2
    assert after["by_severity"]["CRITICAL"] == before["by_severity"].get("CRITICAL", 0) + 1
    assert sum(after["by_severity"].values()) == after["total_alerts"]
    assert 0 < after["delivery_success_rate"] < 1
    assert after["avg_delivery_time_ms"] > 0
    assert alerts.api.get("/alerts/stats")["period"] == "day"
    assert alerts.client.get("/alerts/stats", params={"period": "year"}).status_code == 422
