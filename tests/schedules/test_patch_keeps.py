"""`PATCH /schedules/{id}` changes what was sent and leaves all else of the deployment in Prefect as it was."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.api.prefect_objects import CRON, INTERVAL, ROW, ROWS, RRULE, deploy_all, differences, objects_of, unexpected
from tests.schedules.support import FAR_AWAY, Schedules, Workflow
from tests.support.processes import wait_until
from tests.support.variants import one_by_default, one_in

PATCHES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "description": ("Other words.", ("/description",)),
    "tags": (["other"], ("/tags*",)),
    "max_instances": (4, ("/global_concurrency_limit/limit",)),
    "overlap_policy": ("ENQUEUE", ("/concurrency_options/collision_strategy",)),
    # Where the schedule has parameters of its own, those of the deployment stay.
    "target_params": (
        {"week": "w2", "tier": "T1"},
        ("/schedules/0/parameters/week", "/schedules/0/id", "/schedules/0/created"),
    ),
    "cron_expression": ("0 8 1-7 * FRI", ("/schedules/0/schedule*", "/schedules/0/id", "/schedules/0/created")),
    "interval_seconds": (3_000_000, ("/schedules/0/schedule*", "/schedules/0/id", "/schedules/0/created")),
    "timezone": ("Europe/London", ("/schedules/0/schedule/timezone", "/schedules/0/id", "/schedules/0/created")),
    "enabled": (False, ("/schedules/0/active",)),
}
OF_SEVERAL = {
    **PATCHES,
    "enabled": (False, ("/paused",)),
    "target_params": ({"week": "w2"}, ("/parameters/week",)),
}
TIMING = {"cron_expression", "interval_seconds", "timezone"}
# Changed with everything that shows it.
PLANNED = ("/planned*",)


# Where a timing is only changed, all other options of it stay; another kind of timing has others.
SAME_KIND = {("cron_expression", "cron"): "cron", ("interval_seconds", "interval"): "interval"}


def one_of_each() -> list[Any]:
    """Each field with one kind of schedule, and with all others in the slow half."""
    found: list[Any] = []
    for place, field in enumerate(PATCHES):
        kinds = [kind for kind in ROWS if kind != "several" or field not in TIMING]
        default = kinds.index("an interval") if field == "interval_seconds" else place % 2
        found += one_by_default([(field, kind) for kind in kinds], default)
    return found


@pytest.mark.parametrize(("field", "kind"), one_of_each())
def test_a_patch_changes_in_prefect_only_what_it_says(
    schedules: Schedules, workflow: Workflow, field: str, kind: str
) -> None:
    deployed = deploy_all(workflow, ROWS[kind])
    before, shown = objects_of(workflow), schedules.get(deployed)
    value, allowed = (OF_SEVERAL if kind == "several" else PATCHES)[field]
    after = schedules.patch(deployed, **{field: value})
    now = objects_of(workflow)
    assert differences(before, now)
    if name := SAME_KIND.get((field, kind.split()[1] if " " in kind else "")):
        allowed = (f"/schedules/0/schedule/{name}", *allowed[1:])
    inside = tuple(f"/deployments/{shown['name']}{path}" for path in allowed)
    assert not unexpected(before, now, (*inside, *PLANNED))
    moving = {field, "updated_at", "next_run_at", "timings", *(TIMING if field in TIMING else ())}
    assert {name: after[name] for name in after if name not in moving} == {
        name: shown[name] for name in shown if name not in moving
    }


@pytest.mark.parametrize("kind", one_by_default(ROWS))
def test_a_patch_with_what_is_so_already_changes_nothing(schedules: Schedules, workflow: Workflow, kind: str) -> None:
    deployed = deploy_all(workflow, ROWS[kind])
    before, runs, shown = objects_of(workflow), workflow.planned(deployed), schedules.get(deployed)
    assert runs
    # The zone of several timings is shown only if it is the same for all.
    same = {field: shown[field] for field in PATCHES if (kind, field) != ("several", "timezone")}
    for sent in ({}, same, *({field: value} for field, value in same.items())):
        schedules.patch(deployed, **sent)
    assert objects_of(workflow) == before
    assert [run["id"] for run in workflow.planned(deployed)] == [run["id"] for run in runs]
    assert schedules.get(deployed) == shown


@pytest.mark.parametrize("kind", one_in(2, ["a cron with a slug", "a cron without a slug", "several"]))
def test_switching_changes_no_parameters(schedules: Schedules, workflow: Workflow, kind: str) -> None:
    deployed = deploy_all(workflow, ROWS[kind])
    before = objects_of(workflow)
    allowed = ("/deployments/*/schedules/0/active", "/deployments/*/paused", *PLANNED)
    schedules.act(deployed, "disable")
    assert not unexpected(before, objects_of(workflow), allowed)
    schedules.act(deployed, "enable")
    assert objects_of(workflow) == before
    schedules.patch(deployed, enabled=False)
    assert not unexpected(before, objects_of(workflow), allowed)
    schedules.patch(deployed, enabled=True)
    assert objects_of(workflow) == before


def test_the_options_of_a_timing_are_shown(schedules: Schedules, workflow: Workflow) -> None:
    shown = schedules.get(deploy_all(workflow, ROWS["several"]))
    assert shown["target_params"] == {"week": "w1"}
    timings = {timing["slug"]: timing for timing in shown["timings"]}
    none = dict.fromkeys(("cron_expression", "interval_seconds", "rrule", "day_or", "anchor"))
    assert timings == {
        "east": {
            **none,
            "cron_expression": CRON["cron"],
            "timezone": CRON["timezone"],
            "day_or": False,
            "parameters": {"tier": "T1"},
            "slug": "east",
            "enabled": True,
        },
        "west": {
            **none,
            "interval_seconds": 2_000_000,
            "timezone": INTERVAL["timezone"],
            "anchor": INTERVAL["anchor_date"],
            "parameters": {"tier": "OTC"},
            "slug": "west",
            "enabled": True,
        },
        "off": {
            **none,
            "rrule": RRULE["rrule"],
            "timezone": RRULE["timezone"],
            "parameters": {"tier": "T1"},
            "slug": "off",
            "enabled": False,
        },
    }
    (only,) = schedules.get(schedules.make())["timings"]
    assert (only["day_or"], only["anchor"], only["parameters"], only["slug"]) == (True, None, None, None)


def test_another_kind_of_timing_keeps_what_it_has_too(schedules: Schedules, workflow: Workflow) -> None:
    deployed = deploy_all(workflow, ROWS["a cron with a slug"])
    (before,) = workflow.read(deployed)["schedules"]
    schedules.patch(deployed, interval_seconds=86_400)
    (row,) = workflow.read(deployed)["schedules"]
    assert (row["schedule"]["interval"], row["schedule"]["timezone"]) == (86_400, CRON["timezone"])
    assert before["max_scheduled_runs"] == 7
    kept = ("id", "slug", "parameters", "max_scheduled_runs", "active")
    assert {name: row[name] for name in kept} == {name: before[name] for name in kept}
    schedules.patch(deployed, cron_expression=FAR_AWAY)
    (row,) = workflow.read(deployed)["schedules"]
    # An interval has no `day_or`, so it is Prefect's default again.
    assert row["schedule"] == {"cron": FAR_AWAY, "timezone": CRON["timezone"], "day_or": True}


def test_a_cron_that_never_matches_both_days_is_400(schedules: Schedules, workflow: Workflow) -> None:
    deployed = deploy_all(workflow, ROWS["a cron without a slug"])
    before = objects_of(workflow)
    answer = schedules.api.client.patch(f"/schedules/{deployed}", json={"cron_expression": "0 0 30 2 FRI"})
    assert answer.status_code == 400
    assert "day_or" in answer.json()["detail"]
    assert objects_of(workflow) == before


def test_parameters_that_no_run_would_have_are_409(schedules: Schedules, workflow: Workflow) -> None:
    deployed = deploy_all(workflow, ROWS["several"])
    before = objects_of(workflow)
    sent = {"description": "Changed.", "target_params": {"week": "w1", "tier": "OTC"}}
    answer = schedules.api.client.patch(f"/schedules/{deployed}", json=sent)
    assert answer.status_code == 409
    assert "tier" in answer.json()["detail"]
    assert objects_of(workflow) == before
    # Those that the schedules do not set themselves reach the runs of all.
    schedules.patch(deployed, target_params={"week": "w2"})
    assert {run["parameters"]["week"] for run in workflow.planned(deployed)} == {"w2"}
    assert {run["parameters"]["tier"] for run in workflow.planned(deployed)} == {"T1", "OTC"}


def test_parameters_of_the_schedule_stay_with_it(schedules: Schedules, workflow: Workflow) -> None:
    """The deployment's own are also the defaults of a workflow that is started by hand."""
    deployed = deploy_all(workflow, ROWS["a cron with a slug"], workflow.name)
    after = schedules.patch(deployed, target_params={"week": "w1", "tier": "OTC"})
    found = workflow.read(deployed)
    assert (found["parameters"], found["schedules"][0]["parameters"]) == ({"week": "w1"}, {"tier": "OTC"})
    assert after["target_params"] == {"week": "w1", "tier": "OTC"}
    assert {run["parameters"]["tier"] for run in workflow.planned(deployed)} == {"OTC"}
    after = schedules.patch(deployed, target_params={"week": "w3"})
    assert after["target_params"] == {"week": "w3"}
    assert workflow.read(deployed)["schedules"][0]["parameters"] == {"week": "w3"}


@pytest.mark.parametrize("value", [True, 1.5])
def test_a_value_of_another_type_is_a_change(schedules: Schedules, workflow: Workflow, value: Any) -> None:
    deployed = deploy_all(workflow, [{**ROW, "schedule": CRON, "parameters": {}}], parameters={"week": "w", "n": 1})
    # The schema lets other names pass as long as nothing is enforced.
    answer = schedules.api.client.patch(f"/schedules/{deployed}", json={"target_params": {"week": "w", "n": value}})
    if answer.status_code == 200:
        assert workflow.read(deployed)["parameters"] == {"week": "w", "n": value}


def test_a_limit_of_several_deployments_stays_as_it_is(schedules: Schedules, workflow: Workflow) -> None:
    limit = workflow.stack.post("/v2/concurrency_limits/", {"name": f"all-of-{workflow.name}", "limit": 9})
    deployed = workflow.deploy("one-of-many", schedules=ROWS["an interval"], parameters={"week": "w"})["id"]
    made = schedules.make()
    for one in (deployed, made):
        workflow.stack.patch(f"/deployments/{one}", {"global_concurrency_limit_id": limit["id"]})
    for sent in ({"max_instances": 1}, {"max_instances": None}):
        answer = schedules.api.client.patch(f"/schedules/{deployed}", json=sent)
        assert answer.status_code == 409
        assert limit["name"] in answer.json()["detail"]
    assert schedules.patch(deployed, overlap_policy="ENQUEUE")["max_instances"] == 9
    assert schedules.api.client.delete(f"/schedules/{made}").status_code == 200
    assert workflow.stack.get(f"/v2/concurrency_limits/{limit['id']}")["limit"] == 9
    assert workflow.read(deployed)["global_concurrency_limit"]["limit"] == 9


def test_what_is_switched_off_again_after_a_deploy_keeps_its_parameters(
    schedules: Schedules, workflow: Workflow
) -> None:
    rows = [{**ROW, "schedule": CRON, "parameters": {"tier": "T1"}}]
    deployed = workflow.deploy("deployed-again", schedules=rows)["id"]
    schedules.act(deployed, "disable")
    workflow.deploy("deployed-again", schedules=rows)
    wait_until(lambda: not schedules.get(deployed)["enabled"], "the schedule to be disabled again", 30)
    (row,) = workflow.read(deployed)["schedules"]
    assert (row["active"], row["parameters"]) == (False, {"tier": "T1"})


@pytest.mark.slow
def test_late_runs_of_an_old_timing_or_old_parameters_are_deleted_although_the_schedule_has_a_slug(
    schedules: Schedules, workflow: Workflow
) -> None:
    """Prefect changes such a schedule in place, so its id does not show what a run was planned for."""
    rows = [{**ROW, "schedule": {"cron": "0 * * * *", "timezone": "UTC"}, "slug": "hourly"}]
    deployed = deploy_all(workflow, rows)
    schedules.patch(deployed, cron_expression="0 */2 * * *")
    kept, of_old_timing, of_old_parameters, *_ = workflow.planned(deployed)
    odd = datetime.fromisoformat(of_old_timing["expected_start_time"]) + timedelta(hours=1)
    with workflow.stack.tables() as tables:
        tables.change("flow_run", of_old_timing["id"], expected_start_time=odd)
        tables.change("flow_run", of_old_parameters["id"], parameters={"week": "old"})

    def are_gone() -> bool:
        planned = {run["id"] for run in workflow.planned(deployed)}
        return planned.isdisjoint({of_old_timing["id"], of_old_parameters["id"]})

    wait_until(are_gone, "the stray runs to be deleted", 20)
    assert kept in workflow.planned(deployed)
