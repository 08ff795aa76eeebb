"""Who enabled a deployment, an operator or `prefect deploy`, and what must be disabled again.

What each action changes in Prefect 3.8:

- A deploy updates the deployment and resumes it. Schedules with slugs in the file are updated in place, in the same
  transaction, and switched only if the file says `active`; schedules without slugs are replaced by new ones.
- The switch of one schedule in the UI changes that schedule and not the deployment.
- The deployment's switch in the UI changes the deployment and none of its schedules. Unlike a deploy, it leaves no
  `prefect.deployment.updated` event with `paused`.
- Schedules that were deleted and added in the UI are new ones in a deployment that was not updated.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from spine.prefect.client import Deployment, ScheduleRow
from spine.tables.schedules import DisabledDeployment

# PostgreSQL gives all changes of one transaction the same time. SQLite gives each its own: schedules are changed 10 to
# 80 milliseconds after their deployment, and later on a busy machine.
ONE_TRANSACTION = timedelta(seconds=1)

# A schedule is created and then switched in two requests, which take longer than this; creating it takes far less.
ONE_REQUEST = timedelta(milliseconds=10)

Row = dict[str, Any]


@dataclass(frozen=True)
class Verdict:
    """What to disable again: single schedules, the deployment as a whole, or both."""

    deactivate: Sequence[ScheduleRow] = field(default=())
    pause: bool = False

    def __bool__(self) -> bool:
        return self.pause or bool(self.deactivate)


def rows_of(deployment: Deployment) -> list[Row]:
    """The schedules of a deployment as a record stores them."""
    return [row.model_dump(mode="json") for row in deployment.schedules]


def was_deployed(record: DisabledDeployment, deployment: Deployment) -> bool:
    """Whether the schedules show that a deployment was deployed since it was recorded."""
    if deployment.updated <= record.deployment_updated_at:
        return False
    before = {row["id"]: row for row in record.schedules}
    return any(
        str(row.id) not in before or _was_updated_along(before[str(row.id)], row, deployment)
        for row in deployment.schedules
    )


def judge(
    record: DisabledDeployment, deployment: Deployment, declared: Collection[UUID], *, resumed_by_deploy: bool
) -> Verdict:
    """What a deploy enabled that was disabled before; `declared` are the schedules that the file declares active."""
    # A schedule that was updated in place is active only if the file or an operator activated it.
    were_off = {UUID(row["id"]) for row in record.schedules if not row["active"]}
    replacing = _replacing_disabled(record, deployment)
    wanted = {*declared, *were_off, *(row.id for row in replacing if _was_switched(row, deployment))}
    again = [row for row in replacing if row.active and row.id not in wanted]
    if not resumed_by_deploy:
        return Verdict(deactivate=again)
    active = [row for row in deployment.schedules if row.active]
    if any(row.id in wanted for row in active):
        # The file declares some active, so the deployment stays resumed; the others are deactivated one by one.
        return Verdict(deactivate=[row for row in active if row.id not in wanted])
    return Verdict(deactivate=again, pause=True)


def _was_updated_along(before: Row, row: ScheduleRow, deployment: Deployment) -> bool:
    """Whether a schedule was changed together with its deployment, and not by its switch."""
    if row.updated is None or row.active != before["active"] or before.get("updated") is None:
        return False
    changed = row.updated != datetime.fromisoformat(before["updated"])
    return changed and timedelta(0) <= row.updated - deployment.updated < ONE_TRANSACTION


def _was_switched(row: ScheduleRow, deployment: Deployment) -> bool:
    """Whether an operator switched a schedule after it was created, as a PATCH does that sets a timing and enables."""
    if row.created is None or row.updated is None:
        return False
    return row.updated - row.created > ONE_REQUEST and abs(row.updated - deployment.updated) > ONE_REQUEST


def _replacing_disabled(record: DisabledDeployment, deployment: Deployment) -> list[ScheduleRow]:
    """The new schedules of a deployment that replace ones that were disabled.

    If it is unclear which replaces which, a schedule that may replace a disabled one counts as replacing it.
    """
    known = {row["id"] for row in record.schedules}
    new = [row for row in deployment.schedules if str(row.id) not in known]
    if all(not row["active"] for row in record.schedules):
        # All schedules of the deployment were disabled.
        return new
    present = {str(row.id) for row in deployment.schedules}
    gone = [row for row in record.schedules if row["id"] not in present]
    replacing: list[ScheduleRow] = []
    for key in (_slug, _timing_and_parameters, _timing, _parameters):
        for old, row in _pairs(gone, new, key):
            gone.remove(old)
            new.remove(row)
            replacing += [] if old["active"] else [row]
    return replacing + (new if any(not row["active"] for row in gone) else [])


def _pairs(gone: list[Row], new: list[ScheduleRow], key: Callable[[Row], Any]) -> list[tuple[Row, ScheduleRow]]:
    """Pairs of an old and a new schedule whose key no other old and no other new schedule has."""
    pairs = []
    for old in gone:
        wanted = key(old)
        olds = [one for one in gone if key(one) == wanted]
        news = [row for row in new if key(row.model_dump(mode="json")) == wanted]
        if wanted is not None and len(olds) == len(news) == 1:
            pairs.append((old, news[0]))
    return pairs


def _slug(row: Row) -> Any:
    return row["slug"]


def _timing_and_parameters(row: Row) -> Any:
    return [_timing(row), row["parameters"]]


def _timing(row: Row) -> Any:
    # Each deploy sets another anchor date for an interval.
    return {name: value for name, value in row["schedule"].items() if name != "anchor_date"}


def _parameters(row: Row) -> Any:
    return row["parameters"]
