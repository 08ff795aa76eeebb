"""A process that is killed while it fetches leaves no entry and no blob; the next fetch removes its staging file."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from spine.settings import Settings
from spine.tables.sources import Fetch
from sqlalchemy import select

from tests.sources.readers.support import settle
from tests.sources.support import Desk
from tests.support.processes import PROJECT, wait_until

OLD = b"day,venue,shares\n2025-12-29,OLD,1\n"
ROW = b"2026-01-05,AAAA,12345\n"
NUMBER_OF_ROWS = 3_000_000
SIZE = len(ROW) * NUMBER_OF_ROWS
EIGHTHS = range(1, 7)

# What the process of a run does, without Prefect. It prints when its content is in the cache, and waits then.
FETCH = """
import asyncio, sys
from uuid import UUID
from spine.cache.store import BlobStore
from spine.database import make_engine, make_sessions
from spine.settings import Settings
from spine.sources.fetching.fetcher import run_fetch
from spine.sources.fetching.context import FetchContext
from spine.sources.fetch_state import FetchRun, start_fetch
from spine.sources.schemas import FetchTrigger

def report(_):
    print("published", flush=True)
    sys.stdin.readline()

async def main(name, run_id):
    settings = Settings()
    sessions = make_sessions(make_engine(settings.sqlalchemy_url))
    context = FetchContext(settings, sessions, None, BlobStore.from_settings(settings))
    run = FetchRun(UUID(run_id), FetchTrigger.MANUAL, None, False, None)
    fetch = await start_fetch(context.sessions, name, None, run)
    print("started", flush=True)
    await run_fetch(context, fetch, report)

asyncio.run(main(*sys.argv[1:]))
"""


class Run:
    """A process that has started to fetch, and never finishes."""

    def __init__(self, desk: Desk, name: str, run_id: UUID) -> None:
        self._desk = desk
        self._parts_before = set(desk.stray_files())
        self._process = subprocess.Popen(
            [sys.executable, "-c", FETCH, name, str(run_id)],
            env=environment(desk.context.settings),
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._expect("started")

    def wait_until_written(self, size: int) -> None:
        """Wait until its staging file has this size in bytes."""
        what = f"{size} bytes to be written"
        wait_until(lambda: self.written() >= size, what, 60, every=0.001, longest=0.001)

    def wait_until_published(self) -> None:
        """Wait until its content is in the cache, before anything else is recorded."""
        self._expect("published")

    def written(self) -> int:
        """The size of its staging file in bytes; 0 when there is none."""
        parts = set(self._desk.stray_files()) - self._parts_before
        return sum(_size(part) for part in parts)

    def kill(self) -> None:
        """Kill it."""
        self._process.send_signal(signal.SIGKILL)
        # The signal ended it, and nothing before.
        assert self._process.wait(30) == -signal.SIGKILL

    def _expect(self, line: str) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == f"{line}\n"


def _size(part: Path) -> int:
    try:
        return part.stat().st_size
    except FileNotFoundError:
        return 0


def environment(settings: Settings) -> dict[str, str]:
    url = settings.database_url
    return {
        **os.environ,
        "SPINE_HOME": str(settings.home),
        "SPINE_FILE_ROOTS": str(settings.file_roots[0]),
        **({"SPINE_DATABASE_URL": url.get_secret_value()} if url else {}),
    }


@pytest.mark.slow
async def test_ten_kills_of_a_large_fetch_leave_nothing_and_its_retry_succeeds(desk: Desk) -> None:
    settle(desk.file("large.csv", OLD))
    name = await desk.register("file", {"path": "large.csv"})
    good = await desk.fetch(name)
    entries, old_blobs = await desk.entries(name), list(desk.context.store.list())
    desk.file("large.csv", b"day,venue,shares\n" + ROW * NUMBER_OF_ROWS)
    run_id = uuid4()
    moments: list[Callable[[Run], None]] = [
        lambda _: None,
        lambda run: run.wait_until_written(1),
        *(lambda run, size=SIZE * part // 8: run.wait_until_written(size) for part in EIGHTHS),
        # It is being parsed.
        lambda run: run.wait_until_written(SIZE),
        Run.wait_until_published,
    ]
    assert len(moments) == 10
    written = []
    for moment in moments:
        run = await asyncio.to_thread(Run, desk, name, run_id)
        await asyncio.to_thread(moment, run)
        written.append(run.written())
        run.kill()
        assert await desk.entries(name) == entries
        assert await desk.content(name) == [OLD]
        assert await rows_of(desk, run_id) == [("RUNNING", None, None)]
        assert (await desk.source(name)).last_content_hash == good.content_hash
        if moment is not Run.wait_until_published:
            assert list(desk.context.store.list()) == old_blobs
    # They were killed at different points of their work.
    assert len({size for size in written if 0 < size < SIZE}) >= len(EIGHTHS)
    await assert_retry_succeeds(desk, name, run_id)


async def rows_of(desk: Desk, run_id: UUID) -> list[tuple[str, object, object]]:
    """Status, end and content of the fetches of a run."""
    async with desk.context.sessions() as session:
        mine = select(Fetch.status, Fetch.completed_at, Fetch.content_hash).where(Fetch.run_id == run_id)
        return [row._tuple() for row in await session.execute(mine)]


async def assert_retry_succeeds(desk: Desk, name: str, run_id: UUID) -> None:
    started = await desk.start(name, run_id=run_id)
    await desk.run(started)
    fetched = await desk.read_fetch(started.fetch_id)
    assert (fetched.status, fetched.rows_parsed, fetched.content_changed) == ("SUCCESS", NUMBER_OF_ROWS, True)
    (entry,) = await desk.entries(name)
    assert (entry.content_hash, entry.rows) == (fetched.content_hash, NUMBER_OF_ROWS)
    assert len(await rows_of(desk, run_id)) == 1
    assert desk.stray_files() == []
