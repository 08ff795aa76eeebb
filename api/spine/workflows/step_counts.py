"""Step counts of runs, with few requests of Prefect.

A run that no worker has taken has no steps. The steps of a run that ended some time ago no longer change, unless it is
retried, which gives it another state, or somebody changes task runs by hand. So its counts are kept in memory under its
state, for one minute.
"""

import time
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from spine.prefect.client import FlowRun, Prefect
from spine.prefect.states import is_final, is_untouched
from spine.tables.base import utc_now
from spine.workflows.steps import StepCounts, count_steps

# Prefect stores task runs from events. After this, the last ones of a run have long arrived.
SETTLED_AFTER = timedelta(minutes=5)
SECONDS_KEPT = 60.0
MOST_KEPT = 10_000

# By the id of the run: its state, until when the counts are kept, and the counts.
_kept: dict[UUID, tuple[UUID | None, float, StepCounts | None]] = {}


async def step_counts(prefect: Prefect, runs: Sequence[FlowRun]) -> dict[UUID, StepCounts]:
    """The counts of each of these runs (at most 200), by run id."""
    now = time.monotonic()
    found: dict[UUID, StepCounts] = {}
    for run in runs:
        state_id, kept_until, counts = _kept.get(run.id, (None, 0.0, None))
        if is_untouched(run):
            found[run.id] = StepCounts()
        elif counts is not None and state_id == run.state_id and kept_until > now:
            found[run.id] = counts
    others = [run for run in runs if run.id not in found]
    counted = await count_steps(prefect, others)
    if len(_kept) + len(others) > MOST_KEPT:
        _kept.clear()
    for run in others:
        if _is_settled(run):
            _kept[run.id] = run.state_id, now + SECONDS_KEPT, counted[run.id]
    return found | counted


def _is_settled(run: FlowRun) -> bool:
    return is_final(run) and run.state is not None and utc_now() - run.state.timestamp > SETTLED_AFTER
