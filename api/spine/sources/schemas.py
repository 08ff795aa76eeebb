"""The models of `/api/v1/sources`. Clients are typed against them, so names and types are fixed."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictBool

from spine.schedules.schemas import CronExpression
from spine.schemas import NOT_NULL, CaseInsensitiveEnum, ErrorCategory, JsonObject, ShownJson, Text


class SourceType(CaseInsensitiveEnum):
    """How a source is read."""

    FILE = "file"
    HTTP = "http"
    DATABASE = "database"
    S3 = "s3"
    SFTP = "sftp"


class ParserName(CaseInsensitiveEnum):
    """The format of a source's content."""

    CSV = "csv"
    PSV = "psv"
    TSV = "tsv"
    JSON = "json"
    JSONL = "jsonl"
    XML = "xml"
    PARQUET = "parquet"


class FetchStatus(CaseInsensitiveEnum):
    """The status of a fetch. PARTIAL is a success in which invalid rows were skipped."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"
    PARTIAL = "PARTIAL"


class FetchTrigger(CaseInsensitiveEnum):
    """What started a fetch: its schedule, a person in Prefect's UI, this API, or a workflow that reads the source."""

    SCHEDULE = "SCHEDULE"
    MANUAL = "MANUAL"
    API = "API"
    DEPENDENCY = "DEPENDENCY"


class FetchStartStatus(CaseInsensitiveEnum):
    """Whether a fetch still waits for a worker or has started."""

    PENDING = "PENDING"
    STARTED = "STARTED"


Name = Annotated[Text, Field(min_length=1, max_length=200, description="Unique over all sources.")]
Domain = Annotated[Text, Field(min_length=1, max_length=255, examples=["finra.otc_transparency"])]
Config = Annotated[
    JsonObject,
    Field(description="Depends on the type. Secrets are shown as `***`; sending `***` keeps the stored value."),
]
ParserConfigBody = Annotated[
    JsonObject,
    Field(
        description="How to read the content. Text: `encoding`, `delimiter`, `quote_char`, `has_header`, `skip_rows`, "
        "`skip_footer_rows` (0 to 100), `footer_pattern` (RE2), `footer_count_field` (from 1), `trim`. All formats: "
        "`columns` (types by name), `required_columns`, `max_bad_rows`, `max_bad_fraction` (0 to 1, by default 0.01), "
        "`max_expanded_bytes`, `archive_member` (a name or pattern in a zip). JSON and XML: `records_path`, `row_tag`."
    ),
]


class SourceCreate(BaseModel):
    """A new source."""

    model_config = ConfigDict(
        extra="forbid",
        hide_input_in_errors=True,
        json_schema_extra={
            "examples": [
                {
                    "name": "finra-otc-sample",
                    "source_type": "file",
                    "config": {"path": "finra_otc_weekly_sample.csv"},
                    "domain": "finra.otc_transparency",
                    "parser_type": "psv",
                    "cron_expression": "0 6 * * MON",
                }
            ]
        },
    )

    name: Name
    source_type: SourceType
    config: Config
    domain: Domain | None = None
    cron_expression: CronExpression | None = None
    parser_type: ParserName | None = Field(default=None, description="If absent, the file name determines the format.")
    parser_config: ParserConfigBody | None = None
    enabled: StrictBool = True


class SourceUpdate(BaseModel):
    """Changes to a source. Fields that are not sent stay as they are."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    name: Annotated[Name | None, NOT_NULL] = None
    config: Annotated[Config | None, NOT_NULL] = None
    domain: Domain | None = None
    cron_expression: CronExpression | None = Field(default=None, description="null removes the schedule.")
    parser_type: ParserName | None = None
    parser_config: ParserConfigBody | None = None
    enabled: Annotated[StrictBool | None, NOT_NULL] = None


class SourceSummary(BaseModel):
    """A source in a list."""

    id: str
    name: str
    source_type: SourceType
    domain: str | None
    enabled: bool
    last_fetch_at: datetime | None
    last_fetch_status: FetchStatus | None
    consecutive_failures: int
    created_at: datetime


class SourceDetail(SourceSummary):
    """A source with its configuration, in which secrets are masked, and the statistics of its fetches."""

    config: ShownJson
    cron_expression: str | None
    next_fetch_at: datetime | None = Field(description="As planned by Prefect; null while disabled.")
    parser_type: ParserName | None
    parser_config: ShownJson | None
    last_fetch_error: str | None
    total_fetches: int = Field(description="Fetches that have ended.")
    success_rate: float = Field(
        description="The share of ended fetches with SUCCESS or PARTIAL, 0 to 1; 0 before the first."
    )
    avg_fetch_duration_ms: float | None = Field(description="The average over fetches with SUCCESS or PARTIAL.")
    last_content_hash: str | None
    last_etag: str | None
    last_modified: datetime | None
    updated_at: datetime
    created_by: str | None
    schedule_id: str | None = Field(description="The Prefect deployment that fetches it on its schedule.")


class FetchTriggerResponse(BaseModel):
    """A fetch that was started or joined."""

    fetch_id: str
    source_id: str
    source_name: str
    status: FetchStartStatus
    message: str


class FetchSummary(BaseModel):
    """A fetch in a list."""

    id: str
    source_id: str
    status: FetchStatus
    started_at: datetime | None
    completed_at: datetime | None
    duration_ms: int | None
    content_changed: bool
    bytes_fetched: int | None
    rows_parsed: int | None


class BadRowDetail(BaseModel):
    """A row that was skipped because it is invalid."""

    file: str
    line: int
    reason: str


class FetchDetail(FetchSummary):
    """A fetch with its result and the runs that used its content."""

    source_name: str
    trigger: FetchTrigger
    content_hash: str | None = Field(
        description="SHA-256 of the content in hexadecimal digits; for a glob, of the list of files."
    )
    etag: str | None
    last_modified: datetime | None
    error: str | None
    error_category: ErrorCategory | None
    triggered_by: str | None
    execution_id: str | None
    run_id: str | None = Field(description="The Prefect flow run.")
    capture_id: str | None = Field(
        description="Identifies the content. A run that used the content has the same, unless its result has its own."
    )
    bad_rows: int | None
    bad_row_examples: list[BadRowDetail]
    used_by_runs: list[str] = Field(description="Flow runs that used its content, newest first; at most 100.")
