"""Sources: a large file beside the tools that copy and hash one, memory, an unchanged source, and parsing.

`python -m tests.benchmarks.sources <type> <where> <home>` fetches once and prints the megabytes that this process had
before and at its peak.
"""

import asyncio
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any, cast

import pyarrow.csv as pa_csv
from spine.cache.store import BlobStore
from spine.database import make_engine, make_sessions
from spine.migrations.migrate import upgrade
from spine.settings import Settings
from spine.sources.fetching.context import FetchContext
from spine.sources.parsers import ParserConfig, ParserType, parse

from tests.benchmarks import finra_rows
from tests.benchmarks.table import line
from tests.benchmarks.timing import row
from tests.sources.support import NO_PREFECT, Desk
from tests.support.processes import free_port, running, wait_for_http

MEGABYTE = 1 << 20
LARGE, HUGE = 512, 2048
ROUNDS = 5
ROWS = 2_000_000


async def measure(folder: Path) -> None:
    """Print the rows."""
    files = folder / "files"
    files.mkdir()
    for name, megabytes in (("large.bin", LARGE), ("huge.bin", HUGE)):
        with (files / name).open("wb") as file:
            for _ in range(megabytes):
                file.write(os.urandom(MEGABYTE))
    with _served(files, folder / "server.log") as url:
        desk = open_desk(folder / "home", files)
        await _compare_file(desk, files, folder / "copy")
        await _compare_http(desk, url, folder / "copy")
        await _unchanged(desk, files, url)
        for source_type, where in (("file", "huge.bin"), ("http", f"{url}/huge.bin")):
            _memory(folder, source_type, where)
    _parsing(folder)


def open_desk(home: Path, files: Path) -> Desk:
    """A desk on an SQLite database of its own."""
    settings = Settings(home=home, file_roots=(files,), allow_private_addresses=True)
    home.mkdir(exist_ok=True)
    upgrade(settings.sqlalchemy_url)
    sessions = make_sessions(make_engine(settings.sqlalchemy_url))
    return Desk(FetchContext(settings, sessions, NO_PREFECT, BlobStore.from_settings(settings)), files)


async def _compare_file(desk: Desk, files: Path, copy: Path) -> None:
    name = await desk.register("file", {"path": "large.bin"})
    command = f"cp {shlex.quote(str(files / 'large.bin'))} {copy} && sha256sum {copy}"
    ours, theirs = await _alternate(desk, name, command)
    row(f"local file of {LARGE} MB", ours, "cp and sha256sum", theirs, "s", "≤ 1.3")


async def _compare_http(desk: Desk, url: str, copy: Path) -> None:
    name = await desk.register("http", {"url": f"{url}/large.bin"})
    command = f"curl -s -o {copy} {url}/large.bin && sha256sum {copy}"
    ours, theirs = await _alternate(desk, name, command)
    row(f"{LARGE} MB over HTTP", ours, "curl and sha256sum", theirs, "s", "≤ 1.3")


async def _alternate(desk: Desk, name: str, command: str) -> tuple[float, float]:
    spent: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        began = time.perf_counter()
        fetched = await desk.fetch(name, force=True)
        spent[0].append(time.perf_counter() - began)
        assert fetched.status == "SUCCESS", fetched.error
        began = time.perf_counter()
        await asyncio.to_thread(subprocess.run, ["sh", "-c", command], check=True, stdout=subprocess.DEVNULL)
        spent[1].append(time.perf_counter() - began)
    return median(spent[0]), median(spent[1])


async def _unchanged(desk: Desk, files: Path, url: str) -> None:
    for what, source_type, config in (
        ("local file", "file", {"path": "large.bin"}),
        ("HTTP source (304)", "http", {"url": f"{url}/large.bin"}),
    ):
        name = await desk.register(source_type, config)
        await desk.fetch(name)
        spent = []
        for _ in range(20):
            began = time.perf_counter()
            fetched = await desk.fetch(name)
            spent.append((time.perf_counter() - began) * 1000)
            assert (fetched.content_changed, fetched.bytes_fetched) == (False, 0)
        told = f"{median(spent):.1f} ms, p95 {quantiles(spent, n=20)[-1]:.1f} ms"
        line(f"unchanged {what} of {LARGE} MB", told, aim="nothing is read")


def _memory(folder: Path, source_type: str, where: str) -> None:
    command = [sys.executable, "-m", __name__, source_type, where, str(folder / f"home-{source_type}")]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, "FILES": str(folder)})
    before, peak = map(float, done.stdout.split())
    told = f"{peak - before:.0f} MB above {before:.0f} MB"
    line(f"peak memory of {HUGE} MB by {source_type}", told, "the idle process", aim="< 150 MB above")


def _parsing(folder: Path) -> None:
    path = folder / "weekly.psv"
    finra_rows.generate(path, ROWS)

    def alone() -> None:
        options = pa_csv.ParseOptions(delimiter="|")
        for _ in pa_csv.open_csv(path, parse_options=options):
            pass

    ours = _rows_per_second(lambda: parse(path, path.name, ParserType.PSV, ParserConfig()))
    row(f"parsing {ROWS:,} rows", ours, "pyarrow's reader alone", _rows_per_second(alone), "M rows/s", "shown")


def _rows_per_second(read: Callable[[], object]) -> float:
    spent = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        read()
        spent.append(time.perf_counter() - began)
    return ROWS / median(spent) / 1e6


@contextmanager
def _served(files: Path, log: Path) -> Iterator[str]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = ["http.server", str(port), "--bind", "127.0.0.1", "--directory", str(files)]
    with running(command, {}, log) as process:
        wait_for_http(url, process, log)
        yield url


def _status(field: str) -> float:
    """Megabytes of a field of this process' status."""
    found = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return float(found.split()[1]) / 1024


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


async def _fetch_once(source_type: str, where: str, home: Path) -> None:
    desk = open_desk(home, Path(os.environ["FILES"]) / "files")
    config: dict[str, Any] = {"url": where} if source_type == "http" else {"path": where}
    name = await desk.register(source_type, config)
    # What the first fetch of any size imports belongs to the idle process.
    small = desk.root / "small.bin"
    small.write_bytes(b"1")
    await desk.fetch(await desk.register("file", {"path": small.name}))
    before = _status("VmRSS")
    _forget_peak()
    fetched = await desk.fetch(name)
    assert fetched.status == "SUCCESS", fetched.error
    print(before, _status("VmHWM"))


if __name__ == "__main__":
    asyncio.run(_fetch_once(*cast(tuple[str, str], tuple(sys.argv[1:3])), Path(sys.argv[3])))
