"""The runs that neither Spine's API nor anything else in Prefect started, where they are few among very many.

Prefect cannot filter by the absence of a tag, so these runs are searched for, and their ids are kept in memory. What
started a run never changes, and when it was due hardly does. So the past is divided into spans of time, and each span
is searched once. It is searched again if Prefect counts another number of runs there, which takes one quick request for
all spans together. A page is then a request for the runs with these ids, whatever else it is filtered by.
"""

import asyncio
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from spine.errors import PrefectUnavailable
from spine.pagination import PageRequest
from spine.prefect.client import FlowRun, Prefect
from spine.prefect.filters import RunFilter
from spine.tables.base import utc_now
from spine.workflows.labels import API_TAG, trigger_of, with_trigger
from spine.workflows.run_pages import BY_START, read_page
from spine.workflows.schemas import RunTrigger
from spine.workflows.sparse_pages import read_sparse_page

# A page of no more runs than this, manual ones and those of the API, is found by reading and counting them.
FEW_RUNS = 2_000
# With more manual runs than this they are not rare, and a page of them is found by reading and counting as well.
MOST_IDS = 2_000
# Prefect searches so many runs on SQLite in less than a second. After one of them is deleted they are searched again.
MOST_IN_A_SPAN = 20_000
# Finding one takes up to 0.1 s, and what is found is kept for the next request only when a whole span is searched.
MOST_IDS_IN_A_SPAN = 20
# Reading so many runs takes as long as counting those of both halves.
MOST_READ = 50
# Runs that are due so close together are read.
SHORTEST_SPAN = timedelta(milliseconds=100)
# Prefect stores a run a moment after it is due.
SETTLED_AFTER = timedelta(seconds=60)
# How long it is not tried again after too many manual runs were found.
SECONDS_WITHOUT_SEARCH = 600.0

_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
_STEP = timedelta(microseconds=1)
# On SQLite Prefect has an index on this time alone, and none on when a run started.
_DUE = "expected_start_time"
_TAGGED = {"tags": {"any_": [API_TAG]}}
_CHILDREN = {"parent_task_run_id": {"is_null_": False}}


class _TooMany(Exception):
    """There are more manual runs than are kept."""


@dataclass(frozen=True)
class _Counted:
    """How many runs have no creator, how many of them are manual, and whether there are child runs among them."""

    runs: int
    manual: int
    has_children: bool

    def without(self, part: "_Counted") -> "_Counted":
        """The numbers of the other part."""
        return replace(self, runs=self.runs - part.runs, manual=self.manual - part.manual)


@dataclass
class _Span:
    """A span of time, both ends inclusive, and how many runs were due in it: the ids of the manual ones once it is
    searched, and their number once they are counted."""

    since: datetime
    until: datetime
    count: int
    counted: _Counted | None = None
    ids: list[UUID] | None = None


class ManualRuns:
    """Make one for each process. `within` limits which runs it knows."""

    def __init__(self, within: RunFilter | None = None) -> None:
        self._within = within or RunFilter()
        # Not also those without a parent: SQLite would then read all runs without one instead of those of the span.
        self._candidates = self._within.where(created_by={"is_null_": True})
        # The oldest first, without gaps.
        self._spans: list[_Span] = []
        self._search_at = 0.0
        self._lock = asyncio.Lock()

    async def page(self, prefect: Prefect, wanted: RunFilter, page: PageRequest) -> tuple[list[FlowRun], int]:
        """One page of the manual runs that match `wanted`, newest start first, and the exact count of all of these.

        Raises `PrefectUnavailable` if they have not been found yet: what was searched remains known.
        """
        (part,) = with_trigger(wanted, RunTrigger.MANUAL)
        ids = None
        if asyncio.get_running_loop().time() >= self._search_at and await self._is_worth_it(prefect, part):
            ids = await self._ids(prefect)
        if ids is None:
            return await read_sparse_page(prefect, part, page, BY_START)
        of_ids = wanted.where(id={"any_": [str(one) for one in ids]})
        return await read_page(prefect, [of_ids] if ids else [], page)

    async def _is_worth_it(self, prefect: Prefect, part: RunFilter) -> bool:
        is_searched = bool(self._spans) and not self._runs_left()
        return is_searched or await prefect.count_runs(part) > FEW_RUNS

    async def _ids(self, prefect: Prefect) -> list[UUID] | None:
        """The ids of all manual runs; None if there are too many to keep."""
        before = self._runs_left()
        try:
            async with self._lock:
                return await self._search_all(prefect)
        except _TooMany:
            self._search_at = asyncio.get_running_loop().time() + SECONDS_WITHOUT_SEARCH
            return None
        except PrefectUnavailable as error:
            left = self._runs_left()
            if not left or left == before:
                raise
            everything = sum(span.count for span in self._spans)
            raise PrefectUnavailable(
                f"Spine is looking for manual runs and has {left:,} of {everything:,} runs still to search; "
                "try again in a few seconds."
            ) from error

    def _runs_left(self) -> int:
        """How many runs are in spans that have not been searched."""
        return sum(span.count for span in self._spans if span.ids is None)

    async def _search_all(self, prefect: Prefect) -> list[UUID]:
        await self._check_spans(prefect)
        await self._reach(prefect, utc_now() - SETTLED_AFTER)
        for span in self._spans:
            if not span.count:
                span.ids = []
            elif span.ids is None and span.counted is None:
                span.counted = await self._count_manual(prefect, span.since, span.until)
        self._check_number()
        place = len(self._spans) - 1
        while place >= 0:
            span = self._spans[place]
            if span.counted is not None and span.ids is None:
                is_long = span.until - span.since >= SHORTEST_SPAN
                if span.counted.manual > MOST_IDS_IN_A_SPAN and is_long:
                    self._spans[place : place + 1] = await self._halves(prefect, span)
                    place += 1
                    continue
                span.ids = await self._find(prefect, span.since, span.until, span.counted)
            place -= 1
        newest = self._spans[-1].until + _STEP
        newer = await self._find(prefect, newest, None, await self._count_manual(prefect, newest, None))
        return sorted({one for span in self._spans for one in span.ids or ()} | set(newer))

    def _check_number(self) -> None:
        counted = sum(span.counted.manual for span in self._spans if span.counted and span.ids is None)
        if counted + sum(len(span.ids or ()) for span in self._spans) > MOST_IDS:
            raise _TooMany

    async def _check_spans(self, prefect: Prefect) -> None:
        """Forget what is known of spans in which another number of runs is due than when they were searched."""
        if not self._spans:
            return
        everything = await self._count(prefect, _BEGINNING, self._spans[-1].until)
        if everything == sum(span.count for span in self._spans):
            return
        spans: list[_Span] = []
        for span in self._spans:
            count = await self._count(prefect, span.since, span.until)
            is_same = count == span.count
            spans += [span] if is_same else await self._divided(prefect, _Span(span.since, span.until, count))
        self._spans = spans

    async def _reach(self, prefect: Prefect, until: datetime) -> None:
        """Add the time up to `until`."""
        since = self._spans[-1].until + _STEP if self._spans else _BEGINNING
        if since >= until:
            return
        added = _Span(since, until, await self._count(prefect, since, until))
        last = self._spans[-1] if self._spans else None
        if last is None or last.ids is None or last.count + added.count > MOST_IN_A_SPAN:
            self._spans += await self._divided(prefect, added)
            return
        ids = []
        if added.count:
            ids = await self._find(prefect, since, until, await self._count_manual(prefect, since, until))
        self._spans[-1] = replace(last, until=until, count=last.count + added.count, ids=[*last.ids, *ids])

    async def _divided(self, prefect: Prefect, span: _Span) -> list[_Span]:
        """The span in parts that have at most `MOST_IN_A_SPAN` runs each."""
        if span.count <= MOST_IN_A_SPAN or span.until - span.since < SHORTEST_SPAN:
            return [span]
        return [part for half in await self._halves(prefect, span) for part in await self._divided(prefect, half)]

    async def _halves(self, prefect: Prefect, span: _Span) -> list[_Span]:
        middle = span.since + (span.until - span.since) / 2
        count = await self._count(prefect, span.since, middle)
        earlier, later = None, None
        if span.counted is not None:
            earlier = await self._count_manual(prefect, span.since, middle, span.counted)
            later = span.counted.without(earlier)
        return [
            _Span(span.since, middle, count, earlier),
            _Span(middle + _STEP, span.until, max(span.count - count, 0), later),
        ]

    async def _count(self, prefect: Prefect, since: datetime, until: datetime) -> int:
        """How many runs are due in a span, whatever started them: Prefect counts these in an index."""
        return await prefect.count_runs(self._within.between(_DUE, since=since, until=until))

    async def _count_manual(
        self, prefect: Prefect, since: datetime, until: datetime | None, whole: _Counted | None = None
    ) -> _Counted:
        """The numbers of a span, which may be a part of another one."""
        runs = self._candidates.between(_DUE, since=since, until=until)
        number, tagged = await asyncio.gather(prefect.count_runs(runs), prefect.count_runs(runs.where(**_TAGGED)))
        children = runs.where(**_CHILDREN)
        child_runs = await prefect.count_runs(children) if whole is None or whole.has_children else 0
        # A child run can have the tag of the API, too.
        tagged_children = await prefect.count_runs(children.where(**_TAGGED)) if child_runs else 0
        return _Counted(number, number - tagged - child_runs + tagged_children, child_runs > 0)

    async def _find(self, prefect: Prefect, since: datetime, until: datetime | None, counted: _Counted) -> list[UUID]:
        """The ids of the manual runs of a span, by halving the time: halves without one are not read."""
        if counted.manual <= 0:
            return []
        if counted.runs <= MOST_READ or until is None or until - since < SHORTEST_SPAN:
            runs = await prefect.all_runs(self._candidates.between(_DUE, since=since, until=until))
            return [run.id for run in runs if trigger_of(run) is RunTrigger.MANUAL]
        middle = since + (until - since) / 2
        earlier = await self._count_manual(prefect, since, middle, counted)
        later = counted.without(earlier)
        halves = await asyncio.gather(
            self._find(prefect, since, middle, earlier), self._find(prefect, middle + _STEP, until, later)
        )
        return [one for half in halves for one in half]
