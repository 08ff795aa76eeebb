"""Slack, and services that accept the same incoming webhooks (Mattermost, Rocket.Chat)."""

import json
from collections.abc import Mapping
from typing import Any

from apprise.plugins.base import NotifyBase

from spine.alerts.channels.base import ChannelConfig, Place, SecretUrl, ShortText, endpoints_in
from spine.alerts.channels.json_post import JsonPost
from spine.alerts.fitting import fit, utf16_units
from spine.alerts.inert_text import escaped_for_slack
from spine.alerts.messages import AlertMessage

# Slack accepts 40,000 characters, Mattermost 16,383 together with the headline. Fewer are read anyway.
LONGEST_TEXT = 12_000


class SlackConfig(ChannelConfig):
    """An incoming webhook; `channel` and `username` have an effect only if the webhook accepts them."""

    # The webhook decides which workspace gets the message.
    free_fields = frozenset({"channel", "username"})

    webhook_url: SecretUrl
    channel: ShortText | None = None
    username: ShortText | None = None

    def endpoints(self) -> list[Place]:
        """The host and port of the webhook."""
        return endpoints_in(self.webhook_url.get_secret_value())

    def plugin(self, message: AlertMessage, recipient: str | None, secrets: Mapping[str, str]) -> NotifyBase:
        """A post of the message; Apprise's plugin would turn text into mentions and links."""
        headline = escaped_for_slack(self.shown(message.headline))
        text = escaped_for_slack(fit(self.shown(message.text), LONGEST_TEXT, message.link, _length_when_escaped))
        payload: dict[str, Any] = {
            "text": f"*{headline}*\n{text}",
            "channel": self.channel,
            "username": self.username,
            # Otherwise Slack requests what a link of the text leads to.
            "unfurl_links": False,
            "unfurl_media": False,
        }
        body = json.dumps({name: value for name, value in payload.items() if value is not None})
        return JsonPost(self.webhook_url.get_secret_value(), body)


def _length_when_escaped(text: str) -> int:
    return utf16_units(escaped_for_slack(text))
