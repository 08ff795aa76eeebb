"""ServiceNow: an incident through the Table API."""

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any
from urllib.parse import urlsplit

import requests
from apprise import NotifyType
from apprise.plugins.base import NotifyBase
from pydantic import AfterValidator

from spine.alerts.channels.base import ASSET, ChannelConfig, Place, ShortText, endpoints_in
from spine.alerts.channels.json_post import succeeded
from spine.alerts.fitting import fit
from spine.alerts.messages import AlertMessage
from spine.secrets.refs import check_ref
from spine.severity import Severity

# Urgency and impact in ServiceNow's numbers: 1 is high.
_URGENCY = {Severity.INFO: "3", Severity.WARNING: "3", Severity.ERROR: "2", Severity.CRITICAL: "1"}
# ServiceNow cuts longer ones without a word.
LONGEST_TITLE, LONGEST_TEXT = 160, 4_000


def _is_instance(instance: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9-]+", instance):
        return instance
    if re.fullmatch(r"[A-Za-z0-9.-]+|https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?/?", instance):
        with suppress(ValueError):
            # The port must be in range, and an IP address must be valid.
            urlsplit(instance).port  # noqa: B018
            return instance.rstrip("/")
    raise ValueError("must be the name of an instance, its host name, or its URL without a path")


class ServiceNowConfig(ChannelConfig):
    """An instance, the login that reports there, and the group that gets the incidents."""

    instance: Annotated[ShortText, AfterValidator(_is_instance)]
    username: ShortText
    password_ref: Annotated[ShortText, AfterValidator(check_ref)]
    assignment_group: ShortText

    def shortcoming(self) -> str | None:
        """Incidents stay open and unacknowledged."""
        return (
            "Spine opens an incident for each alert and can neither acknowledge nor close it: "
            "a recovery is an incident of its own."
        )

    @property
    def base_url(self) -> str:
        """The instance's URL, without a path."""
        if "://" in self.instance:
            return self.instance
        return f"https://{self.instance if '.' in self.instance else f'{self.instance}.service-now.com'}"

    def endpoints(self) -> list[Place]:
        """The host and port of the instance."""
        return endpoints_in(self.base_url)

    def plugin(self, message: AlertMessage, recipient: str | None, secrets: Mapping[str, str]) -> NotifyBase:
        """A plugin that creates one incident, however many attempts there are."""
        incident = {
            "short_description": fit(self.shown(message.headline), LONGEST_TITLE),
            "description": fit(self.shown(message.text), LONGEST_TEXT, message.link),
            "urgency": _URGENCY[message.severity],
            "impact": _URGENCY[message.severity],
            "assignment_group": self.assignment_group,
            "correlation_id": message.delivery_id,
            "correlation_display": "Spine",
        }
        return IncidentPlugin(self.base_url, (self.username, secrets["password_ref"]), incident)


class IncidentPlugin(NotifyBase):
    """An Apprise plugin that creates one incident; its correlation id prevents a second one at the next attempt."""

    service_name = "ServiceNow"  # type: ignore[assignment]
    request_rate_per_sec = 0

    def __init__(self, base_url: str, login: tuple[str, str], incident: Mapping[str, str]) -> None:
        super().__init__(asset=ASSET)  # type: ignore[no-untyped-call]
        self._table = f"{base_url}/api/now/table/incident"
        self._login = login
        self._incident = dict(incident)

    def url(self, *args: Any, **kwargs: Any) -> str:
        """A placeholder, because Apprise logs this."""
        return "servicenow://"

    def send(self, body: str, title: str = "", notify_type: Any = NotifyType.INFO, **kwargs: Any) -> bool:
        """Create the incident, unless an earlier attempt created it."""
        table = requests.Session()
        table.auth = self._login
        table.headers["Accept"] = "application/json"
        query = {"sysparm_query": f"correlation_id={self._incident['correlation_id']}", "sysparm_limit": "1"}
        try:
            existing = table.get(self._table, params={**query, "sysparm_fields": "sys_id"})
            if not succeeded(existing):
                return False
            if existing.json().get("result"):
                return True
            return succeeded(table.post(self._table, json=self._incident))
        except (requests.RequestException, ValueError, AttributeError) as error:
            self.logger.debug("Socket Exception: %s", error)
            return False
