"""The models of `/api/v1/schedules`; clients are typed against them."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StrictBool

from spine.schemas import NOT_NULL, WHOLE, CaseInsensitiveEnum, JsonObject, ShownJson, Text

# Ten years: far more than any schedule needs, and far less than would overflow a date.
LONGEST_INTERVAL = 10 * 366 * 24 * 3600


class TargetType(CaseInsensitiveEnum):
    """What a schedule starts. Both are Prefect flows; clients distinguish them."""

    WORKFLOW = "WORKFLOW"
    PIPELINE = "PIPELINE"


class OverlapPolicy(CaseInsensitiveEnum):
    """What happens to a run that is due while `max_instances` are in progress."""

    ENQUEUE = "ENQUEUE"
    SKIP = "SKIP"


class ScheduleRunStatus(CaseInsensitiveEnum):
    """The status of a schedule's run.

    SKIPPED: cancelled by the overlap policy or by a person. MISSED: late, that is due but not taken by any worker.
    """

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"
    MISSED = "MISSED"


CronExpression = Annotated[
    Text,
    Field(
        min_length=1,
        max_length=200,
        description="Five fields; names of days are allowed.",
        examples=["30 2 * * MON-FRI"],
    ),
]
IntervalSeconds = Annotated[int, Field(ge=1, le=LONGEST_INTERVAL, strict=True, examples=[3600]), WHOLE]
TimeZoneName = Annotated[Text, Field(max_length=100, description="IANA name.", examples=["America/New_York"])]
Description = Annotated[Text, Field(max_length=10_000)]
Tags = Annotated[list[Annotated[Text, Field(min_length=1, max_length=255)]], Field(max_length=100)]
MaxInstances = Annotated[int, Field(ge=1, le=2**31 - 1, strict=True, description="Runs in progress at once."), WHOLE]


class ScheduleCreate(BaseModel):
    """A schedule to create: a Prefect deployment of the target's flow, named after the schedule."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "name": "finra-otc-weekly",
                    "target_type": "WORKFLOW",
                    "target_name": "finra.weekly_refresh",
                    "target_params": {
                        "week_ending": "2026-01-05",
                        "tier": "OTC",
                        "path": "flows/finra/sample/finra_otc_weekly_sample.csv",
                    },
                    "cron_expression": "30 6 * * MON",
                    "timezone": "America/New_York",
                }
            ]
        },
    )

    name: Text = Field(min_length=1, max_length=255, description="Unique over all schedules.")
    target_type: TargetType
    target_name: Text = Field(min_length=1, max_length=500, description="The flow's name.")
    target_params: JsonObject | None = Field(
        default=None, description="Values by name; the workflow's defaults apply to the others."
    )
    cron_expression: CronExpression | None = None
    interval_seconds: IntervalSeconds | None = None
    timezone: TimeZoneName = "UTC"
    enabled: StrictBool = True
    description: Description | None = None
    tags: Tags | None = None
    max_instances: MaxInstances | None = None
    overlap_policy: OverlapPolicy | None = Field(
        default=None, description="Without `max_instances`, it means one run at a time."
    )


class ScheduleUpdate(BaseModel):
    """The fields of a schedule to change; fields that are not sent stay."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"cron_expression": "0 7 * * MON", "enabled": True}]}
    )

    target_params: JsonObject | None = None
    cron_expression: CronExpression | None = None
    interval_seconds: IntervalSeconds | None = None
    timezone: Annotated[TimeZoneName | None, NOT_NULL] = None
    enabled: Annotated[StrictBool | None, NOT_NULL] = None
    description: Description | None = None
    tags: Tags | None = None
    max_instances: MaxInstances | None = None
    overlap_policy: OverlapPolicy | None = None


class ScheduleTiming(BaseModel):
    """One timing of a schedule: exactly one of cron, interval and rrule is set."""

    cron_expression: str | None
    interval_seconds: int | None
    rrule: str | None = Field(description="A recurrence rule, which can be set only in Prefect.")
    timezone: str
    day_or: bool | None = Field(
        description="Of a cron expression with both a day of month and a day of week: true runs on either, false only "
        "where both match. Null for the other kinds."
    )
    anchor: datetime | None = Field(description="The time from which an interval counts; null for the other kinds.")
    parameters: ShownJson | None = Field(
        description="Parameters that apply to this timing only, over those in `target_params`; null if it has none."
    )
    slug: str | None = Field(description="The name of this timing within its schedule, as set in `prefect.yaml`.")
    enabled: bool


class ScheduleResponse(BaseModel):
    """A schedule: a Prefect deployment with a timing, created over the API or deployed from `prefect.yaml`."""

    id: UUID = Field(description="Prefect's deployment id.")
    name: str
    target_type: TargetType
    target_name: str
    target_params: ShownJson | None
    cron_expression: str | None = Field(description="Null for an interval, and with several timings.")
    interval_seconds: int | None
    timezone: str
    enabled: bool
    description: str | None
    tags: list[str] | None
    max_instances: int | None
    overlap_policy: OverlapPolicy | None
    last_run_at: datetime | None = Field(description="When its newest run started.")
    next_run_at: datetime | None = Field(description="Null while disabled.")
    run_count: int = Field(description="Runs that have started, including those in progress.")
    success_count: int
    failure_count: int
    consecutive_failures: int = Field(description="Failures since the last success, by due time.")
    created_at: datetime
    updated_at: datetime
    created_by: str | None = Field(description="Name of the API key; null if it was deployed.")
    timings: list[ScheduleTiming] = Field(description="All timings; one from `prefect.yaml` can have several.")
    problem: str | None = Field(
        description="Why runs will fail: parameters that the workflow's code no longer accepts."
    )


class ScheduleRunSummary(BaseModel):
    """One run of a schedule that is due or has started."""

    id: UUID
    schedule_id: UUID
    schedule_name: str
    status: ScheduleRunStatus
    scheduled_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    duration_seconds: float | None
    run_id: UUID | None = Field(description="The id of the run in `/workflows/runs`.")
    error: str | None
    skip_reason: str | None


class NextRunPreview(BaseModel):
    """One time at which a schedule will run."""

    schedule_id: UUID
    schedule_name: str
    next_run_at: datetime
    cron_expression: str | None
    interval_seconds: int | None
