"""Pages of the runs that neither Spine's API nor anything else in Prefect started: those without the API's tag.

Prefect cannot filter by the absence of a tag, and the runs with it may be a thousand times as many. Their number in a
span of time can be counted, so a page is found by halving the time: spans without a run of the page are never read.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from spine.pagination import PageRequest
from spine.prefect.client import MOST_ROWS, FlowRun, Prefect
from spine.prefect.filters import RunFilter
from spine.workflows.labels import API_TAG, with_api_tag
from spine.workflows.run_pages import RunOrder, read_slice

# A span with so many runs is read: that takes as long as counting the runs of its halves.
_FEW = 25
_SHORTEST = timedelta(microseconds=1)
_OLDEST_FIRST = "START_TIME_ASC"


@dataclass(frozen=True)
class _Span:
    """A span of time, both ends inclusive: how many runs are in it, and how many of them have no tag of the API."""

    since: datetime
    until: datetime
    count: int
    wanted: int

    @property
    def is_wide(self) -> bool:
        return self.count > _FEW and self.since < self.until


async def read_sparse_page(
    prefect: Prefect, part: RunFilter, page: PageRequest, order: RunOrder
) -> tuple[list[FlowRun], int]:
    """One page of the runs that match `part` and do not have the API's tag, and the exact count of all of these."""
    count, tagged = await asyncio.gather(prefect.count_runs(part), prefect.count_runs(with_api_tag(part)))
    total = count - tagged
    if not tagged:
        return await read_slice(prefect, part, order, page.offset, page.limit), total
    if page.offset >= total:
        return [], total
    if count <= MOST_ROWS:
        return (await _read(prefect, part, order))[page.offset :][: page.limit], total
    newest, oldest = await asyncio.gather(
        prefect.list_runs(part, order.sort, limit=1), prefect.list_runs(part, _OLDEST_FIRST, limit=1)
    )
    if not newest or not oldest:
        return [], total
    spans, skipped = [_Span(order.time(oldest[0]), order.time(newest[0]), count, total)], 0
    while any(span.is_wide for span in spans):
        halves = await asyncio.gather(*(_halve(prefect, part, order, span) for span in spans))
        spans, more = _needed([span for both in halves for span in both], page.offset - skipped, page.limit)
        skipped += more
    bounded = [order.bounded(part, since=span.since, until=span.until) for span in spans]
    found = await asyncio.gather(*(_read(prefect, one, order) for one in bounded))
    runs = [run for runs in found for run in runs]
    return runs[page.offset - skipped :][: page.limit], total


async def _halve(prefect: Prefect, part: RunFilter, order: RunOrder, span: _Span) -> list[_Span]:
    """Both halves of a wide span, the later one first."""
    if not span.is_wide:
        return [span]
    middle = span.since + (span.until - span.since) / 2
    later = order.bounded(part, since=middle + _SHORTEST, until=span.until)
    count, tagged = await asyncio.gather(prefect.count_runs(later), prefect.count_runs(with_api_tag(later)))
    wanted = count - tagged
    return [
        _Span(middle + _SHORTEST, span.until, count, wanted),
        _Span(span.since, middle, span.count - count, span.wanted - wanted),
    ]


def _needed(spans: Sequence[_Span], offset: int, limit: int) -> tuple[list[_Span], int]:
    """The spans with rows of the page, and how many wanted runs are in those before them."""
    needed: list[_Span] = []
    skipped = position = 0
    for span in spans:
        begins, position = position, position + span.wanted
        if position <= offset:
            skipped = position
        elif span.wanted > 0 and begins < offset + limit:
            needed.append(span)
    return needed, skipped


async def _read(prefect: Prefect, part: RunFilter, order: RunOrder) -> list[FlowRun]:
    """The wanted runs of a part, in order; more than a page of them can have the same time."""
    runs = await prefect.all_runs(part)
    return sorted((run for run in runs if API_TAG not in run.tags), key=order.key)
