"""Microsoft Teams: webhooks of the Workflows app and incoming webhooks."""

import json
from collections.abc import Mapping
from typing import Any

from apprise.plugins.base import NotifyBase

from spine.alerts.channels.base import ChannelConfig, Place, SecretUrl, endpoints_in
from spine.alerts.channels.json_post import JsonPost
from spine.alerts.messages import AlertMessage


class TeamsConfig(ChannelConfig):
    """A webhook that posts to a Teams channel."""

    webhook_url: SecretUrl

    def endpoints(self) -> list[Place]:
        """The host and port of the webhook."""
        return endpoints_in(self.webhook_url.get_secret_value())

    def plugin(self, message: AlertMessage, recipient: str | None, secrets: Mapping[str, str]) -> NotifyBase:
        """A post of an adaptive card; Apprise's plugin would show text as Markdown."""
        card = {
            "type": "AdaptiveCard",
            "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
            "version": "1.4",
            "body": [
                _paragraph(self.shown(message.headline), weight="Bolder", size="Medium"),
                *(_paragraph(line) for line in self.shown(message.text).split("\n")),
            ],
        }
        attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "content": card}
        payload = {"type": "message", "attachments": [attachment]}
        return JsonPost(self.webhook_url.get_secret_value(), json.dumps(payload))


def _paragraph(line: str, **style: str) -> dict[str, Any]:
    """A line of a card; unlike a TextBlock, a TextRun is not read as Markdown."""
    run = {"type": "TextRun", "text": line or " ", **style}
    return {"type": "RichTextBlock", "inlines": [run], "spacing": "None"}
