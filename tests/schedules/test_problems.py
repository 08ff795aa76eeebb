"""Parameters that the code no longer accepts, in one sentence."""

import time
from typing import Any
from uuid import uuid4

import pytest
from spine.prefect.client import Deployment
from spine.schedules.problems import problem_of

from tests.schedules.support import PARAMETERS, now

SENTENCE = "The workflow's code does not accept these parameters: "


def deployment(*of_rows: dict[str, Any], schema: Any = PARAMETERS, **parameters: Any) -> Deployment:
    rows = [{"id": uuid4(), "schedule": {"cron": "0 3 * * *"}, "active": True, "parameters": one} for one in of_rows]
    return Deployment.model_validate(
        {
            "id": uuid4(),
            "name": "some",
            "flow_id": uuid4(),
            "created": now(),
            "updated": now(),
            "parameters": parameters,
            "parameter_openapi_schema": schema,
            "schedules": rows,
        }
    )


@pytest.mark.parametrize(
    ("fitting"),
    [
        deployment(week="2026-01-05"),
        deployment({"week": "2026-01-05"}),
        deployment({"week": "2026-01-05"}, {"week": "2026-01-12", "tier": "T1"}),
        deployment({"tier": "T1"}, week="w", tier="gone"),
        deployment(week={"__prefect_kind": "jinja", "template": "{{ now }}"}),
        deployment(schema=None, anything=1),
        deployment(schema={"properties": {"week": {"type": "nothing that exists"}}}, week="w"),
    ],
    ids=["own", "of the timing", "of each timing", "overridden", "evaluated", "no schema", "broken schema"],
)
def test_parameters_that_fit_or_cannot_be_checked_are_no_problem(fitting: Deployment) -> None:
    assert problem_of(fitting) is None


@pytest.mark.parametrize(
    ("misfit", "named"),
    [
        (deployment(), "week: is required."),
        (deployment(week="w", gone=1), "gone: the flow has no such parameter; it accepts week, tier."),
        (deployment(week="w", tier="T9"), "tier: 'T9' is not one of ['OTC', 'T1']."),
        (deployment({"week": "w"}, {"week": 3}), "week: 3 is not of type 'string'."),
    ],
    ids=["missing", "unknown", "wrong", "of one timing"],
)
def test_each_parameter_that_does_not_fit_is_named(misfit: Deployment, named: str) -> None:
    assert problem_of(misfit) == SENTENCE + named
    # The second time it comes from the cache.
    assert problem_of(misfit) == SENTENCE + named


def test_a_change_of_parameters_or_schema_is_seen_at_once() -> None:
    misfit = deployment(week="w", tier="T9")
    assert problem_of(misfit)
    assert problem_of(misfit.model_copy(update={"parameters": {"week": "w"}})) is None
    assert problem_of(misfit)
    wider = {**PARAMETERS, "properties": {"week": {}, "tier": {}}}
    assert problem_of(misfit.model_copy(update={"parameter_openapi_schema": wider})) is None


def test_long_values_and_many_problems_are_shortened() -> None:
    problem = problem_of(deployment(**{f"unknown{number}": "x" for number in range(50)}, week=["y" * 10_000]))
    assert problem is not None
    assert len(problem) < 1_500
    assert problem.endswith("and 46 more.")


def test_checking_a_page_again_takes_no_time() -> None:
    page = [deployment(week="w", tier="T9") for _ in range(100)]
    spent = []
    for _ in range(6):
        began = time.perf_counter()
        assert all(problem_of(one) for one in page)
        spent.append(time.perf_counter() - began)
    assert min(spent[1:]) < 0.003
