"""Whether a retry could mix up the child flows of a run.

Prefect matches the children of a retried run by the number of the call. If children ran side by side, calls come in
another order, and a call could get the result of another one. The worker of type `spine` matches them by their
parameters instead; other workers do not.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from uuid import UUID

from spine.errors import Conflict, NotFound
from spine.prefect.client import FlowRun, Prefect

# The type of the work pools whose workers match children by their parameters.
MATCHING_POOL = "spine"


async def refuse_ambiguous_children(prefect: Prefect, run: FlowRun) -> None:
    """Check that no child of the run could get the result of another one. Raises `Conflict`."""
    flow_id = await _ambiguous_flow(prefect, run.id)
    if flow_id is None or await is_matched(prefect, run):
        return
    name = (await prefect.flow_names([flow_id]))[flow_id]
    raise Conflict(
        f"Run {run.id} cannot be retried: its child flows {name!r} ran side by side with different parameters, and "
        "Prefect would match them by the order of the calls, so that one could get the result of another. Start a new "
        f"run, or move the deployment to a work pool of type {MATCHING_POOL!r}."
    )


async def _ambiguous_flow(prefect: Prefect, run_id: UUID) -> UUID | None:
    """The flow of children that a retry could mix up, among the children of the run and of its unfinished children."""
    parents = [run_id]
    while parents:
        parent = parents.pop()
        children = _newest_of_each_call(await prefect.child_runs([parent]))
        if _ran_side_by_side(children):
            for flow_id in {child.flow_id for child in children}:
                if _differ([child for child in children if child.flow_id == flow_id]):
                    return flow_id
        # Prefect continues a child that has not ended, with the children that it had.
        parents += [child.id for child in children if child.state is not None and not child.state.is_final()]
    return None


def _newest_of_each_call(runs: Iterable[FlowRun]) -> list[FlowRun]:
    """The newest child of each call of a flow in the process; children with a deployment are never matched."""
    calls: dict[UUID, list[FlowRun]] = defaultdict(list)
    for run in runs:
        if run.parent_task_run_id is not None and run.deployment_id is None:
            calls[run.parent_task_run_id].append(run)
    return [in_order_made(made)[-1] for made in calls.values()]


def in_order_made(runs: Iterable[FlowRun]) -> list[FlowRun]:
    """These runs in the order in which Prefect stored them; the ids of child runs are random."""
    never = datetime.max.replace(tzinfo=UTC)
    return sorted(runs, key=lambda run: (run.created or never, run.id.int))


def _ran_side_by_side(children: Sequence[FlowRun]) -> bool:
    spans = sorted((one.start_time, one.end_time) for one in children if one.start_time and one.end_time)
    return any(later[0] < earlier[1] for earlier, later in pairwise(spans))


def _differ(calls: Sequence[FlowRun]) -> bool:
    """Whether one of the calls has a result to reuse and another one has other parameters."""
    kept = [one for one in calls if one.state is not None and one.state.is_completed() and one.state.data is not None]
    return any(one.parameters != other.parameters for one in kept for other in calls)


async def is_matched(prefect: Prefect, run: FlowRun) -> bool:
    """Whether the worker of a run matches its children by their parameters."""
    if run.work_pool_name is None:
        return False
    try:
        return await prefect.work_pool_type(run.work_pool_name) == MATCHING_POOL
    except NotFound:
        return False
