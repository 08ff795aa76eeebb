"""Who switched a deployment on, an operator or `prefect deploy`, and what is to be switched off again.

What each of them leaves behind in Prefect 3.8:

- A deploy updates the deployment and resumes it. Schedules that have slugs in the file it updates in place, in the same
  transaction, and it switches them only where the file says `active`; without slugs it replaces them by new ones.
- The switch of one schedule in the UI changes that schedule and not the deployment.
- The deployment's switch in the UI changes the deployment and none of its schedules; other than a deploy's change, it
  leaves no `prefect.deployment.updated` event with `paused`.
- Schedules that were deleted and added in the UI are new ones in a deployment that was not updated.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from spine.prefect.client import Deployment, ScheduleRow
from spine.tables.schedules import ScheduleHold

# PostgreSQL gives all changes of one transaction the same time. SQLite gives each its own: schedules are changed 10 to
# 80 milliseconds after their deployment, and later on a busy machine.
ONE_TRANSACTION = timedelta(seconds=1)

# A schedule is made and then switched in two requests, which take longer than this; making it takes far less.
ONE_REQUEST = timedelta(milliseconds=10)

Row = dict[str, Any]


@dataclass(frozen=True)
class Verdict:
    """What is to be switched off again: single schedules, the deployment as a whole, or both."""

    off: Sequence[ScheduleRow] = field(default=())
    pause: bool = False

    def __bool__(self) -> bool:
        return self.pause or bool(self.off)


def rows_of(deployment: Deployment) -> list[Row]:
    """The schedules of a deployment as a hold keeps them."""
    return [row.model_dump(mode="json") for row in deployment.schedules]


def deploy_shows(hold: ScheduleHold, deployment: Deployment) -> bool:
    """Whether the schedules tell of a deploy since the hold."""
    if deployment.updated <= hold.deployment_updated_at:
        return False
    before = {row["id"]: row for row in hold.schedules}
    return any(
        str(row.id) not in before or _was_updated_along(before[str(row.id)], row, deployment)
        for row in deployment.schedules
    )


def judge(
    hold: ScheduleHold, deployment: Deployment, declared: Collection[UUID], *, resumed_by_deploy: bool
) -> Verdict:
    """What a deploy switched on that was off before; `declared` are the schedules that the file wants on."""
    # Only a file that says so switches on a schedule that it leaves in place.
    were_off = {UUID(row["id"]) for row in hold.schedules if not row["active"]}
    in_place = _in_place_of_off(hold, deployment)
    wanted = {*declared, *were_off, *(row.id for row in in_place if _was_switched(row, deployment))}
    again = [row for row in in_place if row.active and row.id not in wanted]
    if not resumed_by_deploy:
        return Verdict(off=again)
    active = [row for row in deployment.schedules if row.active]
    if any(row.id in wanted for row in active):
        # The file wants some of them on. The others were off with the deployment, and are now off by themselves.
        return Verdict(off=[row for row in active if row.id not in wanted])
    return Verdict(off=again, pause=True)


def _was_updated_along(before: Row, row: ScheduleRow, deployment: Deployment) -> bool:
    """Whether a schedule was changed together with its deployment, other than by its switch."""
    if row.updated is None or row.active != before["active"] or before.get("updated") is None:
        return False
    changed = row.updated != datetime.fromisoformat(before["updated"])
    return changed and timedelta(0) <= row.updated - deployment.updated < ONE_TRANSACTION


def _was_switched(row: ScheduleRow, deployment: Deployment) -> bool:
    """Whether an operator switched a schedule after it was made, as the API does that changes a timing and enables."""
    if row.created is None or row.updated is None:
        return False
    return row.updated - row.created > ONE_REQUEST and abs(row.updated - deployment.updated) > ONE_REQUEST


def _in_place_of_off(hold: ScheduleHold, deployment: Deployment) -> list[ScheduleRow]:
    """The new schedules of a deployment that stand in place of ones that were off.

    Where it is not clear which is in place of which, a schedule that may be one that was off counts as one.
    """
    known = {row["id"] for row in hold.schedules}
    new = [row for row in deployment.schedules if str(row.id) not in known]
    if all(not row["active"] for row in hold.schedules):
        # Nothing of the deployment ran.
        return new
    present = {str(row.id) for row in deployment.schedules}
    gone = [row for row in hold.schedules if row["id"] not in present]
    in_place: list[ScheduleRow] = []
    for key in (_slug, _timing_and_parameters, _timing, _parameters):
        for old, row in _pairs(gone, new, key):
            gone.remove(old)
            new.remove(row)
            in_place += [] if old["active"] else [row]
    return in_place + (new if any(not row["active"] for row in gone) else [])


def _pairs(gone: list[Row], new: list[ScheduleRow], key: Callable[[Row], Any]) -> list[tuple[Row, ScheduleRow]]:
    """Old and new schedules that alone have the same key, on either side."""
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
    # A deploy counts an interval from another moment each time.
    return {name: value for name, value in row["schedule"].items() if name != "anchor_date"}


def _parameters(row: Row) -> Any:
    return row["parameters"]
