"""`GET /runs?trigger=MANUAL` where manual runs are few among very many: the ids that a process keeps."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from spine.errors import PrefectUnavailable
from spine.pagination import PageRequest
from spine.prefect.client import Prefect
from spine.prefect.filters import RunFilter
from spine.workflows import manual_runs
from spine.workflows.labels import API_TAG
from spine.workflows.manual_runs import ManualRuns

from tests.support.proxy import Proxy
from tests.support.stack import PrefectStack

TIMES = ("start_time", "end_time", "expected_start_time", "state_timestamp")
RUNS = 400
PLACES = (3, 4, 90, 91, 92, 93, 94, 250, 399)
BEGAN = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=RUNS + 60)


@dataclass
class Crowd:
    """Hundreds of runs of one flow, few of them manual; the ids of these, newest first."""

    stack: PrefectStack
    flow_id: str
    wanted: RunFilter
    ids: list[str]
    prefect: Prefect
    proxy: Proxy

    async def all_pages(self, manual: ManualRuns, wanted: RunFilter | None = None) -> list[str]:
        """The ids of all manual runs, in pages of four."""
        found: list[str] = []
        while True:
            runs, total = await manual.page(self.prefect, wanted or self.wanted, PageRequest(len(found), 4))
            found += [str(run.id) for run in runs]
            if len(found) >= total:
                assert len(found) == total
                return found
            assert len(runs) == 4

    def store(self, model: str, *when: datetime, **fields: Any) -> list[str]:
        """Copies of a run that were due and ran then."""
        with self.stack.tables() as tables:
            return tables.copy_runs(model, [{**dict.fromkeys(TIMES, tables.time(one)), **fields} for one in when])


@pytest.fixture
async def crowd(stack: PrefectStack, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Crowd]:
    for name, value in {"FEW_RUNS": 50, "MOST_READ": 5, "MOST_IN_A_SPAN": 100, "MOST_IDS_IN_A_SPAN": 3}.items():
        monkeypatch.setattr(manual_runs, name, value)
    name = f"manual.{uuid4().hex[:10]}"
    flow_id = stack.flow_id(name)
    with temporary_settings({PREFECT_API_URL: proxy.url}):
        async with Prefect.connect(4) as prefect:
            made = Crowd(stack, flow_id, RunFilter(flows={"name": {"any_": [name]}}), [], prefect, proxy)
            model = stack.make_run(flow_id, tags=[API_TAG])
            times = [BEGAN + timedelta(minutes=number) for number in range(RUNS)]
            made.store(model, *(time for place, time in enumerate(times) if place not in PLACES))
            made.ids = made.store(model, *(times[place] for place in reversed(PLACES)), tags=["domain:a"])
            yield made


def child_of(stack: PrefectStack, flow_id: str, **fields: Any) -> str:
    task = {"flow_run_id": stack.make_run(flow_id, tags=[API_TAG]), "name": "t", "task_key": "t", "dynamic_key": "0"}
    return stack.make_run(flow_id, parent_task_run_id=stack.post("/task_runs/", task)["id"], **fields)


async def test_pages_of_few_manual_runs_are_exact_and_take_few_requests(crowd: Crowd) -> None:
    for tags in ([], [API_TAG]):
        child = child_of(crowd.stack, crowd.flow_id, tags=tags)
        crowd.store(child, BEGAN + timedelta(minutes=91, seconds=30), BEGAN + timedelta(minutes=300))
    manual = ManualRuns(crowd.wanted)
    assert await crowd.all_pages(manual) == crowd.ids
    crowd.proxy.requests.clear()
    assert await crowd.all_pages(manual) == crowd.ids
    # For each of the three pages: two spans of time are counted, the newest also for manual runs, and the page is read.
    assert len(crowd.proxy.requests) <= 3 * 8
    assert await crowd.all_pages(manual, crowd.wanted.where(tags={"all_": ["domain:b"]})) == []
    assert await crowd.all_pages(manual, crowd.wanted.started(since=BEGAN + timedelta(minutes=92))) == crowd.ids[:5]


async def test_a_run_that_is_added_or_deleted_is_seen_at_once_wherever_it_belongs(crowd: Crowd) -> None:
    manual = ManualRuns(crowd.wanted)
    assert await crowd.all_pages(manual) == crowd.ids
    now = crowd.stack.make_run(crowd.flow_id)
    assert await crowd.all_pages(manual) == [now, *crowd.ids]
    (old,) = crowd.store(now, BEGAN + timedelta(minutes=200))
    expected = [now, *crowd.ids[:2], old, *crowd.ids[2:]]
    assert await crowd.all_pages(manual) == expected
    crowd.stack.delete(f"/flow_runs/{crowd.ids[4]}")
    assert await crowd.all_pages(manual) == [one for one in expected if one != crowd.ids[4]]


async def test_more_manual_runs_than_are_kept_are_listed_all_the_same(
    crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manual_runs, "MOST_IDS", 8)
    assert await crowd.all_pages(ManualRuns(crowd.wanted)) == crowd.ids


async def test_a_search_that_takes_too_long_says_so_and_goes_on_with_the_next_request(crowd: Crowd) -> None:
    manual = ManualRuns(crowd.wanted)
    crowd.proxy.requests.clear()
    searching = asyncio.create_task(crowd.all_pages(manual))
    while len(crowd.proxy.requests) < 60:
        assert not searching.done()
        await asyncio.sleep(0.002)
    with crowd.proxy.hanging(), pytest.raises(PrefectUnavailable, match=r"has [\d]+ of 4\d\d runs still to search"):
        await searching
    crowd.proxy.requests.clear()
    assert await crowd.all_pages(manual) == crowd.ids
