"""PagerDuty, through its Events API."""

from collections.abc import Mapping

from apprise.plugins.base import NotifyBase
from apprise.plugins.pagerduty import NotifyPagerDuty

from spine.alerts.channels.base import ASSET, ChannelConfig, LongSecret
from spine.alerts.inert_text import readable
from spine.alerts.messages import AlertMessage
from spine.severity import Severity

_SEVERITIES = {
    Severity.INFO: "info",
    Severity.WARNING: "warning",
    Severity.ERROR: "error",
    Severity.CRITICAL: "critical",
}


class PagerDutyConfig(ChannelConfig):
    """The routing key of a PagerDuty integration."""

    routing_key: LongSecret

    def shown(self, text: str) -> str:
        """The text without control characters: it is shown as it is."""
        return readable(text)

    def plugin(self, message: AlertMessage, recipient: str | None, secrets: Mapping[str, str]) -> NotifyBase:
        """Apprise's plugin. Apprise needs two keys; the Events API uses only the routing key."""
        key = self.routing_key.get_secret_value()
        return NotifyPagerDuty(
            apikey=key, integrationkey=key, source=message.source, severity=_SEVERITIES[message.severity], asset=ASSET
        )
