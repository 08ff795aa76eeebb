"""Runs that are RUNNING and have stopped emitting heartbeats: their process, or its machine, may be gone."""

from datetime import timedelta

from spine.prefect.client import MOST_ROWS, Prefect
from spine.prefect.filters import RunFilter
from spine.tables.base import utc_now

# Three times the default of `PREFECT_FLOWS_HEARTBEAT_FREQUENCY`.
LONGEST_SILENCE = timedelta(minutes=9)
_RUNNING = RunFilter({"state": {"type": {"any_": ["RUNNING"]}}})


async def count_silent_runs(prefect: Prefect) -> int:
    """How many of the (at most 200) longest-running runs have been silent for nine minutes.

    Raises `PrefectUnavailable`.
    """
    since = utc_now() - LONGEST_SILENCE
    runs = await prefect.list_runs(_RUNNING.started(until=since), "START_TIME_ASC", 0, MOST_ROWS)
    ids = {run.id for run in runs}
    return len(ids - await prefect.runs_with_heartbeat(ids, since))
