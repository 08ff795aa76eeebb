"""The parts `outbox` and `cache` of `/health/ready`: each with its state, since when, and why."""

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from spine.cache.storage_check import StorageCheck
from spine.cache.store import BlobStore
from spine.database import SessionFactory, make_engine, make_sessions
from spine.egress.fetch_failure import FetchFailure
from spine.settings import Settings
from spine.tables.alerts import AlertDelivery
from spine.tables.base import utc_now
from sqlalchemy import update

from tests.support.api_here import api_here
from tests.support.databases import in_database, migrate
from tests.support.processes import free_port
from tests.support.web import WEB

PARTS = {"database", "prefect", "prefect_open", "worker", "follower", "outbox", "cache"}
WEBHOOK = {"name": "desk", "channel_type": "webhook", "config": {"url": "http://127.0.0.1:9/"}, "min_severity": "INFO"}
ALERT = {"severity": "ERROR", "title": "t", "message": "m", "source": "s"}


def test_each_part_has_a_state_since_when_and_why(tmp_path: Path) -> None:
    settings = {"SPINE_SEND_ALERTS": "false", "SPINE_ALLOW_PRIVATE_ADDRESSES": "true"}
    settings |= {"SPINE_PREFECT_DEADLINE_SECONDS": "0.05"}
    with api_here(f"http://127.0.0.1:{free_port()}/api", tmp_path, tmp_path / "home", **settings) as api:

        def part(name: str) -> dict[str, Any]:
            found: dict[str, Any] = WEB.get(f"{api.url}/health/ready").json()[name]
            return found

        ready = WEB.get(f"{api.url}/health/ready")
        # Prefect is out of reach.
        assert (ready.status_code, ready.json()["status"]) == (503, "not_ready")
        for name in PARTS:
            assert set(ready.json()[name]) == {"state", "detail", "since"}, name
            assert ready.json()[name]["since"], name
        assert (part("outbox")["state"], part("cache")["state"]) == ("up", "up")
        assert api.client.post("/alerts/channels", json=WEBHOOK).status_code == 201
        assert api.client.post("/alerts", json=ALERT).status_code == 201
        assert part("outbox")["state"] == "up"
        with in_database(api.settings.sqlalchemy_url) as connection:
            connection.execute(update(AlertDelivery).values(due_at=utc_now() - timedelta(minutes=5)))
        stuck = part("outbox")
        assert stuck["state"] == "degraded"
        assert "1 deliveries pending, the first due for 30" in stuck["detail"]
        assert stuck["since"] > ready.json()["outbox"]["since"]
        # Those of a channel that is disabled wait for it.
        assert api.client.patch("/alerts/channels/desk", json={"enabled": False}).status_code == 200
        assert part("outbox")["state"] == "up"


@asynccontextmanager
async def database_in(folder: Path) -> AsyncIterator[SessionFactory]:
    """A SQLite database with all tables."""
    url = Settings(home=folder).sqlalchemy_url
    migrate(url)
    engine = make_engine(url)
    yield make_sessions(engine)
    await engine.dispose()


async def test_a_storage_that_hangs_takes_one_thread_however_often_it_is_checked(tmp_path: Path) -> None:
    released, started = threading.Event(), 0

    class Hanging(BlobStore):
        def read_marker(self) -> str | None:
            nonlocal started
            started += 1
            released.wait(10)
            return None

    real = BlobStore.from_settings(Settings(home=tmp_path))
    async with database_in(tmp_path) as sessions:
        check = StorageCheck(sessions, Hanging(real._staging, real._blobs))
        assert [await check.answers(0.01) for _ in range(5)] == [False] * 5
        assert started == 1
        released.set()
        assert await check.answers(5)


async def test_a_storage_that_is_out_of_reach_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    store = BlobStore.from_settings(Settings(home=tmp_path, cache_url="s3://key:secret@cache/x"))
    async with database_in(tmp_path) as sessions:
        check = StorageCheck(sessions, store)
        for _ in range(2):
            with pytest.raises(FetchFailure):
                await check.answers(30)
