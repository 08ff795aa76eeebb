"""Which fork servers a worker starts, keeps and lets end, with real fork servers and without Prefect's server."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from spine_worker.warm import CannotFork, Code, UnexpectedFailure, WarmServers

from tests.run_history.support import until

FLOW = "from prefect import flow\n\n@flow\ndef empty() -> None: ...\n"
# Opening a file or listing a directory would make the code depend on it.
MARKED = """import os
for number in range(9):
    try:
        os.mkdir(f"mark{number}")
        break
    except FileExistsError:
        pass
"""


@pytest.fixture
async def servers() -> AsyncIterator[WarmServers]:
    """Fork servers for at most two flows."""
    servers = WarmServers(limit=2, seconds_unneeded=0)
    yield servers
    servers.close()


def code(
    folder: Path, version: str | None = None, text: str = FLOW, entrypoint: str = "flow.py:empty", **environment: str
) -> Code:
    """The code of a flow, written into a directory."""
    folder.mkdir(exist_ok=True)
    (folder / "flow.py").write_text(text)
    return Code.of(folder, {**os.environ, **environment}, entrypoint, version)


def imports(folder: Path) -> int:
    """How often marked code has been imported."""
    return len(list(folder.glob("mark*")))


def interpreters(folder: Path) -> list[psutil.Process]:
    """The engine servers of this process that work in a directory or below it."""
    found = []
    for one in psutil.Process().children():
        # One of them may be ending just now.
        with suppress(psutil.NoSuchProcess):
            if str(folder) in " ".join(one.cmdline()):
                found.append(one)
    return found


async def until_there_are(count: int, folder: Path) -> None:
    """Wait for interpreters to end, and let this process' event loop end them."""

    async def there_are() -> bool:
        return len(interpreters(folder)) == count

    await until(there_are, f"there to be {count} interpreters", 60)


@pytest.mark.slow
@pytest.mark.parametrize("entrypoint", ["flow.py:empty", "flow:empty", "flow.empty"])
async def test_code_that_cannot_be_imported_is_tried_once_until_it_is_edited(
    servers: WarmServers, tmp_path: Path, entrypoint: str
) -> None:
    broken = code(tmp_path, text=f"{MARKED}os._exit(3)\n", entrypoint=entrypoint)
    answers = await asyncio.gather(*(servers.server(broken) for _ in range(3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [CannotFork] * 3
    assert imports(tmp_path) == 1
    code(tmp_path)
    await servers.server(broken)


async def test_an_interpreter_that_cannot_prepare_prefect_says_why_and_is_not_started_again_at_once(
    servers: WarmServers, tmp_path: Path
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "sitecustomize.py").write_text("import prefect.flow_engine as m\ndel m.AsyncFlowRunEngine\n")
    path = f"{tmp_path / 'broken'}:{os.environ.get('PYTHONPATH', '')}".rstrip(":")
    changed = code(tmp_path / "project", PYTHONPATH=path)
    for _ in range(2):
        with pytest.raises(UnexpectedFailure, match=r"could not be started: ImportError: .*AsyncFlowRunEngine"):
            await servers.server(changed)
    await until_there_are(0, tmp_path)


@pytest.mark.slow
async def test_two_directories_that_start_at_once_are_imported_once_each(servers: WarmServers, tmp_path: Path) -> None:
    quick = code(tmp_path / "quick", text=MARKED + FLOW)
    slow = code(tmp_path / "slow", text=f"{MARKED}import time\ntime.sleep(2)\n{FLOW}")
    for _ in range(2):
        await asyncio.gather(*(servers.server(one) for one in (quick, slow)))
    assert [imports(one.directory) for one in (quick, slow)] == [1, 1]
    assert len(interpreters(tmp_path)) == 2


@pytest.mark.slow
async def test_servers_that_no_deployment_needs_end_and_do_not_count(servers: WarmServers, tmp_path: Path) -> None:
    old, new = code(tmp_path, "old"), code(tmp_path, "new")
    of_one_run = code(tmp_path, "new", MARK="of one run")
    servers.keep(frozenset([old]))
    for one in (old, of_one_run):
        await servers.server(one)
    assert not servers.is_full
    servers.keep(frozenset([new]))
    await servers.server(new)
    assert servers.has(new)
    code(tmp_path, text=MARKED + FLOW)
    await servers.refresh()
    assert [servers.has(one) for one in (old, of_one_run, new)] == [False, False, True]
    assert imports(tmp_path) == 1
    await until_there_are(1, tmp_path)


async def test_first_runs_after_a_deploy_keep_their_interpreters_when_all_are_taken(
    servers: WarmServers, tmp_path: Path
) -> None:
    def versions(version: str) -> list[Code]:
        return [code(tmp_path, version, entrypoint=entrypoint) for entrypoint in ("flow.py:empty", "flow:empty")]

    old, new = versions("old"), versions("new")
    servers.keep(frozenset(old))
    for one in old:
        await servers.server(one)
    first = [await servers.server(one) for one in new]
    for server in first:
        run = await server.fork({}, stream_output=False)
        run.abandon()
    assert [await servers.server(one) for one in new] == first
    assert [servers.has(one) for one in (*old, *new)] == [False, False, True, True]


IN_A_TERMINAL = """
import asyncio, os, pathlib, sys
from spine_worker.warm import Code, WarmServers

async def main():
    servers = WarmServers(limit=1)
    await servers.server(Code.of(pathlib.Path(sys.argv[1]), os.environ, "flow.py:empty", None))
    print("worker", sys.stdout.isatty())
    servers.close()

asyncio.run(main())
"""


@pytest.mark.slow
def test_a_worker_in_a_terminal_shows_the_output_of_code_that_has_none(tmp_path: Path) -> None:
    code(tmp_path, text=f"import sys\nprint('flow', sys.stdout.isatty(), sys.stderr.isatty(), flush=True)\n{FLOW}")
    ours, theirs = os.openpty()
    worker = subprocess.Popen([sys.executable, "-c", IN_A_TERMINAL, str(tmp_path)], stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # The terminal is closed.
        while received := os.read(ours, 1 << 16):
            shown += received
    os.close(ours)
    assert worker.wait(60) == 0
    assert "flow False False" in shown.decode()
    assert "worker True" in shown.decode()
