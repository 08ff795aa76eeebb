"""Workflows and schedules that the tests make, gone again after each."""

from collections.abc import Iterator

import pytest

from tests.schedules.support import Schedules, Workflow, make_workflow
from tests.support.stack import Api, PrefectStack


@pytest.fixture
def workflow(stack: PrefectStack) -> Iterator[Workflow]:
    """A workflow of this test, whose runs nobody executes; all that belongs to it is deleted at the end."""
    made = make_workflow(stack)
    yield made
    stack.delete(f"/flows/{made.flow_id}")


@pytest.fixture
def schedules(api: Api, workflow: Workflow) -> Schedules:
    """Schedules of the test's workflow, over the API on SQLite."""
    return Schedules(api, workflow)
