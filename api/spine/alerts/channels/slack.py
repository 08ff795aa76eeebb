"""Slack, and services that accept the same incoming webhooks (Mattermost, Rocket.Chat)."""

import json
from collections.abc import Mapping
from urllib.parse import quote, urlsplit

from apprise.plugins.base import NotifyBase

from spine.alerts.channels.base import ChannelConfig, Place, SecretUrl, ShortText, endpoints_in, instantiate
from spine.alerts.channels.json_post import JsonPost
from spine.alerts.messages import AlertMessage


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

    def _with_options(self, url: str) -> str:
        """Slack's URL, or the Apprise URL with the channel and the user name if one is set."""
        if not (self.channel or self.username):
            return url
        tokens = urlsplit(url).path.removeprefix("/services/")
        user = f"{quote(self.username, safe='')}@" if self.username else ""
        channel = f"/{quote(self.channel, safe='')}" if self.channel else ""
        return f"slack://{user}{tokens}{channel}"

    def plugin(self, message: AlertMessage, recipient: str | None, secrets: Mapping[str, str]) -> NotifyBase:
        """Apprise's plugin for Slack's own host, the same payload for any other."""
        url = self.webhook_url.get_secret_value()
        if self.hosts() == ["hooks.slack.com"] and (slack := instantiate(self._with_options(url))) is not None:
            return slack
        payload = {"text": f"*{message.headline}*\n{message.text}", "channel": self.channel, "username": self.username}
        return JsonPost(url, json.dumps({name: value for name, value in payload.items() if value is not None}))
