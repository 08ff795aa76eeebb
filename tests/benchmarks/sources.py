"""The rows about sources: a large file beside the tools that copy and hash one, memory, and an unchanged source.

`python -m tests.benchmarks.sources <type> <where> <home>` fetches once and prints the megabytes that it and its
processes had before and at their peak.
"""

import asyncio
import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any, Self, cast

import psutil
from spine.cache.store import BlobStore
from spine.database import make_engine, make_sessions
from spine.migrations.migrate import upgrade
from spine.settings import Settings
from spine.sources.fetching.context import FetchContext

from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import RATIO, Figure, Row, at_most, middle
from tests.sources.support import NO_PREFECT, Desk
from tests.support.processes import free_port, running, wait_for_http

MEGABYTE = 1 << 20

# The type of a source and its configuration.
Source = tuple[str, dict[str, Any]]


def measure(bench: Bench) -> None:
    """Add all rows."""
    folder = bench.folder / "sources"
    folder.mkdir()
    asyncio.run(_measure(bench, folder))


async def _measure(bench: Bench, folder: Path) -> None:
    files, copy = folder / "files", folder / "copy"
    files.mkdir()
    for name, megabytes in (("large.bin", bench.scale.large), ("huge.bin", bench.scale.huge)):
        with (files / name).open("wb") as file:
            for _ in range(megabytes):
                file.write(os.urandom(MEGABYTE))
    with _served(files, folder / "server.log") as url:
        desk = open_desk(folder / "home", files)
        path, large = shlex.quote(str(files / "large.bin")), f"{url}/large.bin"
        local: Source = ("file", {"path": "large.bin"})
        remote: Source = ("http", {"url": large})
        hashed = f"sha256sum {copy}"
        await _compare(bench, desk, "local file", local, f"cp {path} {copy} && {hashed}", "cp and sha256sum")
        command = f"curl -s -o {copy} {large} && {hashed}"
        await _compare(bench, desk, "file over HTTP", remote, command, "curl and sha256sum")
        await _unchanged(bench, desk, "local file", local)
        await _unchanged(bench, desk, "HTTP source (304)", remote)
        for source_type, where in (("file", "huge.bin"), ("http", f"{url}/huge.bin")):
            _memory(bench, folder, source_type, where)


def open_desk(home: Path, files: Path) -> Desk:
    """A desk on an SQLite database of its own."""
    settings = Settings(home=home, file_roots=(files,), allow_private_addresses=True)
    home.mkdir(exist_ok=True)
    upgrade(settings.sqlalchemy_url)
    sessions = make_sessions(make_engine(settings.sqlalchemy_url))
    return Desk(FetchContext(settings, sessions, NO_PREFECT, BlobStore.from_settings(settings)), files)


async def _compare(bench: Bench, desk: Desk, what: str, source: Source, command: str, compared: str) -> None:
    """A fetch of a large file, in turns with tools that copy and hash it."""
    name = await desk.register(*source)
    spent: tuple[list[float], list[float]] = ([], [])
    for _ in range(bench.scale.fetches):
        began = time.perf_counter()
        fetched = await desk.fetch(name, force=True)
        spent[0].append(time.perf_counter() - began)
        assert fetched.status == "SUCCESS", fetched.error
        began = time.perf_counter()
        await asyncio.to_thread(subprocess.run, ["sh", "-c", command], check=True, stdout=subprocess.DEVNULL)
        spent[1].append(time.perf_counter() - began)
    figures = [(Figure(median(times), "s"),) for times in spent]
    bench.add(Row(f"{what} of {bench.scale.large} MB", figures[0], compared, figures[1], (at_most(1.3, RATIO),)))


async def _unchanged(bench: Bench, desk: Desk, what: str, source: Source) -> None:
    """A fetch of what has not changed, which reads nothing."""
    name = await desk.register(*source)
    await desk.fetch(name)
    spent = []
    for _ in range(bench.scale.rounds):
        began = time.perf_counter()
        fetched = await desk.fetch(name)
        spent.append((time.perf_counter() - began) * 1000)
        assert (fetched.content_changed, fetched.bytes_fetched) == (False, 0)
    bench.add(Row(f"unchanged {what} of {bench.scale.large} MB", middle(spent, "ms")))


def _memory(bench: Bench, folder: Path, source_type: str, where: str) -> None:
    command = [sys.executable, "-m", __name__, source_type, where, str(folder / f"home-{source_type}")]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, "FILES": str(folder)})
    before, peak = map(float, done.stdout.split())
    what = f"memory above the idle process, {bench.scale.huge} MB by {source_type}"
    bench.add(Row(what, (Figure(peak - before, "MB"), Figure(before, "MB", "idle")), aims=(at_most(150),)))


@contextmanager
def _served(files: Path, log: Path) -> Iterator[str]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = ["http.server", str(port), "--bind", "127.0.0.1", "--directory", str(files)]
    with running(command, {}, log) as process:
        wait_for_http(url, process, log)
        yield url


class Peak(threading.Thread):
    """The most memory that this process and all below it have had, looked at many times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.megabytes = 0.0
        self._ended = threading.Event()

    def run(self) -> None:
        """Look until the end."""
        while not self._ended.wait(0.02):
            self.megabytes = max(self.megabytes, _megabytes())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()


def _megabytes() -> float:
    """Memory of this process and all below it, what they share counted once."""
    held = 0.0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with suppress(psutil.Error):
            held += process.memory_full_info().pss / 1e6
    return held


async def _fetch_once(source_type: str, where: str, home: Path) -> None:
    desk = open_desk(home, Path(os.environ["FILES"]) / "files")
    config: dict[str, Any] = {"url": where} if source_type == "http" else {"path": where}
    name = await desk.register(source_type, config)
    # What the first fetch of any size imports belongs to the idle process.
    small = desk.root / "small.bin"
    small.write_bytes(b"1")
    await desk.fetch(await desk.register("file", {"path": small.name}))
    before = _megabytes()
    with Peak() as peak:
        fetched = await desk.fetch(name)
    assert fetched.status == "SUCCESS", fetched.error
    print(before, peak.megabytes)


if __name__ == "__main__":
    asyncio.run(_fetch_once(*cast(tuple[str, str], tuple(sys.argv[1:3])), Path(sys.argv[3])))
