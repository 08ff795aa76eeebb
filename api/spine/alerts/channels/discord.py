"""Discord, and services that accept the same webhooks."""

import json
from collections.abc import Mapping

from apprise.plugins.base import NotifyBase

from spine.alerts.channels.base import ChannelConfig, Place, SecretUrl, endpoints_in
from spine.alerts.channels.json_post import COLOURS, JsonPost
from spine.alerts.fitting import fit, utf16_units
from spine.alerts.messages import AlertMessage

# Discord refuses longer ones.
LONGEST_TITLE, LONGEST_TEXT = 256, 4_096


class DiscordConfig(ChannelConfig):
    """A webhook of a Discord channel."""

    webhook_url: SecretUrl

    def endpoints(self) -> list[Place]:
        """The host and port of the webhook."""
        return endpoints_in(self.webhook_url.get_secret_value())

    def plugin(self, message: AlertMessage, recipient: str | None, secrets: Mapping[str, str]) -> NotifyBase:
        """A post of the message; Apprise's plugin would turn text into mentions."""
        embed = {
            "title": fit(self.shown(message.headline), LONGEST_TITLE, measure=utf16_units),
            "description": fit(self.shown(message.text), LONGEST_TEXT, message.link, utf16_units),
            "color": COLOURS[message.severity],
        }
        payload = {"embeds": [embed], "allowed_mentions": {"parse": []}}
        return JsonPost(self.webhook_url.get_secret_value(), json.dumps(payload))
