"""Schedules created over the API run the code that CI deployed last, and keep their own fields."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest
from spine.auth.callers import Caller, Scope
from spine.auth.domains import EVERY_DOMAIN
from spine.schedules.commands import create_schedule
from spine.schedules.problems import problem_of
from spine.schedules.schemas import ScheduleCreate

from tests.api.prefect_objects import as_polled
from tests.schedules.project import Project, Watcher, project, watcher
from tests.schedules.support import FAR_AWAY, ensure_pool, now
from tests.support.stack import PrefectStack

CALLER = Caller(id="test", name="test", scopes=frozenset(Scope))

FIRST = """
@flow(name="PREFIX.only")
def only(week: str, tier: str = "OTC"): ...
@flow(name="PREFIX.other")
def other(week: str): ...
"""

SECOND = """
@flow(name="PREFIX.only")
def moved(week: str, tier: str = "OTC", more: bool = False): ...
@flow(name="PREFIX.other")
def other(week: int, size: int): ...
"""


def entries(entrypoint: str, **of_only: Any) -> list[dict[str, Any]]:
    return [
        {"name": "main", "entrypoint": entrypoint, "parameters": {"tier": "T1"}, **of_only},
        {"name": "main", "entrypoint": "flows.py:other"},
    ]


@dataclass
class Story:
    """What Prefect had after each deploy, once the watcher had checked."""

    own: list[dict[str, Any]]
    schedules: list[dict[str, dict[str, Any]]]
    planned: list[dict[str, list[dict[str, Any]]]]
    checked_again: list[dict[str, dict[str, Any]]]
    watching: Watcher

    def before_and_after(self, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
        return self.schedules[0][name], self.schedules[1][name]


@pytest.fixture(scope="module")
def stack(quiet_stack: PrefectStack) -> PrefectStack:
    """A server that no API process watches: each would give schedules the code that this watch is to give them."""
    return quiet_stack


@pytest.fixture(scope="module")
async def story(stack: PrefectStack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Story]:
    """Two workflows with schedules, deployed three times; the second code of one has other parameters."""
    ensure_pool(stack, "idle-too")
    folder = tmp_path_factory.mktemp("code-sync")
    with project(stack, folder) as ci:
        async with watcher(stack, folder) as watching:
            story = Story([], [], [], [], watching)
            ci.deploy(FIRST, entries("flows.py:only", tags=["domain:a", "severity:HIGH", "team"]))
            await make_schedules(ci, watching)
            await record(ci, story)
            changed = {
                "pull": [{"prefect.deployments.steps.set_working_directory": {"directory": "/srv/elsewhere"}}],
                "work_pool": {"name": "idle-too", "work_queue_name": "high", "job_variables": {"env": {"A": "1"}}},
                "tags": ["domain:b", "alert:ops", "other-team"],
            }
            ci.deploy(SECOND, entries("flows.py:moved", **changed))
            await record(ci, story)
            ci.deploy(FIRST, entries("flows.py:only", tags=["domain:c"]))
            await record(ci, story)
            yield story


async def make_schedules(ci: Project, watching: Watcher) -> None:
    async def make(name: str, flow: str, **more: Any) -> None:
        timing = {} if "interval_seconds" in more else {"cron_expression": FAR_AWAY, "timezone": "America/New_York"}
        body = {
            "name": f"{ci.prefix}-{name}",
            "target_type": "WORKFLOW",
            "target_name": f"{ci.prefix}.{flow}",
            "target_params": {"week": "2026-01-05"},
            **timing,
            **more,
        }
        await create_schedule(
            watching.prefect, watching.sessions, CALLER, ScheduleCreate.model_validate(body), EVERY_DOMAIN
        )

    await make("on", "only", tags=["mine", "severity:LOW"], description="ours", max_instances=2)
    await make("off", "only", enabled=False)
    await make("often", "only", interval_seconds=600)
    await make("other", "other")


async def record(ci: Project, story: Story) -> None:
    def read() -> dict[str, dict[str, Any]]:
        flows = {"on": "only", "off": "only", "often": "only", "other": "other"}
        return {name: ci.deployed(f"{ci.prefix}-{name}", flow) for name, flow in flows.items()}

    await story.watching.check()
    story.own.append(ci.deployed("main"))
    story.schedules.append(read())
    story.planned.append({name: ci.planned(one["id"]) for name, one in story.schedules[-1].items()})
    await story.watching.check()
    await Watcher(story.watching.prefect, story.watching.sessions).check()
    story.checked_again.append(read())


CODE = [
    "entrypoint",
    "pull_steps",
    "job_variables",
    "work_pool_name",
    "work_queue_name",
    "parameter_openapi_schema",
    "version",
]


@pytest.mark.parametrize("name", ["on", "off", "often"])
@pytest.mark.parametrize("field", CODE)
def test_a_schedule_gets_the_code_that_was_deployed(story: Story, name: str, field: str) -> None:
    first, second, third = story.own
    assert first[field] != second[field] or field == "version"
    assert [at[name][field] for at in story.schedules] == [first[field], second[field], third[field]]


@pytest.mark.parametrize("name", ["on", "off", "often", "other"])
def test_a_schedule_keeps_its_own_fields(story: Story, name: str) -> None:
    own = ["name", "parameters", "schedules", "paused", "description", "global_concurrency_limit", "labels"]
    before, after = story.before_and_after(name)
    assert {field: after[field] for field in own} == {field: before[field] for field in own}
    assert before["schedules"]


async def test_each_sync_is_in_the_audit_trail(story: Story) -> None:
    found = [one for one in await story.watching.entries() if one.action == "synced"]
    assert {(one.actor, one.actor_kind, one.outcome) for one in found} == {("spine.follower", "SYSTEM", "DONE")}
    schedule_id = story.schedules[0]["on"]["id"]
    # The second and the third deploy; the checks in between change nothing.
    second, third = (one for one in found if one.resource_id == schedule_id)
    for entry, turn in ((second, 1), (third, 2)):
        assert (entry.before or {})["entrypoint"] == story.own[turn - 1]["entrypoint"]
        assert (entry.after or {})["entrypoint"] == story.own[turn]["entrypoint"]


def test_a_deploy_keeps_the_parameters_of_a_schedule(story: Story) -> None:
    before, after = story.before_and_after("on")
    assert before["parameters"] == after["parameters"] == {"week": "2026-01-05", "tier": "T1"}


def test_runs_are_planned_again_at_once_without_a_gap(story: Story) -> None:
    assert all(story.planned[turn]["on"] and not story.planned[turn]["off"] for turn in range(3))
    first, second = ([one["expected_start_time"] for one in story.planned[turn]["often"]] for turn in (0, 1))
    due = [time for time in first if datetime.fromisoformat(time) > now()]
    assert due
    assert due[0] in second[:2]
    # They were planned again, as runs of the changed deployment.
    assert {one["id"] for one in story.planned[0]["often"]}.isdisjoint(one["id"] for one in story.planned[1]["often"])


def test_inherited_tags_are_updated_and_own_tags_stay(story: Story) -> None:
    assert [sorted(at["on"]["tags"]) for at in story.schedules] == [
        ["domain:a", "mine", "severity:HIGH", "severity:LOW"],
        ["alert:ops", "domain:b", "mine", "severity:LOW"],
        ["domain:c", "mine", "severity:LOW"],
    ]
    assert [sorted(at["off"]["tags"]) for at in story.schedules] == [
        ["domain:a", "severity:HIGH"],
        ["alert:ops", "domain:b"],
        ["domain:c"],
    ]


async def test_parameters_that_no_longer_fit_show_as_the_problem_of_the_schedule(story: Story) -> None:
    misfit = story.schedules[1]["other"]
    assert set(misfit["parameter_openapi_schema"]["properties"]) == {"week", "size"}
    assert misfit["enforce_parameter_schema"] is False
    assert misfit["parameters"] == {"week": "2026-01-05"}
    assert story.planned[1]["other"]
    deployment = (await story.watching.read(misfit)).model_copy(
        update={"parameter_openapi_schema": misfit["parameter_openapi_schema"]}
    )
    problem = problem_of(deployment)
    assert problem is not None
    assert problem.startswith("The workflow's code does not accept these parameters: ")
    assert "week" in problem
    assert "size: is required" in problem


async def test_parameters_that_fit_again_are_checked_by_prefect_again(story: Story) -> None:
    healed = story.schedules[2]["other"]
    assert healed["enforce_parameter_schema"] is True
    assert problem_of(await story.watching.read(healed)) is None


def test_checking_again_changes_nothing(story: Story) -> None:
    for before, after in zip(story.schedules, story.checked_again, strict=True):
        for name, deployment in after.items():
            assert deployment == as_polled(before[name], deployment)


@pytest.mark.slow
async def test_job_variables_that_people_set_on_a_schedule_stay(
    stack: PrefectStack, tmp_path_factory: pytest.TempPathFactory
) -> None:
    def of_ci(function: str, **variables: Any) -> list[dict[str, Any]]:
        return entries(f"flows.py:{function}", work_pool={"name": "idle-too", "job_variables": variables})

    def change(schedule: dict[str, Any], variables: dict[str, Any]) -> None:
        stack.patch(f"/deployments/{schedule['id']}", {"job_variables": variables})

    ensure_pool(stack, "idle-too")
    folder = tmp_path_factory.mktemp("variables")
    with project(stack, folder) as ci:
        async with watcher(stack, folder) as watching:
            ci.deploy(FIRST, of_ci("only", env={"A": "1", "B": "1"}, working_dir="/srv"))
            await make_schedules(ci, watching)
            await watching.check()
            theirs = {"env": {"A": "mine", "B": "1", "OWN": "2"}}
            change(ci.deployed(f"{ci.prefix}-on"), theirs)
            for _ in range(2):
                await watching.check()
                assert ci.deployed(f"{ci.prefix}-on")["job_variables"] == theirs
                # Not only while the process remembers.
                watching.restart()
            ci.deploy(SECOND, of_ci("moved", env={"A": "2", "C": "2"}, working_dir="/opt", stream_output=False))
            await watching.check()
            # The code moves on; what they changed, and the directory that they took out, stay as they have them.
            expected = {"env": {"A": "mine", "OWN": "2", "C": "2"}, "stream_output": False}
            assert ci.deployed(f"{ci.prefix}-on")["job_variables"] == expected
            assert ci.deployed(f"{ci.prefix}-off")["job_variables"] == ci.deployed("main")["job_variables"]
            await watching.check()
            watching.restart()
            await watching.check()
            assert ci.deployed(f"{ci.prefix}-on")["job_variables"] == expected
