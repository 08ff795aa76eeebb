"""PagerDuty, over the Events API v2: a problem opens one incident, which is acknowledged and resolved with it."""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import requests
from apprise import NotifyType
from apprise.plugins.base import NotifyBase
from apprise.plugins.pagerduty import PAGERDUTY_API_LOOKUP, NotifyPagerDuty

from spine.alerts.channels.base import ASSET, ChannelConfig, LongSecret
from spine.alerts.channels.json_post import succeeded
from spine.alerts.fitting import fit
from spine.alerts.inert_text import readable
from spine.alerts.messages import AlertMessage
from spine.severity import Severity

_SEVERITIES = {
    Severity.INFO: "info",
    Severity.WARNING: "warning",
    Severity.ERROR: "error",
    Severity.CRITICAL: "critical",
}
# PagerDuty refuses longer ones, and events of more than 512 KB.
LONGEST_SUMMARY, LONGEST_KEY, LONGEST_FIELD = 1_024, 255, 100_000


class PagerDutyConfig(ChannelConfig):
    """The routing key of a PagerDuty integration."""

    keeps_incidents = True

    routing_key: LongSecret

    def shown(self, text: str) -> str:
        """The text without control characters: it is shown as it is."""
        return readable(text)

    def plugin(self, message: AlertMessage, recipient: str | None, secrets: Mapping[str, str]) -> NotifyBase:
        """One event that opens, repeats or acknowledges an incident, or for a recovery one for each problem."""
        key = self.routing_key.get_secret_value()
        if message.resolved_keys:
            events = [{"event_action": "resolve", "dedup_key": dedup_key(one)} for one in message.resolved_keys]
        elif message.is_acknowledgement:
            events = [{"event_action": "acknowledge", "dedup_key": _key_of(message)}]
        else:
            events = [self._trigger(message)]
        return PagerDutyEvents(key, events, message.source, _SEVERITIES[message.severity])

    def _trigger(self, message: AlertMessage) -> dict[str, Any]:
        details = {
            "message": fit(self.shown(message.message), LONGEST_FIELD, message.link),
            "alert": message.path,
            "run_id": message.run_id,
            "throttled": message.held_back or None,
            "metadata": _bounded(message.metadata),
        }
        first_line = self.shown(message.message).strip().partition("\n")[0]
        payload = {
            "summary": fit(self.shown(f"{message.headline}: {first_line}".rstrip(": ")), LONGEST_SUMMARY),
            "source": self.shown(message.source),
            "severity": _SEVERITIES[message.severity],
            "timestamp": message.created_at.isoformat(),
            "group": message.domain,
            "class": message.error_category,
            "custom_details": {name: value for name, value in details.items() if value is not None},
        }
        links = [{"href": message.link, "text": "Run in Prefect"}] if message.link != message.path else []
        return {
            "event_action": "trigger",
            "dedup_key": _key_of(message),
            "client": "Spine",
            "links": links,
            "payload": {name: value for name, value in payload.items() if value is not None},
        }


def _key_of(message: AlertMessage) -> str:
    return dedup_key(message.problem_key or message.alert_id)


def dedup_key(problem: str) -> str:
    """PagerDuty's key for a problem; one that would be too long is hashed."""
    return problem if len(problem) <= LONGEST_KEY else sha256(problem.encode()).hexdigest()


def _bounded(metadata: Mapping[str, Any] | None) -> Any:
    """The metadata, or if it is too large its beginning as text."""
    text = json.dumps(metadata)
    return (dict(metadata) if metadata else None) if len(text) <= LONGEST_FIELD else fit(text, LONGEST_FIELD)


class PagerDutyEvents(NotifyPagerDuty):
    """Apprise's plugin with events of ours: its own has no key, no resolve, and a summary of any length."""

    def __init__(self, key: str, events: list[dict[str, Any]], source: str, severity: str) -> None:
        # Apprise needs two keys; the Events API uses only the routing key.
        super().__init__(apikey=key, integrationkey=key, source=source, severity=severity, asset=ASSET)  # type: ignore[no-untyped-call]
        self._events = events

    def send(self, body: str, title: str = "", notify_type: Any = NotifyType.INFO, **kwargs: Any) -> bool:
        """Send the prepared events in order; PagerDuty takes an event that it has already as the same."""
        for event in self._events:
            try:
                response = requests.post(
                    PAGERDUTY_API_LOOKUP[self.region_name],
                    json={"routing_key": self.integration_key, **event},
                    timeout=self.request_timeout,
                    allow_redirects=False,
                )
            except requests.RequestException as error:
                self.logger.debug("Socket Exception: %s", error)
                return False
            if not succeeded(response):
                return False
        return True
