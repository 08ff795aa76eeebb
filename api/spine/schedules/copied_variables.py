"""The job variables that Spine last copied from a workflow to its schedules.

Comparing with these shows what people have changed on a schedule, and what a deploy has changed.
"""

from collections.abc import Mapping, Sequence
from uuid import UUID

from sqlalchemy import delete, select

from spine.database import SessionFactory, reading, transaction
from spine.json_rule import is_same
from spine.prefect.client import Deployment
from spine.prefect.filters import Json
from spine.tables.schedules import CopiedVariables
from spine.unreadable import Unreadable

# So many ids are sent in one statement.
MOST_IDS = 500


async def read_copied(sessions: SessionFactory, schedules: Sequence[Deployment]) -> dict[UUID, Json]:
    """What was copied to these schedules, as far as it is known. Raises `DatabaseUnavailable`."""
    found: dict[UUID, Json] = {}
    async with reading(sessions) as session:
        for start in range(0, len(schedules), MOST_IDS):
            ids = [schedule.id for schedule in schedules[start : start + MOST_IDS]]
            for row in await session.scalars(select(CopiedVariables).where(CopiedVariables.deployment_id.in_(ids))):
                if not isinstance(row.job_variables, Unreadable):
                    found[row.deployment_id] = row.job_variables
    return found


async def record_copied(sessions: SessionFactory, copied: Mapping[UUID, Json]) -> None:
    """Record what was copied to schedules. Raises `DatabaseUnavailable`."""
    if not copied:
        return
    async with transaction(sessions) as session:
        for deployment_id, variables in copied.items():
            await session.merge(CopiedVariables(deployment_id=deployment_id, job_variables=variables))


async def delete_copied_except(sessions: SessionFactory, deployments: Sequence[Deployment]) -> None:
    """Delete the records of schedules that no longer exist; `deployments` are all that exist."""
    existing = {deployment.id for deployment in deployments}
    async with transaction(sessions) as session:
        for gone in set(await session.scalars(select(CopiedVariables.deployment_id))) - existing:
            await session.execute(delete(CopiedVariables).where(CopiedVariables.deployment_id == gone))


def with_changes_of_people(wanted: Json, copied: Json, present: Json) -> Json:
    """`wanted`, with what differs between what was `copied` and what is `present`; objects are compared by key."""
    merged: Json = {}
    for key in dict.fromkeys([*wanted, *present]):
        inner = [one[key] for one in (wanted, copied, present) if isinstance(one.get(key), dict)]
        if len(inner) == 3:
            merged[key] = with_changes_of_people(*inner)
            continue
        is_untouched = (key in copied) == (key in present) and is_same(copied.get(key), present.get(key))
        kept = wanted if is_untouched else present
        if key in kept:
            merged[key] = kept[key]
    return merged
