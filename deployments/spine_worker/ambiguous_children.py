"""Whether a run that is executed again in a new interpreter could mix up its child flows.

A new interpreter is Prefect's alone, and matches children by the number of the call. The processes that are forked
match them by their parameters (`forking.child_matching`).
"""

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterParentFlowRunId
from prefect.client.schemas.objects import FlowRun

from spine_worker.forking.overlaps import any_overlap

_MOST_ROWS = 200


class AmbiguousChildren(RuntimeError):
    """The children of a run ran side by side with different parameters, and some of them have results."""


async def refuse_ambiguous_children(client: PrefectClient, run: FlowRun) -> None:
    """Raise `AmbiguousChildren` if a child of a run could get the result of another one."""
    of_run = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[run.id]))
    children: list[FlowRun] = []
    while True:
        page = await client.read_flow_runs(flow_run_filter=of_run, limit=_MOST_ROWS, offset=len(children))
        children += page
        if len(page) < _MOST_ROWS:
            break
    children = [child for child in children if child.deployment_id is None]
    if not any_overlap((one.start_time, one.end_time) for one in children):
        return
    kept = [one for one in children if one.state and one.state.is_completed() and one.state.data is not None]
    if any(one.flow_id == other.flow_id and one.parameters != other.parameters for one in kept for other in children):
        raise AmbiguousChildren(
            "The child flows of this run ran side by side with different parameters. In a new interpreter Prefect "
            "would match them by the order of the calls, so that one could get the result of another. Start a new run."
        )
