"""What `/metrics` has, and what it has not: text that a client chose."""

from tests.monitoring.conftest import CHOSEN
from tests.monitoring.support import metrics_of, value_of
from tests.support.stack import Api
from tests.support.web import WEB

FAMILIES = {
    "spine_http_requests_total": {"method", "route", "status"},
    "spine_http_request_duration_seconds_bucket": {"method", "route", "le"},
    "spine_prefect_calls_total": {"result"},
    "spine_prefect_call_duration_seconds_bucket": {"le"},
    "spine_follower_lag_seconds": set(),
    "spine_follower_leader": set(),
    "spine_follower_has_leader": set(),
    "spine_alert_deliveries_pending": set(),
    "spine_alert_deliveries_oldest_pending_seconds": set(),
    "spine_alert_deliveries_overdue_seconds": set(),
    "spine_alert_delivery_attempts_total": {"channel_type", "result"},
    "spine_alert_channels_failing": {"channel_type"},
    "spine_fetches_last_hour": {"status"},
    "spine_cache_entries": set(),
    "spine_cache_bytes": set(),
    "spine_database_connections": {"state"},
    "spine_workers_online": set(),
    "spine_runs_without_heartbeat": set(),
    "spine_schema_version": set(),
    "spine_dependency_up": {"part"},
}


def test_every_family_is_there_with_its_labels(busy: Api) -> None:
    found = metrics_of(busy)
    assert {name: set(found[name]) - {"__name__"} for name in FAMILIES} == FAMILIES
    assert found["spine_dependency_up"]["part"] == {"database", "prefect"}


def test_requests_are_counted_by_the_path_of_their_route(busy: Api) -> None:
    which = {"method": "GET", "route": "/api/v1/sources/{source_id}"}
    before = value_of(busy, "spine_http_requests_total", status="404", **which)
    assert before >= 1
    assert busy.client.get(f"/sources/{CHOSEN}").status_code == 404
    # It is counted when the client has its answer.
    assert value_of(busy, "spine_http_requests_total", status="404", **which) == before + 1
    assert value_of(busy, "spine_http_request_duration_seconds_count", **which) >= before + 1
    assert value_of(busy, "spine_http_requests_total", route="unmatched", status="404") >= 1
    refused = WEB.get(f"{busy.url}/api/v1/sources", headers={"X-API-Key": "wrong"})
    assert refused.status_code == 401
    assert value_of(busy, "spine_http_requests_total", route="/api/v1/sources", status="401") >= 1


def test_no_label_has_what_a_client_chose(busy: Api) -> None:
    text = WEB.get(f"{busy.url}/metrics").text
    assert CHOSEN not in text.lower()
    assert "s3cr3t" not in text
    methods = metrics_of(busy)["spine_http_requests_total"]["method"]
    assert "other" in methods
    assert methods <= {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other"}


def test_calls_to_prefect_are_counted_by_their_result(busy: Api) -> None:
    before = {result: value_of(busy, "spine_prefect_calls_total", result=result) for result in ("ok", "not_found")}
    assert before["ok"] > 0
    assert busy.client.get("/schedules/00000000-0000-0000-0000-000000000000").status_code == 404
    assert value_of(busy, "spine_prefect_calls_total", result="not_found") >= before["not_found"] + 1
