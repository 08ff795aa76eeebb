"""Deployments and their schedules: models for reading them, and the requests that read and change them.

The models leave the schedules as plain JSON: Prefect's own models check every time zone again on each read, which for
a page of 100 takes longer than the rest of the request. `spine.prefect.schedules` converts them to Prefect's classes.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import httpx
from pydantic import BaseModel, BeforeValidator, ConfigDict, TypeAdapter

from spine.errors import BadRequest
from spine.prefect.around import Rows
from spine.prefect.filters import Json
from spine.prefect.transport import MOST_ROWS, Transport, parse, texts


class ScheduleRow(BaseModel):
    """One schedule of a deployment."""

    model_config = ConfigDict(frozen=True)

    id: UUID
    schedule: Json
    active: bool
    slug: str | None = None
    parameters: Json = {}
    max_scheduled_runs: int | None = None
    created: datetime | None = None
    updated: datetime | None = None


class ConcurrencyLimit(BaseModel):
    """How many runs of a deployment, or of all deployments that share it, may be in progress at once."""

    name: str = ""
    limit: int


class ConcurrencyOptions(BaseModel):
    """What happens to a run that starts when the limit is reached: `ENQUEUE` or `CANCEL_NEW`."""

    collision_strategy: str
    grace_period_seconds: int | None = None


class Deployment(BaseModel):
    """A deployment, with Prefect's field names."""

    model_config = ConfigDict(frozen=True)

    id: UUID
    name: str
    flow_id: UUID
    created: datetime
    updated: datetime
    description: str | None = None
    paused: bool = False
    schedules: list[ScheduleRow] = []
    parameters: Json = {}
    tags: list[str] = []
    labels: Annotated[dict[str, Any], BeforeValidator(lambda value: value or {})] = {}
    parameter_openapi_schema: Json | None = None
    enforce_parameter_schema: bool = True
    global_concurrency_limit: ConcurrencyLimit | None = None
    concurrency_options: ConcurrencyOptions | None = None
    version: str | None = None
    entrypoint: str | None = None
    path: str | None = None
    pull_steps: list[Json] | None = None
    job_variables: Json | None = None
    work_pool_name: str | None = None
    work_queue_name: str | None = None
    storage_document_id: UUID | None = None
    infrastructure_document_id: UUID | None = None


_ONE = TypeAdapter(Deployment)
_MANY = TypeAdapter(list[Deployment])

NEWEST_FIRST = "CREATED_DESC"


class DeploymentCalls(Transport):
    """The requests about deployments."""

    async def deployments(self, wanted: Json) -> list[Deployment]:
        """All deployments that match `wanted` (`flows`, `deployments` as in Prefect's filter route), newest first."""
        return await self._all("/deployments/filter", _MANY, wanted, NEWEST_FIRST)

    async def deployments_by_id(self, deployment_ids: Sequence[UUID]) -> dict[UUID, Deployment]:
        """The deployments with these ids that still exist."""
        found: dict[UUID, Deployment] = {}
        for start in range(0, len(deployment_ids), MOST_ROWS):
            some = texts(deployment_ids[start : start + MOST_ROWS])
            rows = await self.deployments({"deployments": {"id": {"any_": some}}})
            found |= {deployment.id: deployment for deployment in rows}
        return found

    async def page_of_deployments(
        self, wanted: Json, offset: int, limit: int, sort: str = NEWEST_FIRST
    ) -> Rows[Deployment]:
        """One page of the deployments that match."""
        return await self._page("/deployments/filter", _MANY, wanted, sort, offset, limit)

    async def count_deployments(self, wanted: Json) -> int:
        """How many deployments match."""
        return int((await self._request("POST", "/deployments/count", wanted)).json())

    async def read_deployment(self, deployment_id: UUID) -> Deployment:
        """One deployment. Raises `NotFound`."""
        return await self._object(f"/deployments/{deployment_id}", Deployment)

    async def create_deployment(self, deployment: Json) -> tuple[Deployment, bool]:
        """Create a deployment; the second value is false if Prefect overwrote one with the same flow and name.

        Raises `BadRequest` if Prefect rejects it.
        """
        async with self._translated("POST /deployments/", conflict=BadRequest):
            response = await self._client.request("POST", "/deployments/", json=deployment)
        return parse(_ONE, response), response.status_code == httpx.codes.CREATED

    async def update_deployment(self, deployment_id: UUID, changes: Json) -> None:
        """Change the fields in `changes`, in one transaction in Prefect; planned runs are deleted.

        Raises `NotFound`, and `BadRequest` if Prefect rejects the change.
        """
        async with self._translated("PATCH /deployments/{id}", conflict=BadRequest):
            # Prefect types its paths as templates.
            await self._client.request("PATCH", f"/deployments/{deployment_id}", json=changes)  # type: ignore[arg-type]

    async def update_schedule(self, deployment_id: UUID, row: ScheduleRow, changes: Json) -> None:
        """Change one schedule of a deployment; planned runs of all its schedules are deleted. Raises `NotFound`."""
        # Prefect stores `{}` for parameters that are not sent. All else that is not sent stays.
        changes = {"parameters": row.parameters, **changes}
        await self._request("PATCH", f"/deployments/{deployment_id}/schedules/{row.id}", changes)

    async def delete_schedule(self, deployment_id: UUID, schedule_id: UUID) -> None:
        """Delete one schedule of a deployment and its planned runs. Raises `NotFound`."""
        await self._request("DELETE", f"/deployments/{deployment_id}/schedules/{schedule_id}")

    async def pause_deployment(self, deployment_id: UUID) -> None:
        """Stop all schedules of a deployment and delete their runs that have not started, including late ones.

        Raises `NotFound`.
        """
        await self._request("POST", f"/deployments/{deployment_id}/pause_deployment")

    async def resume_deployment(self, deployment_id: UUID) -> None:
        """Resume the active schedules of a deployment. Raises `NotFound`."""
        await self._request("POST", f"/deployments/{deployment_id}/resume_deployment")

    async def delete_deployment(self, deployment_id: UUID) -> None:
        """Delete a deployment and its runs that have not started; other runs stay. Raises `NotFound`."""
        await self._request("DELETE", f"/deployments/{deployment_id}")

    async def plan_runs(self, deployment_id: UUID, since: datetime) -> None:
        """Make Prefect plan the runs of a deployment's active schedules from `since` on, before its scheduler does.

        Safe to repeat: Prefect plans each time of each schedule once.
        """
        await self._request("POST", f"/deployments/{deployment_id}/schedule", {"start_time": since.isoformat()})

    async def deployment_changes(self, deployment_id: UUID, since: datetime) -> list[Json]:
        """The changes to a deployment in Prefect's stored events: for each, the changed fields with `from` and `to`.

        Pausing and resuming do not count, unless other fields changed too. At most the newest fifty.
        """
        wanted = {
            "occurred": {"since": since.isoformat()},
            "event": {"name": ["prefect.deployment.updated"]},
            "resource": {"id": [f"prefect.deployment.{deployment_id}"]},
        }
        response = await self._request("POST", "/events/filter", {"filter": wanted, "limit": 50})
        return [event["payload"].get("updates") or {} for event in response.json()["events"]]
