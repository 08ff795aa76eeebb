"""What an operator disabled stays disabled after a real `prefect deploy`, and what an operator enabled stays enabled.

All cases are deployments of one project, so that they share its few deploys: each is switched as its name says.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from spine.schedules.commands import switch_off, switch_on
from spine.schedules.deploy_guard import guard
from spine.schedules.deployments import is_enabled
from spine.workflows.labels import SCHEDULE_LABEL

from tests.schedules.project import Project, Watcher, project, watcher
from tests.schedules.support import FAR_AWAY, Workflow
from tests.support.stack import PrefectStack

pytestmark = pytest.mark.slow

SOURCE = """
@flow(name="PREFIX.only")
def only(): ...
"""

# Enough for Prefect's events to be stored, which takes up to five seconds.
SECONDS_FOR_EVENTS = 5.5

SECONDS_FOR_PREFECT = 20.0

HOW = ["over the API", "at the schedule", "at the deployment"]
SLUGS = ["with slug", "without slug"]

EVERY_MINUTE = {"interval": 60}


def schedule(slug: str, **more: Any) -> dict[str, Any]:
    named = {"slug": "nightly"} if slug == "with slug" else {}
    return {"cron": FAR_AWAY, "timezone": "America/New_York", **named, **more}


# A file may contain a deployment that the API created before.
MADE_OVER_THE_API = "off over the API, made there without slug"
OFF = [*(f"off {how} {slug}" for how in HOW for slug in SLUGS), MADE_OVER_THE_API]
ON_AGAIN = [f"on again {how} {slug}" for how in HOW for slug in SLUGS]
WANTED = [f"wanted {how} {slug}" for how in HOW[1:] for slug in SLUGS]


def entries(**of_wanted: Any) -> list[dict[str, Any]]:
    """All cases; `of_wanted` is what the file says about the schedules that it declares active."""
    alone = [
        {"name": name, "schedules": [schedule("without slug" if "without" in name else "with slug", **more)]}
        for names, more in ((OFF, {}), (ON_AGAIN, {}), (WANTED, of_wanted))
        for name in names
    ]
    two = [{"cron": FAR_AWAY}, {"cron": "0 4 1 1 *"}]
    return [
        *alone,
        {"name": "untouched", "schedules": [schedule("without slug")]},
        {"name": "often", "schedules": [EVERY_MINUTE]},
        {"name": "replaced in the UI", "schedules": [schedule("without slug")]},
        {"name": "nothing in the file"},
        {"name": "one of two", "schedules": two},
        {"name": "two paused, one wanted", "schedules": [two[0], {**two[1], **of_wanted}]},
    ]


@dataclass
class Story:
    """The project, its watcher, and what Prefect had after each deploy."""

    ci: Project
    watching: Watcher
    after: list[dict[str, dict[str, Any]]] = field(default_factory=list)
    planned: list[dict[str, list[dict[str, Any]]]] = field(default_factory=list)

    async def switch(self, name: str, *, on: bool) -> None:
        """Switch a deployment in the way that its name says."""
        deployment = self.ci.deployed(name)
        if "over the API" in name:
            switch = switch_on if on else switch_off
            await switch(self.watching.prefect, self.watching.sessions, await self.watching.read(deployment))
        elif "at the schedule" in name:
            self.ci.switch_row(deployment["id"], deployment["schedules"][0]["id"], on=on)
        else:
            self.ci.switch(deployment["id"], on=on)

    async def record(self) -> None:
        """Check until everything has settled, and record the result."""
        begun = time.monotonic()
        while time.monotonic() < begun + SECONDS_FOR_EVENTS:
            await self.watching.check()
            await asyncio.sleep(0.3)
        while not self._is_settled() and time.monotonic() < begun + SECONDS_FOR_PREFECT:
            await self.watching.check()
            await asyncio.sleep(0.3)
        self.after.append(self.ci.all_deployed())
        self.planned.append({name: self.ci.planned(one["id"]) for name, one in self.after[-1].items()})

    def _is_settled(self) -> bool:
        """Whether exactly the enabled deployments have planned runs; Prefect's scheduler can be late with either."""
        deployed = self.ci.all_deployed().values()
        on = {one["id"] for one in deployed if not one["paused"] and any(row["active"] for row in one["schedules"])}
        return {run["deployment_id"] for run in self.ci.planned(*(one["id"] for one in deployed))} == on

    async def is_on(self, name: str, turn: int) -> bool:
        """Whether a deployment was enabled after a turn; it has planned runs exactly if so."""
        seen = type(await self.watching.read(self.after[turn][name])).model_validate(self.after[turn][name])
        assert bool(self.planned[turn][name]) == is_enabled(seen)
        return is_enabled(seen)


@pytest.fixture(scope="module")
def stack(quiet_stack: PrefectStack) -> PrefectStack:
    """A server that no API process watches: each would disable again what this watch is to disable."""
    return quiet_stack


@pytest.fixture(scope="module")
async def story(stack: PrefectStack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Story]:
    """Deployed; switched; deployed again; deployed a third time without a watcher, now with `active: true`."""
    folder = tmp_path_factory.mktemp("deploy-guard")
    with project(stack, folder) as ci, pytest.MonkeyPatch.context() as patched:
        patched.setattr(guard, "SECONDS_FOR_EVENTS_TO_ARRIVE", SECONDS_FOR_EVENTS)
        async with watcher(stack, folder) as watching:
            story = Story(ci, watching)
            made = {"name": MADE_OVER_THE_API, "flow_id": stack.flow_id(f"{ci.prefix}.only")}
            stack.post("/deployments/", {**made, "labels": {SCHEDULE_LABEL: MADE_OVER_THE_API}})
            ci.deploy(SOURCE, entries())
            bare = ci.deployed("nothing in the file")["id"]
            stack.post(f"/deployments/{bare}/schedules", [{"schedule": {"cron": FAR_AWAY}, "active": True}])
            await watching.check()
            await switch_everything(story)
            ci.deploy(SOURCE, entries())
            await story.record()
            watching.restart()
            ci.deploy(SOURCE, entries(active=True))
            await story.record()
            yield story


async def switch_everything(story: Story) -> None:
    """Switch as the names say, with checks in between: only what was seen disabled can be kept disabled."""
    for name in [*OFF, *ON_AGAIN, *WANTED]:
        await story.switch(name, on=False)
    for name in ("nothing in the file", "two paused, one wanted"):
        story.ci.switch(story.ci.deployed(name)["id"], on=False)
    for name in ("often", "replaced in the UI", "one of two"):
        deployment = story.ci.deployed(name)
        rows = [row for row in deployment["schedules"] if row["schedule"].get("cron") in (None, FAR_AWAY)]
        story.ci.switch_row(deployment["id"], rows[0]["id"], on=False)
    await story.watching.check()
    for name in ON_AGAIN:
        await story.switch(name, on=True)
    replaced = story.ci.deployed("replaced in the UI")
    story.ci.replace_row(replaced["id"], replaced["schedules"][0]["id"], {"cron": FAR_AWAY})
    await story.watching.check()


@pytest.mark.parametrize("turn", [0, 1], ids=["watched", "without a watcher"])
@pytest.mark.parametrize("name", [*OFF, "nothing in the file"])
async def test_what_was_disabled_stays_disabled_without_planned_runs(story: Story, name: str, turn: int) -> None:
    assert not await story.is_on(name, turn)


async def test_each_time_it_is_disabled_again_is_in_the_audit_trail(story: Story) -> None:
    found = [one for one in await story.watching.entries() if one.action == "disabled"]
    assert {(one.actor, one.actor_kind, one.outcome) for one in found} == {("spine.follower", "SYSTEM", "DONE")}
    assert all("A deploy had enabled" in (one.after or {})["reason"] for one in found)
    names = {one.resource_name for one in found}
    assert "nothing in the file" in names
    assert names.isdisjoint({*ON_AGAIN, "untouched"})


@pytest.mark.parametrize("name", [*ON_AGAIN, "replaced in the UI", "untouched"])
@pytest.mark.parametrize("turn", [0, 1])
async def test_what_an_operator_enabled_stays_enabled(story: Story, name: str, turn: int) -> None:
    assert await story.is_on(name, turn)


@pytest.mark.parametrize("name", WANTED)
async def test_active_true_in_the_file_enables(story: Story, name: str) -> None:
    assert [await story.is_on(name, turn) for turn in (0, 1)] == [False, True]


async def test_a_disabled_schedule_that_is_due_every_minute_never_runs(story: Story) -> None:
    assert [await story.is_on("often", turn) for turn in (0, 1)] == [False, False]
    assert story.ci.planned(story.after[1]["often"]["id"]) == []


@pytest.mark.parametrize("turn", [0, 1])
async def test_one_of_two_schedules_stays_disabled_and_the_other_stays_planned(story: Story, turn: int) -> None:
    assert await story.is_on("one of two", turn)
    rows = story.after[turn]["one of two"]["schedules"]
    assert {row["schedule"]["cron"]: row["active"] for row in rows} == {FAR_AWAY: False, "0 4 1 1 *": True}
    on = {row["id"] for row in rows if row["active"]}
    assert {run["created_by"]["id"] for run in story.planned[turn]["one of two"]} == on


async def test_only_the_schedules_of_a_paused_deployment_that_the_file_declares_active_run(story: Story) -> None:
    assert not await story.is_on("two paused, one wanted", 0)
    assert await story.is_on("two paused, one wanted", 1)
    rows = story.after[1]["two paused, one wanted"]["schedules"]
    assert {row["schedule"]["cron"]: row["active"] for row in rows} == {FAR_AWAY: False, "0 4 1 1 *": True}


async def test_a_served_workflow_that_was_stopped_and_started_again_runs(
    stack: PrefectStack, workflow: Workflow, tmp_path: Path
) -> None:
    rows = [{"schedule": {"cron": FAR_AWAY}, "active": True}]
    served = workflow.deploy("served", work_pool_name=None, schedules=rows)["id"]
    async with watcher(stack, tmp_path) as watching:
        await watching.check()
        # What `flow.serve` does when it stops, and when it starts again.
        stack.post(f"/deployments/{served}/pause_deployment", None)
        await watching.check()
        workflow.deploy("served", work_pool_name=None, schedules=rows, paused=False)
        await watching.check()
        await watching.check()
        assert is_enabled(await watching.read(served))
