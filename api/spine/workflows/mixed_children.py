"""Runs that completed although a retry made the call of one child flow with the parameters of another one.

Prefect matches the children of a run that is executed again by the number of the call: see `spine.workflows.children`.
Spine's own retry refuses what could be mixed up, and the worker of type `spine` matches by parameters. What is left is
a retry by Prefect itself (the button of its UI, `retries=`) on another type of worker: what had failed never runs.
Such a run must not stay COMPLETED.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from itertools import pairwise
from uuid import UUID

import structlog

from spine.audit.trail import changing
from spine.errors import NotFound, SpineError
from spine.json_rule import is_same
from spine.oddities import ODDITIES
from spine.prefect.client import FlowRun, Prefect
from spine.prefect.states import MIXED_UP, Failed
from spine.workflows.children import in_order_made, is_matched

log = structlog.get_logger("spine.workflows")

# The outcomes that were checked last: the follower reads each of them several times.
MOST_KEPT = 10_000


class MixedChildren:
    """Fails such runs; make one for each process."""

    def __init__(self) -> None:
        self._checked: OrderedDict[UUID, None] = OrderedDict()

    async def check(self, prefect: Prefect, runs: Sequence[FlowRun]) -> None:
        """Set those of these runs to FAILED whose children were mixed up. Raises `PrefectUnavailable`."""
        for run in runs:
            if run.state is None or not run.state.is_completed() or run.run_count < 2 or run.state.id in self._checked:
                continue
            try:
                await _check(prefect, run)
            except NotFound:
                continue
            except SpineError:
                raise
            except Exception as error:
                ODDITIES.found("flow run", run.id, f"its children cannot be compared ({type(error).__name__})")
            self._checked[run.state.id] = None
            if len(self._checked) > MOST_KEPT:
                self._checked.popitem(last=False)


async def _check(prefect: Prefect, run: FlowRun) -> None:
    flow_id = mixed_up_flow(await prefect.child_runs([run.id]))
    if flow_id is None or await is_matched(prefect, run):
        return
    name = (await prefect.flows_by_id([flow_id]))[flow_id].name
    message = (
        f"The retry mixed up the child flows {name!r}, which had run side by side: the call of one that had failed was "
        "made with the parameters of another one, so that what had failed did not run again. Prefect matches them by "
        "the order of the calls. Start a new run, or move the deployment to a work pool of type 'spine'."
    )
    log.warning("children_mixed_up", run_id=str(run.id), flow=name)
    async with changing("failed", "run", run.id, run.name, before={"status": run.state_name}) as change:
        await prefect.set_run_state(run.id, Failed(name=MIXED_UP, message=message), force=True)
        change.after = {"status": MIXED_UP}


def mixed_up_flow(children: Sequence[FlowRun]) -> UUID | None:
    """The flow of a child whose call was first made side by side with another call, and later with its parameters."""
    of_flow: dict[UUID, dict[UUID, list[FlowRun]]] = defaultdict(lambda: defaultdict(list))
    for child in in_order_made(children):
        # Children with a deployment are never matched.
        if child.parent_task_run_id is not None and child.deployment_id is None:
            of_flow[child.flow_id][child.parent_task_run_id].append(child)
    for flow_id, calls in of_flow.items():
        first = {call: made[0] for call, made in calls.items()}
        spans = sorted((one.start_time, one.end_time) for one in first.values() if one.start_time and one.end_time)
        if not any(later[0] < earlier[1] for earlier, later in pairwise(spans)):
            continue
        for call, made in calls.items():
            others = [one for other, one in first.items() if other != call]
            now = made[-1].parameters
            if not is_same(now, made[0].parameters) and any(is_same(now, other.parameters) for other in others):
                return flow_id
    return None
