"""Delete a schedule."""

from spine.prefect.client import Deployment, Prefect
from spine.schedules.deployments import find_schedule
from spine.schedules.listing import Catalogue
from spine.schedules.planning import delete_unbegun, one_change_at_a_time
from spine.schemas import ActionResponse
from spine.workflows.deployments import is_schedule as made_over_api


async def delete_schedule(prefect: Prefect, catalogue: Catalogue, id_or_name: str) -> ActionResponse:
    """Stop all future runs; runs in progress and the history stay. Raises `NotFound`.

    A deployment that CI made is what its workflow runs on, so it stays and only loses its schedules; the next
    `prefect deploy` brings them back if the file still has them.
    """
    found = await find_schedule(prefect, id_or_name)
    async with one_change_at_a_time(found.id):
        # Before anything is gone, so that a request that fails here can be repeated.
        await delete_unbegun(prefect, found.id, due_too=True)
        message = await _delete(prefect, catalogue, found)
        await delete_unbegun(prefect, found.id, due_too=True)
    return ActionResponse(id=str(found.id), status="deleted", message=message)


async def _delete(prefect: Prefect, catalogue: Catalogue, deployment: Deployment) -> str:
    if made_over_api(deployment):
        await prefect.delete_deployment(deployment.id)
        return f"The schedule {deployment.name!r} was deleted."
    for row in deployment.schedules:
        await prefect.delete_schedule(deployment.id, row.id)
    catalogue.lost(deployment.id)
    return f"The schedule of the deployment {deployment.name!r} was deleted; the deployment stays."
