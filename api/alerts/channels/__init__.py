"""The types of channels: one small file for each, all told through Apprise."""

from api.alerts.channels.apprise_url import AppriseConfig
from api.alerts.channels.base import ChannelConfig
from api.alerts.channels.discord import DiscordConfig
from api.alerts.channels.email import EmailConfig
from api.alerts.channels.pagerduty import PagerDutyConfig
from api.alerts.channels.servicenow import ServiceNowConfig
from api.alerts.channels.slack import SlackConfig
from api.alerts.channels.teams import TeamsConfig
from api.alerts.channels.webhook import WebhookConfig

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
