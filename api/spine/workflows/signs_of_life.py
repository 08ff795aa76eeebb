"""Whether runs that are said to be in progress still are, from what their workers and they themselves have reported.

A worker that runs processes on its own machine (a pool of type `process` or `spine`) sends heartbeats, and so does each
run; Prefect's server stores both with its own clock, which all times here are compared with. While such a worker lives
its runs need no heartbeats: it reports the end of each process. Of any other worker the heartbeats of the run itself
decide, because its process can outlive the worker and can end without the worker's knowledge.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from spine.errors import NotFound
from spine.prefect.client import FlowRun, Prefect
from spine.prefect.workers import Execution, Pool, WorkerKey

WORKER_NAME, WORKER_TYPE = "prefect.worker.name", "prefect.worker.type"
# Workers of these pools run processes on their own machine.
HOSTING = {"process", "spine"}
WATCHING = "spine"

# How often workers and runs send heartbeats unless something else is known: workers and runs of type `spine`, and runs
# with Prefect's own settings.
USUAL = timedelta(seconds=30)
OF_OTHER_RUNS = timedelta(seconds=180)
# What sends no heartbeat for so many intervals is gone: one may be lost, and each comes up to a third too late.
MISSED = 2.5
# After an outage of Prefect a worker waits up to five intervals. Nothing else speaks for a run without heartbeats.
MISSED_WITHOUT_HEARTBEATS = 6.0
# Prefect stores an event some seconds after it has received it.
EVENTS_ARE_LATE = timedelta(seconds=30)
# A worker ends a cancelled run within seconds.
LONGEST_CANCELLATION = timedelta(seconds=15)


class SignsOfLife:
    """What the process that follows has read of workers and runs; `read` brings it up to date."""

    def __init__(self) -> None:
        self._at = datetime.min.replace(tzinfo=UTC)
        self._pools: dict[str, Pool | None] = {}
        self._starts: dict[WorkerKey, datetime] = {}
        # The processes whose end a worker has reported. One that has ended with status 0 may have said nothing else.
        self._ended: set[Execution] = set()
        # The runs for which events were read until `_at`, and when to look for the next heartbeat of a run.
        self._known: set[UUID] = set()
        self._due: dict[UUID, datetime] = {}

    async def read(self, prefect: Prefect, at: datetime, runs: Sequence[FlowRun]) -> None:
        """Read about the workers of these runs, `at` this time of the server. Raises `PrefectUnavailable`."""
        names = {run.work_pool_name for run in runs if run.work_pool_name}
        self._pools = {name: await _pool(prefect, name) for name in names}
        since = min((self._at if run.id in self._known else _began(run) for run in runs), default=at) - EVENTS_ARE_LATE
        if names:
            self._starts |= await prefect.worker_starts(since)
        reported = [run.id for run in runs if run.labels.get(WORKER_TYPE, WATCHING) != WATCHING]
        self._ended |= await prefect.executions(reported, since)
        self._known = {run.id for run in runs}
        self._ended = {(run_id, process) for run_id, process in self._ended if run_id in self._known}
        self._due = {run_id: due for run_id, due in self._due.items() if run_id in self._known}
        self._at = at

    async def lost(self, prefect: Prefect, runs: Sequence[FlowRun]) -> dict[UUID, str]:
        """Those of these runs that are lost, with what was noticed. Raises `PrefectUnavailable`."""
        found = {run.id: why for run in runs if (why := self._pending_and_lost(run) or self._ended_silently(run))}
        unwatched = [run for run in runs if _is_running(run) and run.id not in found and not self._is_watched(run)]
        to_look_at = [run for run in unwatched if self._due.get(run.id, self._at) <= self._at]
        heartbeats = await prefect.heartbeats([run.id for run in to_look_at])
        for run in to_look_at:
            if why := self._running_and_lost(run, heartbeats[run.id]):
                found[run.id] = why
        return found

    def is_cancelled_by_nobody(self, run: FlowRun) -> bool:
        """Whether a run has been cancelling for long, and its worker has not been heard of since."""
        if run.state is None or self._at - run.state.timestamp < LONGEST_CANCELLATION:
            return False
        heard = self._heard_of_worker(run)
        return heard is None or heard <= run.state.timestamp or self._is_restarted(run)

    def _pending_and_lost(self, run: FlowRun) -> str | None:
        if run.state is None or not run.state.is_pending() or not self._is_hosted(run):
            return None
        if self._at - run.state.timestamp <= MISSED * USUAL:
            return None
        if WORKER_NAME not in run.labels:
            # A worker gives a run its labels in the seconds after it has taken it.
            return f"No worker has been heard of since it took this run at {_clock(run.state.timestamp)}."
        if self._is_restarted(run):
            return f"{_worker(run)} was started again while it started this run."
        return self._gone(run) if self._is_silent(run, MISSED) else None

    def _running_and_lost(self, run: FlowRun, heartbeats: list[datetime]) -> str | None:
        if not heartbeats:
            is_lost = self._is_hosted(run) and self._is_silent(run, MISSED_WITHOUT_HEARTBEATS)
            return self._gone(run) if is_lost else None
        interval = USUAL if run.labels.get(WORKER_TYPE) == WATCHING else OF_OTHER_RUNS
        if len(heartbeats) > 1 and heartbeats[1] >= _began(run):
            interval = max(heartbeats[0] - heartbeats[1], USUAL)
        self._due[run.id] = heartbeats[0] + MISSED * interval
        if self._at < self._due[run.id]:
            return None
        return f"{self._gone(run)} The run itself reported last at {_clock(heartbeats[0])}."

    def _gone(self, run: FlowRun) -> str:
        heard = self._heard_of_worker(run)
        if WORKER_NAME not in run.labels:
            return "It has no worker."
        return f"{_worker(run)} reported last at {_clock(heard)}." if heard else f"{_worker(run)} is gone."

    def _is_watched(self, run: FlowRun) -> bool:
        """Whether a living worker reports the end of the run's process."""
        is_known = WORKER_NAME in run.labels and self._is_hosted(run) and not self._is_restarted(run)
        return is_known and not self._is_silent(run, MISSED)

    def _ended_silently(self, run: FlowRun) -> str | None:
        if not _is_running(run) or (run.id, run.infrastructure_pid or "") not in self._ended:
            return None
        return f"{_worker(run)} has reported the end of its process."

    def _is_hosted(self, run: FlowRun) -> bool:
        pool = self._pools.get(run.work_pool_name or "")
        return pool is not None and pool.type in HOSTING

    def _is_silent(self, run: FlowRun, missed: float) -> bool:
        pool = self._pools.get(run.work_pool_name or "")
        workers = pool.workers if pool else []
        row = next((worker for worker in workers if worker.name == run.labels.get(WORKER_NAME)), None)
        interval = timedelta(seconds=row.heartbeat_interval_seconds or 0) if row else USUAL
        heard = (row.last_heartbeat_time if row else None) or _began(run)
        return self._at - heard > missed * (interval or USUAL)

    def _heard_of_worker(self, run: FlowRun) -> datetime | None:
        pool = self._pools.get(run.work_pool_name or "")
        named = (one for one in (pool.workers if pool else []) if one.name == run.labels.get(WORKER_NAME))
        return next((one.last_heartbeat_time for one in named), None)

    def _is_restarted(self, run: FlowRun) -> bool:
        """Whether the worker of this name was started after the run: then it knows nothing of the run's process."""
        key = (run.work_pool_name or "", str(run.labels.get(WORKER_NAME, "")))
        return key in self._starts and self._starts[key] > _began(run)


async def _pool(prefect: Prefect, name: str) -> Pool | None:
    try:
        return await prefect.pool(name)
    except NotFound:
        return None


def _is_running(run: FlowRun) -> bool:
    # A child without a deployment runs in the process of its parent, and is lost with it.
    return run.state is not None and run.state.is_running() and not is_inside_another(run)


def is_inside_another(run: FlowRun) -> bool:
    """Whether this child run has no process of its own."""
    return run.parent_task_run_id is not None and run.deployment_id is None


def _began(run: FlowRun) -> datetime:
    """When the present attempt entered its state. While it is cancelling, that is the start of the run."""
    if run.state is not None and not run.state.is_cancelling():
        return run.state.timestamp
    return run.start_time or run.created or datetime.max


def _worker(run: FlowRun) -> str:
    return f"Its worker {run.labels.get(WORKER_NAME)!r} of the pool {run.work_pool_name!r}"


def _clock(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"
