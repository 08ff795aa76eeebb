"""Microsoft Teams: webhooks of the Workflows app and incoming webhooks."""

import json
from collections.abc import Mapping
from typing import Any

from apprise.plugins.base import NotifyBase

from spine.alerts.channels.base import ChannelConfig, Place, SecretUrl, endpoints_in
from spine.alerts.channels.json_post import JsonPost
from spine.alerts.fitting import fit
from spine.alerts.messages import AlertMessage

# Teams refuses messages of more than 28 KB, with what it adds itself.
LARGEST_PAYLOAD = 26_000


class TeamsConfig(ChannelConfig):
    """A webhook that posts to a Teams channel."""

    webhook_url: SecretUrl

    def endpoints(self) -> list[Place]:
        """The host and port of the webhook."""
        return endpoints_in(self.webhook_url.get_secret_value())

    def plugin(self, message: AlertMessage, recipient: str | None, secrets: Mapping[str, str]) -> NotifyBase:
        """A post of an adaptive card; Apprise's plugin would show text as Markdown."""
        headline, text = self.shown(message.headline), self.shown(message.text)
        fitting = fit(text, LARGEST_PAYLOAD, message.link, lambda part: len(_payload(headline, part)))
        return JsonPost(self.webhook_url.get_secret_value(), _payload(headline, fitting))


def _payload(headline: str, text: str) -> str:
    card = {
        "type": "AdaptiveCard",
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "version": "1.4",
        "body": [
            _paragraph(headline, weight="Bolder", size="Medium"),
            *(_paragraph(line) for line in text.split("\n")),
        ],
    }
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "content": card}
    # JSON with escapes is ASCII, so that its length is in bytes.
    return json.dumps({"type": "message", "attachments": [attachment]})


def _paragraph(line: str, **style: str) -> dict[str, Any]:
    """A line of a card; unlike a TextBlock, a TextRun is not read as Markdown."""
    run = {"type": "TextRun", "text": line or " ", **style}
    return {"type": "RichTextBlock", "inlines": [run], "spacing": "None"}
