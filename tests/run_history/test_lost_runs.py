"""Runs that ended without a word, told from those that only look like it, by what Prefect has stored of them.

No worker runs here: the tests store what workers and runs report, and look later, at a time that they choose.
`tests/worker/test_lost_workers.py` kills real ones.
"""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from spine.run_history.ingest import catch_up
from spine.tables.run_history import RunAlertClaim
from spine.workflows.lost_runs import LostRuns
from sqlalchemy import URL, delete

from tests.run_history.support import Line, Spine, ago, spine_on
from tests.support.stack import PrefectStack

LATER = timedelta(seconds=80)


class Pool:
    """A work pool with a deployment, and what its workers and runs report."""

    def __init__(self, stack: PrefectStack, kind: str = "spine") -> None:
        self.stack, self.kind = stack, kind
        self.name = f"lost-{uuid4().hex[:8]}"
        self.id = stack.post("/work_pools/", {"name": self.name, "type": kind})["id"]
        flow_id = stack.flow_id(self.name)
        body = {"name": self.name, "flow_id": flow_id, "work_pool_name": self.name}
        self.line = Line(stack, flow_id, UUID(stack.post("/deployments/", body)["id"]))

    def heartbeat(self, worker: str = "w", seconds: int = 30) -> None:
        """Let a worker report."""
        body = {"name": worker, "heartbeat_interval_seconds": seconds}
        self.stack.post(f"/work_pools/{self.name}/workers/heartbeat", body)

    def starts(self, worker: str = "w") -> None:
        """Let a worker report its start."""
        pool = {"prefect.resource.id": f"prefect.work-pool.{self.id}", "prefect.resource.name": self.name}
        resource = {"prefect.resource.id": f"prefect.worker.spine.{worker}", "prefect.resource.name": worker}
        self.event("prefect.worker.started", resource, [{**pool, "prefect.resource.role": "work-pool"}])

    def event(self, name: str, resource: dict[str, str], related: Sequence[dict[str, str]] = ()) -> None:
        """Store an event; Prefect's server keeps those that it receives in memory for some seconds."""
        ids = [one["prefect.resource.id"] for one in related]
        row: dict[str, Any] = {
            "id": str(uuid4()),
            "event": name,
            "resource": resource,
            "resource_id": resource["prefect.resource.id"],
        }
        row |= {"payload": {}, "related": list(related), "related_resource_ids": ids}
        with self.stack.tables() as tables:
            now = tables.time(datetime.now(UTC))
            times = dict.fromkeys(("occurred", "received", "recorded", "created", "updated"), now)
            tables.connection.execute(tables["events"].insert().values(**row, **times))
            times = dict.fromkeys(("occurred", "created", "updated"), now)
            for one in related:
                of_event = {"id": str(uuid4()), "event_id": row["id"], "resource": one}
                of_event |= {"resource_id": one["prefect.resource.id"], "resource_role": one["prefect.resource.role"]}
                tables.connection.execute(tables["event_resources"].insert().values(**of_event, **times))

    def run(self, state: str = "RUNNING", worker: str | None = "w", **fields: Any) -> str:
        """A run in this state that a worker has labelled."""
        labels = {"prefect.worker.name": worker, "prefect.worker.type": self.kind} if worker else {}
        body = {"labels": labels, "work_pool_name": self.name, **fields}
        run_id = self.line.make("SCHEDULED", **body)
        for each in ("PENDING", "RUNNING", "CANCELLING"):
            self.line.put(run_id, each)
            if each == state:
                break
        return run_id

    def alive(self, run_id: str) -> None:
        """Let a run send a heartbeat."""
        self.event("prefect.flow-run.heartbeat", {"prefect.resource.id": f"prefect.flow-run.{run_id}"})

    def state(self, run_id: str) -> dict[str, Any]:
        """The state of a run."""
        found: dict[str, Any] = self.stack.get(f"/flow_runs/{run_id}")["state"]
        return found


@pytest.fixture
async def spine(either_database: URL, stack: PrefectStack) -> AsyncIterator[Spine]:
    """Spine with an empty history."""
    async with spine_on(either_database, stack.url) as spine:
        await spine.begin_at(ago(minutes=5))
        yield spine


@pytest.fixture
def pool(stack: PrefectStack) -> Pool:
    return Pool(stack)


async def look(spine: Spine, later: timedelta = LATER, chore: LostRuns | None = None) -> LostRuns:
    """Look for lost runs at a later time."""
    chore = chore or LostRuns()
    await chore.look(spine.prefect, spine.sessions, datetime.now(UTC) + later, is_sure=True)
    return chore


async def record(spine: Spine) -> None:
    """Record the outcomes of runs, as the follower does."""

    async def nothing() -> None:
        """Between the pages."""

    await catch_up(spine.prefect, spine.sessions, nothing)


async def raise_alerts(spine: Spine) -> None:
    """Delete the claims, as what raises the alerts does."""
    async with spine.sessions.begin() as session:
        await session.execute(delete(RunAlertClaim))


async def test_a_run_crashes_when_its_worker_and_it_have_been_silent(spine: Spine, pool: Pool) -> None:
    pool.heartbeat("gone")
    run_id = pool.run(worker="gone")
    pool.alive(run_id)
    await look(spine, timedelta(seconds=70))
    assert pool.state(run_id)["type"] == "RUNNING"
    await look(spine)
    state = pool.state(run_id)
    assert (state["type"], state["name"]) == ("CRASHED", "Crashed")
    assert "no sign of life" in state["message"]
    assert f"'gone' of the pool {pool.name!r} reported last at" in state["message"]


async def test_a_run_that_reports_outlives_its_worker(spine: Spine, pool: Pool) -> None:
    pool.heartbeat(seconds=20)
    run_id = pool.run()
    pool.alive(run_id)
    # The worker is gone for three intervals, the run has been silent for two.
    await look(spine, timedelta(seconds=65))
    assert pool.state(run_id)["type"] == "RUNNING"


async def test_a_living_worker_of_type_spine_speaks_for_its_runs(spine: Spine, pool: Pool) -> None:
    pool.heartbeat(seconds=100_000)
    run_id = pool.run()
    pool.alive(run_id)
    await look(spine, timedelta(hours=20))
    assert pool.state(run_id)["type"] == "RUNNING"


async def test_a_worker_that_was_started_again_does_not_speak_for_earlier_runs(spine: Spine, pool: Pool) -> None:
    pool.heartbeat(seconds=100_000)
    earlier = pool.run()
    pool.alive(earlier)
    pool.starts()
    later = pool.run()
    pool.alive(later)
    await look(spine)
    assert [pool.state(one)["type"] for one in (earlier, later)] == ["CRASHED", "RUNNING"]


async def test_the_living_worker_of_prefect_speaks_for_its_runs_until_it_reports_the_end_of_their_process(
    spine: Spine, stack: PrefectStack
) -> None:
    pool = Pool(stack, "process")
    pool.heartbeat(seconds=100_000)
    run_id, earlier = pool.run(), pool.run()
    for one, pid in ((run_id, "17"), (earlier, "16")):
        stack.patch(f"/flow_runs/{one}", {"infrastructure_pid": "17"})
        run = {"prefect.resource.id": f"prefect.flow-run.{one}", "prefect.resource.role": "flow-run"}
        worker = {"prefect.resource.id": "prefect.worker.process.w", "prefect.resource.name": "w"}
        await look(spine)
        assert pool.state(one)["type"] == "RUNNING"
        pool.event("prefect.worker.executed-flow-run", worker, [{**run, "prefect.infrastructure.identifier": pid}])
    await look(spine)
    assert [pool.state(one)["type"] for one in (run_id, earlier)] == ["CRASHED", "RUNNING"]
    assert "has reported the end of its process" in pool.state(run_id)["message"]


async def test_the_interval_of_the_heartbeats_of_other_runs_is_learned(spine: Spine, stack: PrefectStack) -> None:
    pool = Pool(stack, "kubernetes")
    pool.heartbeat(seconds=100_000)
    seldom, often = pool.run(), pool.run()
    for one in (seldom, often, often):
        pool.alive(one)
    # Prefect's own interval is three minutes.
    await look(spine, timedelta(seconds=400))
    assert [pool.state(one)["type"] for one in (seldom, often)] == ["RUNNING", "CRASHED"]
    await look(spine, timedelta(seconds=500))
    assert pool.state(seldom)["type"] == "CRASHED"


async def test_a_run_without_heartbeats_is_lost_with_its_worker_only_after_long(spine: Spine, pool: Pool) -> None:
    pool.heartbeat()
    run_id = pool.run()
    await look(spine, timedelta(seconds=170))
    assert pool.state(run_id)["type"] == "RUNNING"
    await look(spine, timedelta(seconds=190))
    assert pool.state(run_id)["type"] == "CRASHED"


@pytest.mark.parametrize(("kind", "ended"), [("process", "CRASHED"), ("kubernetes", "PENDING")])
async def test_a_run_that_was_to_start_is_lost_with_a_worker_that_runs_processes(
    spine: Spine, stack: PrefectStack, kind: str, ended: str
) -> None:
    pool = Pool(stack, kind)
    pool.heartbeat()
    labelled, unlabelled = pool.run("PENDING"), pool.run("PENDING", worker=None)
    await look(spine, timedelta(seconds=70))
    assert [pool.state(one)["type"] for one in (labelled, unlabelled)] == ["PENDING", "PENDING"]
    await look(spine)
    assert [pool.state(one)["type"] for one in (labelled, unlabelled)] == [ended, ended]


async def test_a_cancelled_run_ends_when_its_worker_has_not_been_heard_of_since(spine: Spine, pool: Pool) -> None:
    for worker in ("gone", "here"):
        pool.heartbeat(worker)
    gone, here = pool.run("CANCELLING", "gone"), pool.run("CANCELLING", "here")
    pool.heartbeat("here")
    await look(spine, timedelta(seconds=12))
    assert pool.state(gone)["type"] == "CANCELLING"
    await look(spine, timedelta(seconds=17))
    assert [pool.state(one)["type"] for one in (gone, here)] == ["CANCELLED", "CANCELLING"]


async def test_what_was_not_observed_for_long_enough_crashes_nothing(spine: Spine, pool: Pool) -> None:
    pool.heartbeat()
    run_id = pool.run("PENDING")
    with pool.stack.tables() as tables:
        long_ago = tables.time(ago(minutes=10))
        tables.change("flow_run_state", pool.state(run_id)["id"], timestamp=long_ago)
        tables.change("flow_run", run_id, expected_start_time=long_ago)
        of_pool = tables["worker"].c.work_pool_id
        (worker,) = tables.connection.execute(tables["worker"].select().where(of_pool == pool.id))
        tables.change("worker", str(worker.id), last_heartbeat_time=long_ago)
    chore = LostRuns()
    # Workers may only be silent because Prefect was down until now.
    await chore.run(spine.prefect, spine.sessions)
    assert pool.state(run_id)["type"] == "PENDING"
    await look(spine, timedelta(), chore)
    assert pool.state(run_id)["type"] == "CRASHED"


async def test_the_children_in_its_process_crash_with_a_run(spine: Spine, pool: Pool, stack: PrefectStack) -> None:
    parent = pool.run()
    step = stack.post("/task_runs/", {"flow_run_id": parent, "task_key": "child", "dynamic_key": "0"})["id"]
    child = stack.make_run(pool.line.flow_id, "RUNNING", parent_task_run_id=step)
    separate = pool.run(parent_task_run_id=step)
    pool.line.put(parent, "CRASHED", message="Process exited with status code: -9.")
    pool.heartbeat()
    await look(spine, timedelta())
    assert [pool.state(one)["type"] for one in (child, separate)] == ["CRASHED", "RUNNING"]


async def test_a_run_that_crashed_without_a_word_is_retried_after_its_alert(spine: Spine, pool: Pool) -> None:
    pool.heartbeat()
    policy = {"retries": 1, "retry_delay": 7}
    run_id = pool.run(empirical_policy=policy)
    without = pool.run()
    for one in (run_id, without):
        pool.line.put(one, "CRASHED", message="Process exited with status code: -9.")
    chore = await look(spine, timedelta())
    # It is not even recorded.
    assert pool.state(run_id)["type"] == "CRASHED"

    await record(spine)
    await look(spine, timedelta(), chore)
    assert pool.state(run_id)["type"] == "CRASHED"
    await raise_alerts(spine)
    await look(spine, timedelta(), chore)
    state = pool.state(run_id)
    assert (state["type"], state["name"]) == ("SCHEDULED", "AwaitingRetry")
    assert state["message"] == "Retry 1 of 1, after a crash."
    due = datetime.fromisoformat(state["state_details"]["scheduled_time"])
    assert timedelta(seconds=5) < due - datetime.now(UTC) < timedelta(seconds=8)
    assert pool.state(without)["type"] == "CRASHED"
    for each in ("PENDING", "RUNNING"):
        pool.line.put(run_id, each)
    pool.line.put(run_id, "CRASHED", message="Process exited with status code: -9.")
    await record(spine)
    await raise_alerts(spine)
    await look(spine, timedelta(), chore)
    assert pool.state(run_id)["type"] == "CRASHED"


async def test_a_crash_that_the_flow_has_seen_is_not_retried(spine: Spine, pool: Pool) -> None:
    run_id = pool.run(empirical_policy={"retries": 1})
    pool.line.put(run_id, "CRASHED", message="Execution was aborted by Python system exit call.")

    await record(spine)
    await raise_alerts(spine)
    await look(spine, timedelta())
    assert pool.state(run_id)["type"] == "CRASHED"
