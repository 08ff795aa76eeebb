"""Discord, and services that accept the same webhooks."""

import json
from collections.abc import Mapping

from apprise.plugins.base import NotifyBase

from spine.alerts.channels.base import ChannelConfig, Place, SecretUrl, endpoints_in, instantiate
from spine.alerts.channels.json_post import COLOURS, JsonPost
from spine.alerts.messages import AlertMessage

# Discord refuses longer texts.
LONGEST_TITLE, LONGEST_TEXT = 256, 4_000


class DiscordConfig(ChannelConfig):
    """A webhook of a Discord channel."""

    webhook_url: SecretUrl

    def endpoints(self) -> list[Place]:
        """The host and port of the webhook."""
        return endpoints_in(self.webhook_url.get_secret_value())

    def plugin(self, message: AlertMessage, recipient: str | None, secrets: Mapping[str, str]) -> NotifyBase:
        """Apprise's plugin for Discord's own hosts, the same payload for any other."""
        url = self.webhook_url.get_secret_value()
        if self.hosts()[0] in ("discord.com", "discordapp.com") and (discord := instantiate(url)) is not None:
            return discord
        embed = {"title": message.headline[:LONGEST_TITLE], "description": message.text[:LONGEST_TEXT]}
        return JsonPost(url, json.dumps({"embeds": [{**embed, "color": COLOURS[message.severity]}]}))
