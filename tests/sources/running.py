"""Sources over the API, whose fetches a real worker runs."""

from typing import Any
from uuid import uuid4

from tests.support.processes import wait_until
from tests.support.stack import Api


def register(api: Api, source_type: str, config: dict[str, Any], **fields: Any) -> str:
    """Register a source and return its name."""
    name = f"source-{uuid4().hex[:10]}"
    body = {"name": name, "source_type": source_type, "config": config, **fields}
    response = api.client.post("/sources", json=body)
    assert response.status_code == 201, response.text
    return name


def fetch(api: Api, name: str, **query: Any) -> str:
    """Request a fetch and return its id."""
    response = api.client.post(f"/sources/{name}/fetch", params=query)
    assert response.status_code == 201, response.text
    assert response.json()["status"] in ("PENDING", "STARTED")
    return str(response.json()["fetch_id"])


def wait_for(api: Api, fetch_id: str, *statuses: str, seconds: float = 90) -> dict[str, Any]:
    """A fetch, once it has one of these statuses (by default: once it has ended)."""
    found: list[dict[str, Any]] = []

    def reached() -> bool:
        found[:] = [api.get(f"/sources/fetches/{fetch_id}")]
        return found[0]["status"] in (statuses or ("SUCCESS", "PARTIAL", "FAILED"))

    wait_until(reached, f"fetch {fetch_id} to become {statuses or 'ended'}", seconds, every=0.2)
    return found[0]
