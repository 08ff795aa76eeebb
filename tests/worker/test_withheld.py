"""A worker that was started with Spine's and Prefect's secrets keeps them out of the environment of its runs."""

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prefect.settings import (
    PREFECT_SERVER_DATABASE_CONNECTION_URL,
    PREFECT_SERVER_DOCKET_URL,
    get_current_settings,
    temporary_settings,
)
from spine.own_settings import own_settings
from spine_worker.withheld import SETTINGS_FILE, SPINE_SECRETS, is_withheld, withholding
from sqlalchemy import make_url

from tests.support.databases import migrate
from tests.support.stack import PrefectStack
from tests.worker.pool import Pool, Run, served_pool

COMMAND = f"{sys.executable} -m prefect.engine"
SECRETS = {
    "SPINE_API_KEY": "secret-of-the-admin",
    "PREFECT_SERVER_DATABASE_CONNECTION_URL": "sqlite+aiosqlite:////secret-of-prefect.db",
    "PREFECT_API_DATABASE_PASSWORD": "secret-of-prefect",
    "PREFECT_SERVER_API_AUTH_STRING": "spine:secret-of-the-server",
}


@pytest.fixture
def pool(stack: PrefectStack, tmp_path: Path) -> Iterator[Pool]:
    """A worker of type spine whose database is not the one in its home."""
    url = make_url(f"sqlite+aiosqlite:///{tmp_path}/secret-place.db")
    migrate(url)
    of_spine = {"SPINE_DATABASE_URL": str(url).replace("+aiosqlite", ""), "SPINE_HOME": str(tmp_path / "none")}
    with served_pool("spine", stack, tmp_path / "pool", **SECRETS, **of_spine) as served:
        served.deploy("behaviour.py:shows_environment")
        yield served


@pytest.mark.slow
def test_no_run_sees_them_and_spines_own_flows_find_their_database(pool: Pool) -> None:
    forked, new = pool.start("shows_environment"), pool.start("shows_environment", {"command": COMMAND})
    given = pool.start("shows_environment", {"env": {"SPINE_SECRET_KEY": "of the run"}})
    for run in (forked, new, given):
        assert run.ended() == "COMPLETED"
        environment = run.fact["environment"]
        assert [name for name, value in environment.items() if "secret-" in value] == []
        # What a deployment or a run sets for itself stays.
        assert [name for name in environment if name in SPINE_SECRETS] == ["SPINE_SECRET_KEY"] * (run is given)
    assert prune(pool).ended() == "COMPLETED"
    file = Path(forked.fact["environment"][SETTINGS_FILE])
    assert (stat.S_IMODE(file.stat().st_mode), stat.S_IMODE(file.parent.stat().st_mode)) == (0o600, 0o700)
    assert "secret-of" not in file.read_text()
    pool.worker.terminate()
    pool.worker.wait(30)
    assert not file.exists()


def prune(pool: Pool) -> Run:
    """A run of `spine.prune` on the pool, which needs Spine's database."""
    name = pool.stack.copy_deployment("spine.prune", pool.name)
    deployment = pool.stack.deployment(name, name)["id"]
    made = pool.stack.post(f"/deployments/{deployment}/create_flow_run", {"parameters": {"dry_run": True}})
    return pool.of(made["id"], f"{uuid4().hex}.jsonl")


def test_they_are_out_of_the_environment_and_of_prefects_settings_until_the_worker_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SPINE_HOME", str(tmp_path))
    monkeypatch.setenv("SPINE_DATABASE_URL", "postgresql://spine:secret-of-spine@db/spine")
    monkeypatch.setenv("SPINE_PROTECTED_ENDPOINTS", "lb.example:443")
    monkeypatch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", "postgresql+asyncpg://p:secret-of-db@prefect-db:5433/x")
    monkeypatch.setenv("PREFECT_REDIS_MESSAGING_HOST", "redis.example")
    before = dict(os.environ)
    # One setting has no default, and the other has one, which Prefect passes on.
    known = {PREFECT_SERVER_DATABASE_CONNECTION_URL: SECRETS["PREFECT_SERVER_DATABASE_CONNECTION_URL"]}
    known[PREFECT_SERVER_DOCKET_URL] = "redis://:secret-of-docket@redis/1"
    with temporary_settings(known):
        assert sum("secret-" in value for value in of_prefect().values()) >= 2
        with withholding():
            given: dict[str, Any] = {**os.environ, **of_prefect()}
            assert [name for name, value in given.items() if "secret-" in value] == []
            assert [name for name in os.environ if is_withheld(name)] == []
            assert own_settings().sqlalchemy_url.password == "secret-of-spine"
            closed = os.environ["SPINE_PROTECTED_ENDPOINTS"].split(",")
            assert closed == ["lb.example:443", "prefect-db:5433", "redis.example:6379"]
            assert "secret-" not in str(closed)
        assert sum("secret-" in value for value in of_prefect().values()) >= 2
    assert dict(os.environ) == before


def of_prefect() -> dict[str, str]:
    """The variables that a worker makes of its settings for each run."""
    return get_current_settings().to_environment_variables(exclude_unset=True)


def test_a_worker_without_them_names_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if is_withheld(name)]:
        monkeypatch.delenv(name)
    with withholding():
        assert SETTINGS_FILE not in os.environ
