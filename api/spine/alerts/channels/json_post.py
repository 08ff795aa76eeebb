"""An Apprise plugin that posts JSON to a URL, for services that Apprise supports only at the vendor's own host."""

from collections.abc import Mapping
from typing import Any

import requests
from apprise import NotifyType
from apprise.plugins.base import NotifyBase

from spine.alerts.channels.base import ASSET
from spine.alerts.messages import AlertMessage
from spine.severity import Severity

NOTIFY_TYPES = {
    Severity.INFO: NotifyType.INFO,
    Severity.WARNING: NotifyType.WARNING,
    Severity.ERROR: NotifyType.FAILURE,
    Severity.CRITICAL: NotifyType.FAILURE,
}

COLOURS = {Severity.INFO: 0x3AA3E3, Severity.WARNING: 0xE3A33A, Severity.ERROR: 0xD64541, Severity.CRITICAL: 0x8E1B1B}


def succeeded(response: requests.Response) -> bool:
    """Whether the receiver accepted the request."""
    return 200 <= response.status_code < 300


class JsonPost(NotifyBase):
    """Posts one prepared body to one URL; any 2xx status means that the receiver accepted it."""

    service_name = "Posted JSON"  # type: ignore[assignment]
    request_rate_per_sec = 0

    def __init__(self, url: str, body: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(asset=ASSET)  # type: ignore[no-untyped-call]
        self._target = url
        self._body = body.encode()
        self._headers = {"Content-Type": "application/json", "User-Agent": "Spine", **(headers or {})}

    def url(self, *args: Any, **kwargs: Any) -> str:
        """A placeholder, because the real URL is a secret and Apprise logs this."""
        return "posted-json://"

    def send(self, body: str, title: str = "", notify_type: Any = NotifyType.INFO, **kwargs: Any) -> bool:
        """Post the prepared body, which already contains `title` and `body`."""
        try:
            response = requests.post(
                self._target,
                data=self._body,
                headers=self._headers,
                timeout=self.request_timeout,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            self.logger.debug("Socket Exception: %s", error)
            return False
        return succeeded(response)


def as_json(message: AlertMessage) -> dict[str, Any]:
    """The fields of a message, for JSON."""
    return {
        "id": message.alert_id,
        "delivery_id": message.delivery_id,
        "severity": message.severity.value,
        "title": message.title,
        "message": message.message,
        "source": message.source,
        "domain": message.domain,
        "run_id": message.run_id,
        "execution_id": message.execution_id,
        "error_category": message.error_category,
        "metadata": message.metadata,
        "created_at": message.created_at.isoformat(),
        "held_back": message.held_back,
    }
