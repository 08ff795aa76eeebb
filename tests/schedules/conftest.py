"""Workflows and schedules of a test, deleted after it."""

from collections.abc import Iterator

import pytest

from tests.schedules.support import Schedules, Workflow, make_workflow
from tests.support.stack import Api, PrefectStack


@pytest.fixture
def workflow(stack: PrefectStack) -> Iterator[Workflow]:
    """A workflow of this test without a worker; it is deleted afterwards with all its deployments."""
    made = make_workflow(stack)
    yield made
    stack.delete(f"/flows/{made.flow_id}")


@pytest.fixture
def schedules(api: Api, workflow: Workflow) -> Schedules:
    """Schedules of the test's workflow, over the API on SQLite."""
    return Schedules(api, workflow)
