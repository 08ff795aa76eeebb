"""The types of channels, one small file for each. All of them send through Apprise."""

from spine.alerts.channels.apprise_url import AppriseConfig
from spine.alerts.channels.base import ChannelConfig
from spine.alerts.channels.discord import DiscordConfig
from spine.alerts.channels.email import EmailConfig
from spine.alerts.channels.pagerduty import PagerDutyConfig
from spine.alerts.channels.servicenow import ServiceNowConfig
from spine.alerts.channels.slack import SlackConfig
from spine.alerts.channels.teams import TeamsConfig
from spine.alerts.channels.webhook import WebhookConfig

CHANNEL_TYPES: dict[str, type[ChannelConfig]] = {
    "slack": SlackConfig,
    "email": EmailConfig,
    "servicenow": ServiceNowConfig,
    "webhook": WebhookConfig,
    "pagerduty": PagerDutyConfig,
    "teams": TeamsConfig,
    "discord": DiscordConfig,
    "apprise": AppriseConfig,
}
