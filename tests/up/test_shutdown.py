import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

import psutil
import pytest
from spine.up.home import prepare_home, read_records, write_record
from spine.up.plan import MARKER
from spine.up.processes import FLOW_RUN_ID, SERVER, WORKER, Children, alive, running, stop_all

from tests.support.processes import wait_until
from tests.up.support import CLEAN

SLEEP = "import time; time.sleep(120)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('set', flush=True); {SLEEP}"
WITH_CHILD = (
    "import subprocess, sys; "
    f"subprocess.Popen([sys.executable, '-c', {SLEEP!r}], start_new_session=True, env={{}}); {SLEEP}"
)
Start = Callable[..., psutil.Process]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    prepare_home(tmp_path)
    return tmp_path


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a process of its own session, as a leftover is; whatever is left of it is killed at the end."""
    started: list[psutil.Process] = []

    def begin(code: str, **environment: str) -> psutil.Process:
        process = psutil.Popen(
            [sys.executable, "-c", code], env={**CLEAN, **environment}, stdout=subprocess.PIPE, start_new_session=True
        )
        started.append(process)
        if code == STUBBORN:
            assert process.stdout.readline() == b"set\n"
        return psutil.Process(process.pid)

    yield begin
    for process in started:
        for member in [*(process.children(recursive=True) if alive(process) else []), process]:
            if alive(member):
                member.kill()


def record(home: Path, name: str, process: psutil.Process, age: float = 0.0) -> None:
    write_record(home, name, process.pid, process.create_time() - age)


def test_a_leftover_is_stopped_with_its_descendants(home: Path, start: Start) -> None:
    leftover = start(WITH_CHILD)
    wait_until(lambda: len(leftover.children()) == 1, "the grandchild")
    grandchild = leftover.children()[0]
    record(home, WORKER, leftover)
    stop_all(home, Event())
    assert not alive(leftover)
    assert not alive(grandchild)
    assert read_records(home) == {}


def test_a_foreign_process_with_a_reused_pid_is_left_alone(home: Path, start: Start) -> None:
    foreign = start(SLEEP)
    record(home, SERVER, foreign, age=500)
    assert running(home) == []
    stop_all(home, Event())
    assert alive(foreign)
    assert read_records(home) == {}


def test_an_orphan_whose_parents_are_gone_is_found_by_its_marker(home: Path, start: Start) -> None:
    orphan = start(SLEEP, **{MARKER: str(home), FLOW_RUN_ID: "1"})
    stranger = start(SLEEP, **{MARKER: str(home / "elsewhere")})
    wait_until(lambda: orphan in running(home), "the marker to be seen")
    stop_all(home, Event())
    assert not alive(orphan)
    assert alive(stranger)


@pytest.mark.slow
def test_what_ignores_sigterm_is_gone_within_ten_seconds(home: Path, start: Start) -> None:
    processes = [start(STUBBORN) for _ in range(3)]
    for name, process in zip((WORKER, "api", SERVER), processes, strict=True):
        record(home, name, process)
    processes.append(start(STUBBORN, **{MARKER: str(home), FLOW_RUN_ID: "1"}))
    begun = time.monotonic()
    stop_all(home, Event(), report=lambda: time.sleep(60))
    assert time.monotonic() - begun < 10
    assert not any(alive(process) for process in processes)


def test_in_a_hurry_everything_is_killed_at_once(home: Path, start: Start) -> None:
    stubborn = start(STUBBORN)
    record(home, WORKER, stubborn)
    hurry = Event()
    hurry.set()
    begun = time.monotonic()
    stop_all(home, hurry)
    assert time.monotonic() - begun < 1.5
    assert not alive(stubborn)


def test_prefect_is_told_after_the_workers_end_and_before_the_servers(home: Path, start: Start) -> None:
    worker, server = start(SLEEP), start(SLEEP)
    record(home, WORKER, worker)
    record(home, SERVER, server)
    seen: list[tuple[bool, bool]] = []
    stop_all(home, Event(), report=lambda: seen.append((alive(worker), alive(server))))
    assert seen == [(False, True)]


def test_a_child_is_written_down_and_its_output_kept(home: Path) -> None:
    child = Children(home, home).start(SERVER, ["platform"], CLEAN)
    child.process.wait()
    assert read_records(home)[SERVER][0] == child.process.pid
    assert child.log.stat().st_size > 0
