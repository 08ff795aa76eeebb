"""The logs of crashed runs in a list: Prefect's message about a crash does not say why a flow could not be loaded."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from uuid import UUID

from spine.prefect.client import FlowRun, Log, Prefect
from spine.prefect.transport import MOST_ROWS


async def logs_of_crashes(prefect: Prefect, runs: Sequence[FlowRun]) -> dict[UUID, list[Log]]:
    """The newest error logs of the crashed ones of these runs, by run, newest first."""
    crashed = [run.id for run in runs if run.state is not None and run.state.is_crashed()]
    if not crashed:
        return {}
    found = await prefect.error_logs(*crashed)
    by_run: dict[UUID, list[Log]] = defaultdict(list)
    for log in found:
        if log.flow_run_id is not None:
            by_run[log.flow_run_id].append(log)
    if len(found) == MOST_ROWS:
        # One run may have written all of them.
        left_out = [run_id for run_id in crashed if run_id not in by_run]
        by_run |= zip(left_out, await asyncio.gather(*map(prefect.error_logs, left_out)), strict=True)
    return by_run
