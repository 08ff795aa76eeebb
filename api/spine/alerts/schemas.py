"""The models of `/api/v1/alerts`, as clients are typed against them."""

from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from spine.schemas import CaseInsensitiveEnum, ErrorCategory, Text
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
    """What has become of a delivery."""

    PENDING = "PENDING"
    SENT = "SENT"
    FAILED = "FAILED"
    THROTTLED = "THROTTLED"


class StatsPeriod(CaseInsensitiveEnum):
    """How far back statistics look from now; a month has 30 days."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


Name = Annotated[Text, Field(min_length=1, max_length=255)]
Config = Annotated[dict[str, Any], Field(description="By type; secrets read `***`, and `***` keeps the stored value.")]
DomainGlobs = Annotated[
    list[Annotated[Text, Field(min_length=1, max_length=255)]],
    Field(min_length=1, max_length=100, description="Shell globs; absent: all domains.", examples=[["finra.*"]]),
]
ThrottleMinutes = Annotated[
    int, Field(ge=0, le=LONGEST_THROTTLE, strict=True, description="How long the same alert is held back; 0: never.")
]


class AlertChannelCreate(BaseModel):
    """A new channel."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    name: Name
    channel_type: ChannelType
    config: Config
    min_severity: Severity = Severity.ERROR
    domains: DomainGlobs | None = None
    enabled: bool = Field(default=True, strict=True)
    throttle_minutes: ThrottleMinutes = 5


class AlertChannelUpdate(BaseModel):
    """What is to change in a channel; what is not sent stays."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    name: Name | None = None
    config: Config | None = None
    min_severity: Severity | None = None
    domains: DomainGlobs | None = None
    enabled: bool | None = Field(default=None, strict=True)
    throttle_minutes: ThrottleMinutes | None = None

    @model_validator(mode="after")
    def _null_only_where_it_means_something(self) -> Self:
        for name in self.model_fields_set - {"domains"}:
            if getattr(self, name) is None:
                raise ValueError(f"{name} cannot be null; leave it out to keep it")
        return self


class AlertChannelResponse(BaseModel):
    """A channel, without its secrets."""

    id: str
    name: str
    channel_type: ChannelType
    config: dict[str, Any]
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
    """What came of sending a test notice; it succeeded when all receivers took it."""

    channel_id: str
    channel_name: str
    success: bool
    message: str
    response: dict[str, Any] | None = Field(description="By receiver: its status and its reason, without secrets.")


class AlertCreate(BaseModel):
    """Something that people should hear of."""

    model_config = ConfigDict(extra="forbid")

    severity: Severity
    title: Annotated[Text, Field(min_length=1, max_length=500)]
    message: Annotated[Text, Field(max_length=20_000)]
    source: Annotated[Text, Field(min_length=1, max_length=255)]
    domain: Annotated[Text, Field(min_length=1, max_length=255)] | None = None
    metadata: dict[str, Any] | None = None
    run_id: Annotated[Text, Field(max_length=255)] | None = None
    execution_id: Annotated[Text, Field(max_length=255)] | None = None
    error_category: ErrorCategory | None = None
    dedup_key: (
        Annotated[Text, Field(min_length=1, max_length=255, description="What makes alerts the same, for throttling.")]
        | None
    ) = None


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


class AlertDeliveryDetail(BaseModel):
    """What has become of telling one receiver."""

    id: str
    channel_id: str
    channel_name: str
    recipient: str | None
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
    metadata: dict[str, Any] | None
    error_category: ErrorCategory | None
    capture_id: str | None
    deliveries: list[AlertDeliveryDetail]


class AlertStats(BaseModel):
    """Counts over the alerts of a period up to now."""

    period: StatsPeriod
    total_alerts: int
    by_severity: dict[str, int]
    by_source: dict[str, int]
    by_domain: dict[str, int] = Field(description="Alerts without a domain are in none.")
    delivery_success_rate: float = Field(description="Sent among sent and failed; 1 when there was nothing to send.")
    avg_delivery_time_ms: float | None = Field(description="From the alert to its delivery.")
