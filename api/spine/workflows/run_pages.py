"""Pages of runs, newest first by one of their times, in an order that is the same for every request.

Prefect sorts by that time but orders equal times arbitrarily, and may order them differently in each request. So the
runs that have the same time as a neighbour on the next page are read again by that time, ordered by id.
"""

import asyncio
import heapq
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from spine.pagination import PageRequest
from spine.prefect.client import MOST_ROWS, FlowRun, Prefect
from spine.prefect.filters import RunFilter


@dataclass(frozen=True)
class RunOrder:
    """The time by which runs are ordered: Prefect's name for the sort, its filter field, and the time of a run."""

    sort: str
    field: str
    time_of: Callable[[FlowRun], datetime | None]

    def time(self, run: FlowRun) -> datetime:
        """The time that Prefect sorts a run by."""
        time = self.time_of(run) or run.created
        if time is None:
            raise ValueError(f"flow run {run.id} has no time at all")
        return time

    def key(self, run: FlowRun) -> tuple[float, int]:
        """Sorts the newest first, and equal times by id."""
        return -self.time(run).timestamp(), -run.id.int

    def bounded(self, part: RunFilter, *, since: datetime, until: datetime | None = None) -> RunFilter:
        """`part` with this time bounded, both ends inclusive."""
        return part.between(self.field, since=since, until=until)


# When a run started or is expected to start.
BY_START = RunOrder("START_TIME_DESC", "start_time", lambda run: run.start_time or run.expected_start_time)
# When a run was due.
BY_DUE_TIME = RunOrder("EXPECTED_START_TIME_DESC", "expected_start_time", lambda run: run.expected_start_time)


async def read_page(
    prefect: Prefect,
    filters: Sequence[RunFilter],
    page: PageRequest,
    *,
    order: RunOrder = BY_START,
) -> tuple[list[FlowRun], int]:
    """One page of the runs that match any of `filters`, and the exact count of all. The filters must not overlap."""
    if not filters:
        return [], 0
    # The first filter matches nearly all runs: its page is read together with the counts, as it is often the answer.
    (runs, first), others = await asyncio.gather(
        _counted_slice(prefect, filters[0], order, page), _count(prefect, filters[1:])
    )
    if others:
        runs = await _walk(prefect, filters, page, order)
    return runs, first + others


async def _count(prefect: Prefect, filters: Sequence[RunFilter]) -> int:
    return sum(await asyncio.gather(*(prefect.count_runs(part) for part in filters)))


async def _counted_slice(
    prefect: Prefect, part: RunFilter, order: RunOrder, page: PageRequest
) -> tuple[list[FlowRun], int]:
    """The page of one filter, in order, and how many runs match the filter."""
    if page.offset:
        return await asyncio.gather(read_slice(prefect, part, order, page.offset, page.limit), prefect.count_runs(part))
    rows, count = await prefect.first_runs(part, order.sort, page.limit + 1)
    return await _settled(prefect, part, order, rows, 0, page.limit), count


async def read_slice(prefect: Prefect, part: RunFilter, order: RunOrder, offset: int, limit: int) -> list[FlowRun]:
    """Rows `offset` to `offset + limit` of one filter, in order."""
    # One more row on each side shows whether a group of equal times crosses the edge of the page.
    before = 1 if offset else 0
    rows = await prefect.list_runs(part, order.sort, offset - before, limit + before + 1)
    return await _settled(prefect, part, order, rows, offset, limit)


async def _settled(
    prefect: Prefect, part: RunFilter, order: RunOrder, rows: Sequence[FlowRun], offset: int, limit: int
) -> list[FlowRun]:
    """Rows `offset` to `offset + limit` in order, from `rows`, which has one more on each side where there is one."""
    before = 1 if offset else 0
    runs = sorted(rows[before : before + limit], key=order.key)
    if not runs:
        return []
    first, last = order.time(runs[0]), order.time(runs[-1])
    reaches_back = before == 1 and order.time(rows[0]) == first
    reaches_on = len(rows) > before + limit and order.time(rows[-1]) == last
    if not (reaches_back or reaches_on):
        return runs
    groups = {first} if reaches_back else set()
    if reaches_on:
        groups.add(last)
    settled = [run for run in runs if order.time(run) not in groups]
    ties = await asyncio.gather(*(_tied(prefect, part, order, time, offset, limit) for time in groups))
    return sorted([*settled, *(run for group in ties for run in group)], key=order.key)


async def _tied(
    prefect: Prefect, part: RunFilter, order: RunOrder, time: datetime, offset: int, limit: int
) -> list[FlowRun]:
    """The runs of the page whose time is `time`, by id."""
    later = order.bounded(part, since=time)
    at_once = order.bounded(part, since=time, until=time)
    not_older, equal = await asyncio.gather(prefect.count_runs(later), prefect.count_runs(at_once))
    group_begins = not_older - equal
    begin, end = max(offset, group_begins), min(offset + limit, not_older)
    if begin >= end:
        return []
    return await prefect.list_runs(at_once, "ID_DESC", begin - group_begins, end - begin)


async def _walk(prefect: Prefect, filters: Sequence[RunFilter], page: PageRequest, order: RunOrder) -> list[FlowRun]:
    """One page of several filters merged, read from the newest run on.

    It costs one request for each 200 runs up to the end of the page, so it is used only if one filter is not enough.
    """
    wanted: list[FlowRun] = []
    position = 0
    async for run in _merge([_stream(prefect, part, order) for part in filters], order):
        if position >= page.offset:
            wanted.append(run)
        position += 1
        if len(wanted) == page.limit:
            break
    return wanted


async def _stream(prefect: Prefect, part: RunFilter, order: RunOrder) -> AsyncIterator[FlowRun]:
    """All runs of one filter in order, read in slices when needed."""
    size = MOST_ROWS - 2
    offset = 0
    while True:
        runs = await read_slice(prefect, part, order, offset, size)
        for run in runs:
            yield run
        if len(runs) < size:
            return
        offset += size


async def _merge(streams: Sequence[AsyncIterator[FlowRun]], order: RunOrder) -> AsyncIterator[FlowRun]:
    heads: list[tuple[tuple[float, int], int, FlowRun]] = []
    for index, stream in enumerate(streams):
        if (run := await anext(stream, None)) is not None:
            heapq.heappush(heads, (order.key(run), index, run))
    while heads:
        _, index, run = heapq.heappop(heads)
        yield run
        if (following := await anext(streams[index], None)) is not None:
            heapq.heappush(heads, (order.key(following), index, following))
