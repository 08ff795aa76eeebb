"""Helpers for tests of alerts: create channels, raise alerts, and wait for their deliveries."""

from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
from sqlalchemy import Executable

from tests.support.databases import in_database
from tests.support.processes import wait_until
from tests.support.receivers import Receiver
from tests.support.stack import Api


@dataclass
class Alerts:
    """Alerts over one API."""

    api: Api

    @property
    def client(self) -> httpx.Client:
        """The admin's client."""
        return self.api.client

    def channel(self, desk: Receiver | None = None, **fields: Any) -> dict[str, Any]:
        """Create a channel that gets all alerts unthrottled; a webhook to `desk`, unless `fields` change that."""
        body = {
            "name": f"desk-{uuid4().hex[:8]}",
            "channel_type": "webhook",
            "config": {"url": desk.url if desk else "https://example.com/none"},
            "min_severity": "INFO",
            "throttle_minutes": 0,
            **fields,
        }
        made = self.client.post("/alerts/channels", json=body)
        assert made.status_code == 201, made.text
        found: dict[str, Any] = self.api.get(f"/alerts/channels/{made.json()['id']}")
        return found

    def post(self, **fields: Any) -> httpx.Response:
        """Send a request to raise an alert."""
        body = {"severity": "ERROR", "title": "Rows are missing", "message": "3 of 9", "source": "desk.load", **fields}
        return self.client.post("/alerts", json=body)

    def alert(self, **fields: Any) -> str:
        """Raise an alert and return its id."""
        response = self.post(**fields)
        assert response.status_code == 201, response.text
        return str(response.json()["id"])

    def read(self, alert_id: str) -> dict[str, Any]:
        """An alert with its deliveries."""
        found: dict[str, Any] = self.api.get(f"/alerts/{alert_id}")
        return found

    def settled(self, alert_id: str, seconds: float = 20) -> dict[str, Any]:
        """An alert once none of its deliveries is pending."""
        found: dict[str, Any] = {}

        def is_settled() -> bool:
            found.update(self.read(alert_id))
            return all(one["status"] != "PENDING" for one in found["deliveries"])

        wait_until(is_settled, f"the deliveries of alert {alert_id}", seconds, every=0.05)
        return found

    def delivery(self, alert_id: str) -> dict[str, Any]:
        """The only delivery of an alert, once it is settled."""
        (delivery,) = self.settled(alert_id)["deliveries"]
        found: dict[str, Any] = delivery
        return found

    def delete_channels(self) -> None:
        """Delete all channels."""
        while rows := self.api.get("/alerts/channels", limit=100)["data"]:
            for row in rows:
                self.client.delete(f"/alerts/channels/{row['id']}")

    def act(self, alert_id: str, action: str, **body: Any) -> httpx.Response:
        """Acknowledge, resolve or reopen an alert."""
        return self.client.post(f"/alerts/{alert_id}/{action}", json=body)

    def done(self, alert_id: str, action: str, **body: Any) -> dict[str, Any]:
        """The alert after an action, which succeeds."""
        answer = self.act(alert_id, action, **body)
        assert answer.status_code == 200, answer.text
        shown: dict[str, Any] = answer.json()
        assert shown["id"] == alert_id
        return shown

    def change(self, statement: Executable) -> None:
        """Change rows, past all that Spine does with them."""
        with in_database(self.api.settings.sqlalchemy_url) as connection:
            connection.execute(statement)
