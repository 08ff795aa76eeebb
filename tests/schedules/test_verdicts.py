"""Which of the schedules that a deploy enabled were disabled before, if it replaced several."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from spine.prefect.client import Deployment
from spine.schedules.deploy_guard.verdicts import judge, rows_of, was_deployed
from spine.tables.schedules import DisabledDeployment

from tests.schedules.support import now

THEN = now()
FLOW = uuid4()


def row(cron: str, *, on: bool = True, slug: str | None = None, **parameters: Any) -> dict[str, Any]:
    return {"schedule": {"cron": cron}, "active": on, "slug": slug, "parameters": parameters}


def every(seconds: int, anchor: str, *, on: bool = True) -> dict[str, Any]:
    return {"schedule": {"interval": seconds, "anchor_date": anchor}, "active": on}


def deployment(rows: Sequence[dict[str, Any]], *, paused: bool = False, later: int = 0) -> Deployment:
    """A deployment with new schedules, updated `later` seconds after `THEN`."""
    updated = THEN + timedelta(seconds=later)
    made = [{"id": uuid4(), "updated": updated, **one} for one in rows]
    return Deployment(id=uuid4(), name="n", flow_id=FLOW, created=THEN, updated=updated, paused=paused, schedules=made)


def recorded(deployment: Deployment) -> DisabledDeployment:
    return DisabledDeployment(
        deployment_id=deployment.id,
        paused=deployment.paused,
        schedules=rows_of(deployment),
        deployment_updated_at=deployment.updated,
    )


A, B, C = "0 1 * * *", "0 2 * * *", "0 3 * * *"


@pytest.mark.parametrize(
    ("before", "after", "off"),
    [
        ([row(A, on=False)], [row(B)], [0]),
        ([row(A, on=False), row(B)], [row(A), row(B)], [0]),
        ([row(A, on=False), row(B)], [row(B), row(A)], [1]),
        ([row(A, on=False), row(B)], [row(A), row(C)], [0]),
        ([row(A, on=False), row(B)], [row(C), row(B)], [0]),
        ([row(A, on=False), row(B)], [row(A), row(B), row(C)], [0]),
        ([row(A, on=False), row(B)], [row(B)], []),
        ([row(A, on=False), row(B)], [row(B), row(A, on=False)], []),
        ([row(A, on=False), row(B, on=False)], [row(A), row(B), row(C)], [0, 1, 2]),
        ([row(A, on=False, slug="a"), row(B, slug="b")], [row(C, slug="b"), row(C, slug="a")], [1]),
        ([row(A, on=False, tier="x"), row(A, tier="y")], [row(A, tier="y"), row(A, tier="x")], [1]),
        ([row(A, on=False, tier="x"), row(A, tier="y")], [row(B, tier="y"), row(B, tier="x")], [1]),
        ([every(60, "a", on=False), every(90, "a")], [every(60, "b"), every(90, "b")], [0]),
        # It is unclear which new schedule replaces which.
        ([row(A, on=False), row(A)], [row(A), row(A)], [0, 1]),
        ([row(A, on=False), row(B)], [row(C), row("0 4 * * *")], [0, 1]),
    ],
)
def test_a_new_schedule_that_replaces_a_disabled_one_is_disabled(
    before: list[dict[str, Any]], after: list[dict[str, Any]], off: list[int]
) -> None:
    record, found = recorded(deployment(before)), deployment(after, later=5)
    assert was_deployed(record, found)
    verdict = judge(record, found, set(), resumed_by_deploy=False)
    assert sorted(found.schedules.index(one) for one in verdict.deactivate) == off
    assert not verdict.pause


@pytest.mark.parametrize(("seconds_until_switched", "is_off"), [(0.0001, True), (0.05, False), (60, False)])
def test_a_new_schedule_that_an_operator_enabled_stays_enabled(seconds_until_switched: float, is_off: bool) -> None:
    record, found = recorded(deployment([row(A, on=False)])), deployment([row(A)], later=5)
    (made,) = found.schedules
    switched = made.model_copy(
        update={"created": found.updated, "updated": found.updated + timedelta(seconds=seconds_until_switched)}
    )
    found = found.model_copy(update={"schedules": [switched]})
    assert bool(judge(record, found, set(), resumed_by_deploy=False)) is is_off


def test_a_schedule_that_the_file_declares_active_stays_enabled() -> None:
    record, found = recorded(deployment([row(A, on=False), row(B, on=False)])), deployment([row(A), row(B)], later=5)
    verdict = judge(record, found, {found.schedules[0].id}, resumed_by_deploy=False)
    assert [one.schedule["cron"] for one in verdict.deactivate] == [B]


def test_a_paused_deployment_is_paused_again_and_its_disabled_schedule_disabled() -> None:
    record = recorded(deployment([row(A), row(B, on=False)], paused=True))
    found = deployment([row(A), row(B)], later=5)
    verdict = judge(record, found, set(), resumed_by_deploy=True)
    assert verdict.pause
    assert [one.schedule["cron"] for one in verdict.deactivate] == [B]


def test_a_schedule_that_a_deploy_updated_in_place_does_not_count_as_switched() -> None:
    before = deployment([{**row(A, slug="a"), "created": THEN}], paused=True)
    found = changed(before, later=5, rows_later=5.08).model_copy(update={"paused": False})
    assert judge(recorded(before), found, set(), resumed_by_deploy=True).pause


def test_of_a_paused_deployment_only_declared_schedules_are_enabled() -> None:
    record, found = recorded(deployment([row(A), row(B)], paused=True)), deployment([row(A), row(B)], later=5)
    verdict = judge(record, found, {found.schedules[1].id}, resumed_by_deploy=True)
    assert not verdict.pause
    assert [one.schedule["cron"] for one in verdict.deactivate] == [A]


def changed(before: Deployment, *, later: float, rows_later: float | None = None, **of_row: Any) -> Deployment:
    """The same deployment with the same schedules, updated `later` seconds after `THEN`."""
    updated = {} if rows_later is None else {"updated": THEN + timedelta(seconds=rows_later)}
    rows = [one.model_copy(update={**updated, **of_row}) for one in before.schedules]
    return before.model_copy(update={"updated": THEN + timedelta(seconds=later), "schedules": rows})


def test_schedules_updated_with_their_deployment_show_a_deploy() -> None:
    before = deployment([row(A, slug="a")])
    assert was_deployed(recorded(before), changed(before, later=5, rows_later=5.003))


@pytest.mark.parametrize(
    "after",
    [
        {"later": 0, "rows_later": 5, "active": False},
        {"later": 5},
        {"later": 5, "rows_later": 9},
        {"later": 5.05, "rows_later": 5},
        {"later": 0},
    ],
    ids=[
        "a schedule's switch",
        "the deployment's switch",
        "the deployment's switch and then a timing",
        "a timing and then the switch, over the API",
        "nothing",
    ],
)
def test_the_switch_of_an_operator_does_not_look_like_a_deploy(after: dict[str, Any]) -> None:
    before = deployment([row(A, slug="a")])
    assert not was_deployed(recorded(before), changed(before, **after))


def test_schedules_added_in_the_ui_do_not_look_like_a_deploy() -> None:
    assert not was_deployed(recorded(deployment([row(A, on=False)])), deployment([row(A)]))


def test_switching_both_over_the_api_does_not_look_like_a_deploy() -> None:
    before = deployment([row(A, on=False)], paused=True)
    assert not was_deployed(recorded(before), changed(before, later=5, rows_later=4.98, active=True))
    assert isinstance(before.id, UUID)
