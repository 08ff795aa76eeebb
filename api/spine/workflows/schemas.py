"""The models of `/api/v1/workflows`, as clients are typed against them."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from spine.schemas import CaseInsensitiveEnum, ErrorCategory


class RunStatus(CaseInsensitiveEnum):
    """Where a run stands."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class StepStatus(CaseInsensitiveEnum):
    """Where a step stands."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"


class RunTrigger(CaseInsensitiveEnum):
    """How a run came about. A retry goes on with the same run, which keeps the trigger that it began with."""

    SCHEDULE = "SCHEDULE"
    MANUAL = "MANUAL"
    API = "API"
    DEPENDENCY = "DEPENDENCY"
    RETRY = "RETRY"


class TriggerStatus(CaseInsensitiveEnum):
    """Where a run stands right after it was asked for."""

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
    duration_seconds: float | None = Field(description="From start to end, or to now while it runs.")
    step_count: int = Field(description="Steps that began, each once however often it was tried.")
    completed_step_count: int
    failed_step_count: int
    error: str | None = Field(description="The exception's own message.")
    schedule_id: UUID | None = Field(description="The schedule (a Prefect deployment) that started the run.")


class WorkflowStepDetail(BaseModel):
    """One step of a run: a Prefect task run or child flow run with all its attempts."""

    step_id: UUID = Field(description="Prefect's id of the newest attempt's task run.")
    run_id: UUID
    step_name: str = Field(examples=["validate"])
    step_index: int = Field(description="0-based, in the order in which steps first started.")
    status: StepStatus
    started_at: datetime | None
    completed_at: datetime | None
    duration_ms: int | None
    inputs: dict[str, Any] | None = Field(
        description="Which earlier steps each argument came from; Prefect keeps no values of other arguments."
    )
    outputs: dict[str, Any] | None = Field(description="The persisted JSON result; large ones are cut with a marker.")
    error: str | None
    error_category: ErrorCategory | None
    retry_count: int = Field(description="Times that the step was executed again.")


class WorkflowRunDetail(WorkflowRunSummary):
    """One run with its steps."""

    input_params: dict[str, Any] | None
    execution_id: str | None = Field(description="The infrastructure that ran it: a process id, container or job.")
    error_category: ErrorCategory | None
    rows_processed: int | None = Field(description="From the flow's result, where it has this key.")
    steps: list[WorkflowStepDetail]
    triggered_by: str | None = Field(description="The name of the API key, schedule, automation or parent run.")
    parent_run_id: UUID | None
    capture_id: str | None = Field(
        description="From the flow's result, where it has this key; else the content of a source that the run used, "
        "of several the last."
    )
    attempt: int = Field(description="1 for the first try.")
    prefect_url: str | None = Field(description="The run in the Prefect UI.")


class WorkflowTriggerRequest(BaseModel):
    """What to start a run with."""

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

    params: dict[str, Any] = Field(default_factory=dict, description="Parameters by name; the flow's defaults apply.")


class WorkflowTriggerResponse(BaseModel):
    """The run that was started."""

    run_id: UUID
    workflow_name: str
    status: TriggerStatus
    message: str


class WorkflowParameter(BaseModel):
    """One parameter of a flow."""

    name: str
    type: str = Field(description="JSON Schema type name; alternatives are joined by `|`.", examples=["string|null"])
    required: bool
    default: Any = Field(default=None, description="Absent where there is none.")
    format: str | None = Field(default=None, description="JSON Schema format, such as `date`.")
    enum: list[Any] | None = Field(default=None, description="The values it can take, where they are listed.")
    description: str | None = None


class WorkflowDefinition(BaseModel):
    """A flow that can be triggered."""

    name: str
    domain: str | None
    description: str = Field(description="The flow's docstring.")
    step_count: int = Field(description="Steps of its newest completed run; 0 before there is one.")
    parameters: list[WorkflowParameter]
    tags: list[str]
