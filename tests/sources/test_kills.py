"""A process that is killed while it fetches leaves no entry, no blob and, once the next one has begun, no part."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from api.db.base import utc_now
from api.settings import Settings
from api.sources.tables import Fetch
from tests.sources.reading.support import settle
from tests.sources.support import Desk
from tests.support.processes import PROJECT

KILLS = 10
SIZE = 96 * 1024 * 1024

# What the process of a run does, without Prefect.
FETCH = """
import asyncio, sys
from pathlib import Path
from api.cache.store import BlobStore
from api.db.engine import make_engine, make_sessions
from api.settings import Settings
from api.sources.fetching.engine import fetch
from api.sources.fetching.workshop import Workshop
from api.sources.lifecycle import Beginning, begin
from api.sources.schemas import FetchTrigger
from uuid import uuid4

async def main(name):
    settings = Settings()
    shop = Workshop(settings, make_sessions(make_engine(settings.sqlalchemy_url)), None, BlobStore.of(settings))
    begun = await begin(shop.sessions, name, None, Beginning(uuid4(), FetchTrigger.MANUAL, None, False, None))
    print("begun", flush=True)
    await fetch(shop, begun, force=False, tell=lambda _: None)
    print("ended", flush=True)

asyncio.run(main(sys.argv[1]))
"""


def start(settings: Settings, name: str) -> subprocess.Popen[str]:
    """A process that has begun to fetch."""
    environment = {
        **os.environ,
        "SPINE_HOME": str(settings.home),
        "SPINE_FILE_ROOTS": str(settings.file_roots[0]),
        **({"SPINE_DATABASE_URL": settings.database_url.get_secret_value()} if settings.database_url else {}),
    }
    command = [sys.executable, "-c", FETCH, name]
    process = subprocess.Popen(command, env=environment, cwd=PROJECT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_of_ten_kills_of_a_large_fetch_none_leaves_anything_and_the_next_one_succeeds(
    desk: Desk, tmp_path: Path
) -> None:
    chance = random.Random(7)
    content = b"day,venue,shares\n" + b"2026-01-05,AAAA,12345\n" * (SIZE // 22)
    settle(desk.file("large.csv", content))
    name = await desk.register("file", {"path": "large.csv"})
    whole = await _seconds_of_a_whole_fetch(desk, name)
    await desk.update(name, parser_type="csv")
    blobs = list(desk.shop.store.list())
    for blob, _ in blobs:
        desk.shop.store.delete(blob)
    killed = 0
    for _ in range(KILLS):
        process = await asyncio.to_thread(start, desk.shop.settings, name)
        await asyncio.sleep(chance.uniform(0, whole))
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed += 1
        assert list(desk.shop.store.list()) in ([], blobs)
        await _let_promises_run_out(desk)
    fetched = await desk.fetch(name)
    assert (fetched.status, fetched.rows_parsed) == ("SUCCESS", SIZE // 22)
    assert killed == KILLS
    assert list(desk.shop.store.list()) == blobs
    assert desk.stray_files() == []


async def _seconds_of_a_whole_fetch(desk: Desk, name: str) -> float:
    process = await asyncio.to_thread(start, desk.shop.settings, name)
    began = time.monotonic()
    await asyncio.to_thread(process.wait)
    assert process.returncode == 0
    return time.monotonic() - began


async def _let_promises_run_out(desk: Desk) -> None:
    ago = utc_now() - timedelta(seconds=1)
    async with desk.shop.sessions.begin() as session:
        await session.execute(update(Fetch).values(alive_until=ago, last_call=ago))
