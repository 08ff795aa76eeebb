"""Which versions of Prefect and SQLAlchemy the server may have together."""

import pytest
from spine.prefect_server.versions import refusal


@pytest.mark.parametrize(
    ("prefect", "sqlalchemy"), [("3.8.8", "2.0.58"), ("3.9.0", "2.1.9"), ("3.9.1", "2.0.40"), ("3.10.2", "2.1.0b1")]
)
def test_versions_that_work_together_are_not_refused(prefect: str, sqlalchemy: str) -> None:
    assert refusal(prefect, sqlalchemy) is None


@pytest.mark.parametrize(("prefect", "sqlalchemy"), [("3.8.8", "2.1.0"), ("3.8.30", "2.1.9"), ("3.8.9", "2.10.0")])
def test_a_server_that_would_plan_no_runs_is_refused(prefect: str, sqlalchemy: str) -> None:
    reason = refusal(prefect, sqlalchemy)
    assert reason is not None
    assert prefect in reason
    assert sqlalchemy in reason


def test_the_installed_versions_are_not_refused() -> None:
    assert refusal() is None
