"""The models of `/api/v1/workflows`. Clients are typed against them: names and types do not change."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from spine.schemas import CaseInsensitiveEnum, ErrorCategory, JsonObject, ShownJson


class RunStatus(CaseInsensitiveEnum):
    """The status of a run."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class StepStatus(CaseInsensitiveEnum):
    """The status of a step."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"


class RunTrigger(CaseInsensitiveEnum):
    """What started a run. A retry continues the same run, which keeps its trigger."""

    SCHEDULE = "SCHEDULE"
    MANUAL = "MANUAL"
    API = "API"
    DEPENDENCY = "DEPENDENCY"
    RETRY = "RETRY"


class TriggerStatus(CaseInsensitiveEnum):
    """The status of a run right after the request that started it."""

    PENDING = "PENDING"
    STARTED = "STARTED"


class WorkflowRunSummary(BaseModel):
    """One run in a list. Times are UTC."""

    run_id: UUID = Field(description="Prefect's flow run id.")
    workflow_name: str = Field(examples=["finra.weekly_refresh"])
    status: RunStatus
    trigger: RunTrigger
    domain: str | None = Field(description="From the tag `domain:...`.", examples=["finra.otc_transparency"])
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    duration_seconds: float | None = Field(description="From start to end; to now while the run is in progress.")
    step_count: int = Field(description="Steps that have begun, each counted once, also after retries.")
    completed_step_count: int
    failed_step_count: int
    error: str | None = Field(
        description="The message of the exception that ended the run; in a list at most 1,000 characters of it."
    )
    schedule_id: UUID | None = Field(description="The schedule (a Prefect deployment) that started the run.")


class WorkflowStepDetail(BaseModel):
    """One step of a run: a Prefect task run or child flow run with all its attempts."""

    step_id: UUID = Field(description="Prefect's id of the task run of the newest attempt.")
    run_id: UUID
    step_name: str = Field(examples=["validate"])
    step_index: int = Field(description="From 0, in the order in which the steps first started.")
    status: StepStatus
    started_at: datetime | None
    completed_at: datetime | None
    duration_ms: int | None
    inputs: ShownJson | None = Field(
        description="The earlier steps that each argument came from; Prefect does not store the values of others."
    )
    outputs: ShownJson | None = Field(
        description="The persisted JSON result; a large one is replaced by a preview with `truncated: true`, and one "
        "that cannot be read by the `reason` with `unreadable: true`."
    )
    error: str | None
    error_category: ErrorCategory | None
    retry_count: int = Field(description="How often the step was executed again.")


class WorkflowRunDetail(WorkflowRunSummary):
    """One run with its steps."""

    input_params: ShownJson | None
    execution_id: str | None = Field(description="What ran it: a process id, a container or a job.")
    error_category: ErrorCategory | None
    rows_processed: int | None = Field(description="`rows_processed` of the flow's result, if it has one.")
    steps: list[WorkflowStepDetail]
    triggered_by: str | None = Field(description="The name of the API key, schedule, automation or parent run.")
    parent_run_id: UUID | None
    capture_id: str | None = Field(
        description="`capture_id` of the flow's result, if it has one; else the content of the source that the run "
        "used last."
    )
    attempt: int = Field(description="1 for the first attempt.")
    prefect_url: str | None = Field(description="The run in the Prefect UI.")


class WorkflowTriggerRequest(BaseModel):
    """The parameters of a new run."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "params": {
                        "week_ending": "2025-12-12",
                        "tier": "OTC",
                        "path": "flows/finra/sample/finra_otc_weekly_sample.csv",
                    }
                }
            ]
        },
    )

    params: JsonObject = Field(
        default_factory=dict, description="Values by name; the flow's defaults apply to the others."
    )


class WorkflowTriggerResponse(BaseModel):
    """The run that was started."""

    run_id: UUID
    workflow_name: str
    status: TriggerStatus
    message: str


class WorkflowParameter(BaseModel):
    """One parameter of a flow."""

    name: str
    type: str = Field(description="JSON Schema type; alternatives are separated by `|`.", examples=["string|null"])
    required: bool
    default: Any = Field(default=None, description="Absent if the parameter has no default.")
    format: str | None = Field(default=None, description="JSON Schema format, for example `date`.")
    enum: list[Any] | None = Field(default=None, description="The allowed values, if the schema lists them.")
    description: str | None = None


class WorkflowDefinition(BaseModel):
    """A flow that can be triggered."""

    name: str
    domain: str | None
    description: str = Field(description="The flow's docstring.")
    step_count: int = Field(description="Steps of its newest completed run; 0 if no run has completed.")
    parameters: list[WorkflowParameter]
    tags: list[str]
