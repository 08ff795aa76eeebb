"""How many calls of Prefect `GET /schedules` takes, counted on a server where nothing else makes deployments.

A deployment that is made meanwhile costs a call, so beside other tests no number would be certain.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.schedules.support import FAR_AWAY, Workflow, make_workflow
from tests.support.api_here import api_here
from tests.support.proxy import proxy_to
from tests.support.stack import PrefectStack

ROW = {"schedule": {"cron": FAR_AWAY, "timezone": "UTC"}, "active": False}


@pytest.fixture
def hundred(quiet_stack: PrefectStack) -> Iterator[Workflow]:
    """A workflow with 101 schedules."""
    workflow = make_workflow(quiet_stack)
    first = workflow.deploy("one-of-many", schedules=[ROW])
    with quiet_stack.tables() as tables:
        created = datetime.fromisoformat(first["created"])
        # One creation time for all would leave their order open.
        copies = [
            {"name": f"one-of-many-{number}", "created": tables.time(created - timedelta(seconds=number))}
            for number in range(1, 101)
        ]
        ids = tables.copy("deployment", first["id"], copies)
        tables.copy("deployment_schedule", first["schedules"][0]["id"], [{"deployment_id": one} for one in ids])
    yield workflow
    quiet_stack.delete(f"/flows/{workflow.flow_id}")


@pytest.mark.slow
def test_a_page_of_100_takes_the_same_calls_of_prefect_as_a_page_of_20(
    quiet_stack: PrefectStack, hundred: Workflow, tmp_path: Path
) -> None:
    with (
        proxy_to(int(quiet_stack.url.split(":")[2].split("/")[0])) as proxy,
        api_here(proxy.url, quiet_stack.home, tmp_path) as api,
    ):

        def calls(limit: int) -> list[str]:
            proxy.requests.clear()
            page = api.get("/schedules", target_name=hundred.name, limit=limit)
            assert (len(page["data"]), page["pagination"]["total"]) == (limit, 101)
            return sorted(proxy.requests)

        # The first page also finds which deployments there are.
        calls(20)
        assert calls(100) == calls(20)
        assert len(calls(100)) <= 7
