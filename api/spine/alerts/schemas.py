"""The request and response models of `/api/v1/alerts`."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictBool

from spine.schemas import NOT_NULL, WHOLE, CaseInsensitiveEnum, ErrorCategory, JsonObject, ShownJson, Text, UtcTime
from spine.severity import Severity

LONGEST_THROTTLE = 7 * 24 * 60


class ChannelType(CaseInsensitiveEnum):
    """What kind of receiver a channel has."""

    SLACK = "slack"
    EMAIL = "email"
    SERVICENOW = "servicenow"
    WEBHOOK = "webhook"
    PAGERDUTY = "pagerduty"
    TEAMS = "teams"
    DISCORD = "discord"
    APPRISE = "apprise"


class DeliveryStatus(CaseInsensitiveEnum):
    """The state of a delivery."""

    PENDING = "PENDING"
    SENT = "SENT"
    FAILED = "FAILED"
    THROTTLED = "THROTTLED"


class DeliveryEvent(CaseInsensitiveEnum):
    """What a delivery reports: the alert, or that someone has acknowledged it."""

    ALERT = "ALERT"
    ACKNOWLEDGE = "ACKNOWLEDGE"


class AlertState(CaseInsensitiveEnum):
    """The state of an alert."""

    FIRING = "FIRING"
    ACKNOWLEDGED = "ACKNOWLEDGED"
    RESOLVED = "RESOLVED"


class StatsPeriod(CaseInsensitiveEnum):
    """The period of statistics, up to now; a month is 30 days."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


LONGEST_MESSAGE = 20_000
LONGEST_NOTE = 2_000

Name = Annotated[Text, Field(min_length=1, max_length=255)]
Config = Annotated[
    JsonObject,
    Field(description="Depends on the type. Secrets are shown as `***`; sending `***` keeps the stored value."),
]
DomainGlobs = Annotated[
    list[Annotated[Text, Field(min_length=1, max_length=255)]],
    Field(min_length=1, max_length=100, description="Shell globs; without them, all domains.", examples=[["finra.*"]]),
]
ThrottleMinutes = Annotated[
    int,
    Field(ge=0, le=LONGEST_THROTTLE, strict=True, description="How long repeats of an alert are throttled; 0: never."),
    WHOLE,
]


class AlertChannelCreate(BaseModel):
    """A new channel."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    name: Name
    channel_type: ChannelType
    config: Config
    min_severity: Severity = Severity.ERROR
    domains: DomainGlobs | None = None
    enabled: StrictBool = True
    throttle_minutes: ThrottleMinutes = 5


class AlertChannelUpdate(BaseModel):
    """The fields to change in a channel; the others are kept."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    name: Annotated[Name | None, NOT_NULL] = None
    config: Annotated[Config | None, NOT_NULL] = None
    min_severity: Annotated[Severity | None, NOT_NULL] = None
    domains: DomainGlobs | None = None
    enabled: Annotated[StrictBool | None, NOT_NULL] = None
    throttle_minutes: Annotated[ThrottleMinutes | None, NOT_NULL] = None


class AlertChannelResponse(BaseModel):
    """A channel, without its secrets."""

    id: str
    name: str
    channel_type: ChannelType
    config: ShownJson
    min_severity: Severity
    domains: list[str] | None
    enabled: bool
    throttle_minutes: int
    last_success_at: datetime | None
    last_failure_at: datetime | None
    consecutive_failures: int = Field(description="Attempts that failed since the last one that succeeded.")
    created_at: datetime
    updated_at: datetime
    created_by: str | None


class ChannelTestResponse(BaseModel):
    """The result of a test message; it succeeded if all receivers accepted it."""

    channel_id: str
    channel_name: str
    success: bool
    message: str
    response: ShownJson | None = Field(description="Status and reason of each receiver, without secrets.")


class AlertCreate(BaseModel):
    """A new alert."""

    model_config = ConfigDict(extra="forbid")

    severity: Severity
    title: Annotated[Text, Field(min_length=1, max_length=500)]
    message: Annotated[Text, Field(max_length=LONGEST_MESSAGE)]
    source: Annotated[Text, Field(min_length=1, max_length=255)]
    domain: Annotated[Text, Field(min_length=1, max_length=255)] | None = None
    metadata: JsonObject | None = None
    run_id: Annotated[Text, Field(max_length=255)] | None = None
    execution_id: Annotated[Text, Field(max_length=255)] | None = None
    error_category: ErrorCategory | None = None
    dedup_key: (
        Annotated[
            Text, Field(min_length=1, max_length=255, description="Alerts with the same key are throttled as one.")
        ]
        | None
    ) = None


Note = Annotated[
    Text,
    Field(min_length=1, max_length=LONGEST_NOTE, description="Shown in the alert; it replaces the last one."),
]


class AlertAcknowledge(BaseModel):
    """How to acknowledge an alert."""

    model_config = ConfigDict(extra="forbid")

    note: Note | None = None
    until: UtcTime | None = Field(
        default=None, description="When reminders begin again; without it, they do not before the alert is resolved."
    )
    assignee: Annotated[Text, Field(min_length=1, max_length=255, description="Who takes care of it.")] | None = None


class AlertResolve(BaseModel):
    """How to resolve an alert."""

    model_config = ConfigDict(extra="forbid")

    note: Note | None = None


class AlertSummary(BaseModel):
    """An alert in a list; throttled deliveries count only in `delivery_count`."""

    id: str
    severity: Severity
    title: str
    source: str
    domain: str | None
    created_at: datetime
    delivery_count: int
    success_count: int
    failed_count: int
    state: AlertState
    acknowledged_by: str | None = Field(description="The caller that acknowledged it.")
    assignee: str | None
    snoozed_until: datetime | None = Field(description="When the acknowledgement ends, or ended; null: when resolved.")
    resolved_at: datetime | None


class AlertDeliveryDetail(BaseModel):
    """The delivery of an alert to one receiver."""

    id: str
    channel_id: str
    channel_name: str
    recipient: str | None
    event: DeliveryEvent
    status: DeliveryStatus
    attempted_at: datetime | None
    delivered_at: datetime | None
    error: str | None
    attempt: int
    next_retry_at: datetime | None


class AlertDetail(AlertSummary):
    """An alert with its deliveries."""

    message: str
    execution_id: str | None
    run_id: str | None
    metadata: ShownJson | None
    error_category: ErrorCategory | None
    capture_id: str | None
    note: str | None = Field(description="What was written when it was acknowledged or resolved.")
    deliveries: list[AlertDeliveryDetail]


class AlertStats(BaseModel):
    """Counts of the alerts of a period up to now."""

    period: StatsPeriod
    total_alerts: int
    by_severity: dict[str, int]
    by_source: dict[str, int]
    by_domain: dict[str, int] = Field(description="Alerts without a domain are not counted.")
    delivery_success_rate: float = Field(description="Sent / (sent + failed); 1 if there was nothing to send.")
    avg_delivery_time_ms: float | None = Field(description="Average time from the alert to its delivery.")
