"""Pages of runs, newest start first, in an order that is the same every time.

Prefect sorts by start time and leaves equal times in any order, which may differ from call to call. So the runs that
share their time with a neighbour across the edge of a page are read again by that time, ordered by id.
"""

import asyncio
import heapq
from collections.abc import AsyncIterator, Sequence
from datetime import datetime

from api.pagination import PageRequest
from api.prefect.client import MOST_ROWS, FlowRun, Prefect
from api.prefect.filters import RunFilter
from api.workflows.origins import API_TAG, with_api_tag

NEWEST_FIRST = "START_TIME_DESC"


async def read_page(
    prefect: Prefect, filters: Sequence[RunFilter], page: PageRequest, *, leave_out_api_runs: bool
) -> tuple[list[FlowRun], int]:
    """The wanted runs and the exact count of all, over filters that do not overlap."""
    if not filters:
        return [], 0
    if leave_out_api_runs:
        tagged, total = await asyncio.gather(
            _count(prefect, [with_api_tag(part) for part in filters]), _count(prefect, filters)
        )
        return await _walk(prefect, filters, page, leave_out_api_runs=True), total - tagged
    # The first filter holds nearly all runs: its page is read along with the counts, in case it is the whole answer.
    runs, counts = await asyncio.gather(
        _slice(prefect, filters[0], page.offset, page.limit),
        asyncio.gather(*(prefect.count_runs(part) for part in filters)),
    )
    if any(counts[1:]):
        runs = await _walk(prefect, filters, page, leave_out_api_runs=False)
    return runs, sum(counts)


async def _count(prefect: Prefect, filters: Sequence[RunFilter]) -> int:
    return sum(await asyncio.gather(*(prefect.count_runs(part) for part in filters)))


def start_of(run: FlowRun) -> datetime:
    """The time that Prefect sorts by: when the run started, or is expected to."""
    start = run.start_time or run.expected_start_time or run.created
    if start is None:
        raise ValueError(f"flow run {run.id} carries no time at all")
    return start


def _order(run: FlowRun) -> tuple[float, int]:
    return -start_of(run).timestamp(), -run.id.int


async def _slice(prefect: Prefect, part: RunFilter, offset: int, limit: int) -> list[FlowRun]:
    """Rows `offset` to `offset + limit` of one filter, in the order of `_order`."""
    # One row more on both sides shows whether a group of equal times reaches over an edge.
    before = 1 if offset else 0
    rows = await prefect.list_runs(part, NEWEST_FIRST, offset - before, limit + before + 1)
    runs = sorted(rows[before : before + limit], key=_order)
    if not runs:
        return []
    first, last = start_of(runs[0]), start_of(runs[-1])
    reaches_back = before == 1 and start_of(rows[0]) == first
    reaches_on = len(rows) > before + limit and start_of(rows[-1]) == last
    if not (reaches_back or reaches_on):
        return runs
    groups = {first} if reaches_back else set()
    if reaches_on:
        groups.add(last)
    settled = [run for run in runs if start_of(run) not in groups]
    ties = await asyncio.gather(*(_tied(prefect, part, start, offset, limit) for start in groups))
    return sorted([*settled, *(run for group in ties for run in group)], key=_order)


async def _tied(prefect: Prefect, part: RunFilter, start: datetime, offset: int, limit: int) -> list[FlowRun]:
    """Those runs that start at `start` and lie in the page, by id."""
    later = part.started(since=start)
    at_once = later.started(until=start)
    not_older, equal = await asyncio.gather(prefect.count_runs(later), prefect.count_runs(at_once))
    group_begins = not_older - equal
    begin, end = max(offset, group_begins), min(offset + limit, not_older)
    if begin >= end:
        return []
    return await prefect.list_runs(at_once, "ID_DESC", begin - group_begins, end - begin)


async def _walk(
    prefect: Prefect, filters: Sequence[RunFilter], page: PageRequest, *, leave_out_api_runs: bool
) -> list[FlowRun]:
    """The page out of several filters merged, or out of one with runs to leave out, read from the newest run on.

    It costs one call for each 200 runs up to the page's end, so it serves only what no single filter can.
    """
    wanted: list[FlowRun] = []
    position = 0
    async for run in _merge([_stream(prefect, part) for part in filters]):
        if leave_out_api_runs and API_TAG in run.tags:
            continue
        if position >= page.offset:
            wanted.append(run)
        position += 1
        if len(wanted) == page.limit:
            break
    return wanted


async def _stream(prefect: Prefect, part: RunFilter) -> AsyncIterator[FlowRun]:
    """All runs of one filter in order, read in slices as they are asked for."""
    size = MOST_ROWS - 2
    offset = 0
    while True:
        runs = await _slice(prefect, part, offset, size)
        for run in runs:
            yield run
        if len(runs) < size:
            return
        offset += size


async def _merge(streams: Sequence[AsyncIterator[FlowRun]]) -> AsyncIterator[FlowRun]:
    heads: list[tuple[tuple[float, int], int, FlowRun]] = []
    for index, stream in enumerate(streams):
        if (run := await anext(stream, None)) is not None:
            heapq.heappush(heads, (_order(run), index, run))
    while heads:
        _, index, run = heapq.heappop(heads)
        yield run
        if (following := await anext(streams[index], None)) is not None:
            heapq.heappush(heads, (_order(following), index, following))
