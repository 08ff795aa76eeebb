"""Reads the audit trail."""

from dataclasses import replace
from typing import Any
from uuid import uuid4

import httpx

from tests.support.stack import Api

Entry = dict[str, Any]


# What each operation is called, and on what.
ENTRIES = {
    "create_schedule": ("created", "schedule"),
    "update_schedule": ("updated", "schedule"),
    "delete_schedule": ("deleted", "schedule"),
    "enable_schedule": ("enabled", "schedule"),
    "disable_schedule": ("disabled", "schedule"),
    "run_schedule_now": ("started", "run"),
    "trigger_workflow": ("started", "run"),
    "cancel_run": ("cancelled", "run"),
    "retry_run": ("retried", "run"),
    "acknowledge_alert": ("acknowledged", "alert"),
    "resolve_alert": ("resolved", "alert"),
    "reopen_alert": ("reopened", "alert"),
    "create_source": ("created", "source"),
    "update_source": ("updated", "source"),
    "delete_source": ("deleted", "source"),
    "fetch_source": ("started", "fetch"),
    "clear_cache": ("cleared", "cache"),
    "create_connection": ("created", "connection"),
    "delete_connection": ("deleted", "connection"),
    "test_connection": ("tested", "connection"),
    "create_alert_channel": ("created", "channel"),
    "update_alert_channel": ("updated", "channel"),
    "delete_alert_channel": ("deleted", "channel"),
    "test_alert_channel": ("tested", "channel"),
    "create_alert": ("raised", "alert"),
    "create_key": ("created", "key"),
    "revoke_key": ("revoked", "key"),
}
WITHOUT_BEFORE = {"created", "started", "tested", "raised", "cleared"}


def entries(api: Api, **query: Any) -> list[Entry]:
    """The entries that a query finds, newest first."""
    found: list[Entry] = api.get("/audit", limit=100, **query)["data"]
    return found


def as_one_request(api: Api) -> tuple[Api, str]:
    """The API whose client sends each request with the same id, and that id."""
    request_id = f"audit-{uuid4().hex}"
    made = replace(api)
    made.client.headers["X-Request-ID"] = request_id
    return made, request_id


def made_by(api: Api, answer: httpx.Response) -> Entry:
    """The one entry of the request with this answer."""
    assert answer.is_success, answer.text
    (entry,) = entries(api, request_id=answer.headers["X-Request-ID"])
    return entry


def check_one_entry(api: Api, request_id: str, operation: str) -> None:
    """Check that the request has left exactly one entry, and what it has."""
    (entry,) = entries(api, request_id=request_id)
    assert (entry["action"], entry["resource_type"]) == ENTRIES[operation]
    assert (entry["actor"], entry["actor_kind"], entry["address"]) == ("admin", "KEY", "127.0.0.1")
    assert entry["outcome"] == "DONE"
    assert entry["resource_id"] not in ("", "None")
    assert (entry["before"] is None) == (entry["action"] in WITHOUT_BEFORE)
    assert (entry["after"] is None) == (entry["action"] in {"deleted", "revoked"})
    assert entry["before"] != entry["after"]
