"""The part of the HTTP contract that is about the caller, keys and the audit trail."""

from tests.api.contract_fields import Fields

KEY: Fields = {
    "id": "string",
    "name": "string",
    "scopes": "array",
    "domains": "array|null",
    "state": ["ACTIVE", "EXPIRED", "REVOKED"],
    "created_at": "date-time",
    "expires_at": "date-time|null",
    "revoked_at": "date-time|null",
    "last_used_at": "date-time|null",
}
ADMINISTRATION_MODELS: dict[str, Fields] = {
    "Me": {"id": "string", "name": "string", "kind": ["KEY", "JWT"], "scopes": "array", "domains": "array|null"},
    "ApiKeyResponse": {**KEY},
    "ApiKeyCreated": {**KEY, "key": "string"},
    "AuditEntry": {
        "id": "string",
        "at": "date-time",
        "actor": "string",
        "actor_kind": ["KEY", "JWT", "CLI", "SYSTEM", "PREFECT"],
        "action": "string",
        "resource_type": "string",
        "resource_id": "string",
        "resource_name": "string|null",
        "before": "object|null",
        "after": "object|null",
        "request_id": "string|null",
        "address": "string|null",
        "outcome": ["STARTED", "DONE"],
    },
}
ADMINISTRATION_ANSWERS = {
    ("get", "/me"): ("200", "Me"),
    ("get", "/keys"): ("200", "Page_ApiKeyResponse_"),
    ("post", "/keys"): ("201", "ApiKeyCreated"),
    ("delete", "/keys/{name}"): ("200", "ActionResponse"),
    ("get", "/audit"): ("200", "AuditPage"),
}
