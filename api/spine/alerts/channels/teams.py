"""Microsoft Teams: webhooks of the Workflows app and incoming webhooks."""

import json
from collections.abc import Mapping

from apprise.plugins.base import NotifyBase

from spine.alerts.channels.base import ChannelConfig, Place, SecretUrl, endpoints_in, instantiate
from spine.alerts.channels.json_post import JsonPost
from spine.alerts.messages import AlertMessage


class TeamsConfig(ChannelConfig):
    """A webhook that posts to a Teams channel."""

    webhook_url: SecretUrl

    def endpoints(self) -> list[Place]:
        """The host and port of the webhook."""
        return endpoints_in(self.webhook_url.get_secret_value())

    def plugin(self, message: AlertMessage, recipient: str | None, secrets: Mapping[str, str]) -> NotifyBase:
        """Apprise's plugin for hosts that it supports (Workflows), an adaptive card for any other."""
        url = self.webhook_url.get_secret_value()
        if self.hosts()[0].endswith((".logic.azure.com", ".webhook.office.com")) and (teams := instantiate(url)):
            return teams
        card = {
            "type": "AdaptiveCard",
            "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
            "version": "1.4",
            "body": [
                {"type": "TextBlock", "text": message.headline, "weight": "Bolder", "size": "Medium", "wrap": True},
                {"type": "TextBlock", "text": message.text.replace("\n", "\n\n"), "wrap": True},
            ],
        }
        attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "content": card}
        return JsonPost(url, json.dumps({"type": "message", "attachments": [attachment]}))
