"""Running `spine up` in tests."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from spine.up.plan import Plan
from spine.up.processes import alive, of_home

from tests.support.processes import PROJECT, free_port, wait_until

# What the machine that runs the tests may have set must not steer them.
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "SPINE_"))}


def plan_for(home: Path, external_prefect: str | None = None) -> Plan:
    """A plan with free ports."""
    return Plan(
        home=home,
        project=PROJECT,
        host="127.0.0.1",
        port=free_port(),
        prefect_host="127.0.0.1",
        prefect_port=free_port(),
        external_prefect=external_prefect,
        prefect_ui="http://127.0.0.1:4200",
    )


def spine_up(
    *options: str, cwd: Path = PROJECT, python: str | Path = sys.executable, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Run a `spine up` that is expected to end by itself."""
    return subprocess.run(
        [str(python), "-P", "-m", "spine.cli", "up", *options],
        cwd=cwd,
        env={**CLEAN, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def spine(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a command that is expected to end soon, as in another shell."""
    command = [sys.executable, "-P", "-m", "spine.cli", *arguments]
    given = {**CLEAN, **environment}
    return subprocess.run(command, env=given, capture_output=True, text=True, check=False, timeout=60)


def assert_one_sentence(done: "subprocess.CompletedProcess[str]", *parts: str) -> None:
    """The command failed with exit code 1 and one sentence that has all `parts`."""
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    for part in parts:
        assert part in done.stderr


class RunningUp:
    """A `spine up` in the background, with its output so far."""

    def __init__(
        self,
        home: Path,
        output: Path,
        port: int,
        prefect_port: int,
        cwd: Path,
        environment: dict[str, str],
        python: Path,
        options: tuple[str, ...],
        umask: int,
    ) -> None:
        self.home = home
        self.port = port
        self.prefect_port = prefect_port
        self._output = output
        given = ["--port", str(port), "--prefect-port", str(prefect_port), *options]
        with output.open("wb") as file:
            self.process = psutil.Popen(
                [str(python), "-P", "-m", "spine.cli", "up", "--home", str(home), *given],
                cwd=cwd,
                env={**CLEAN, **environment},
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=umask,
            )

    @property
    def api(self) -> str:
        """The base URL of the API."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def prefect_api(self) -> str:
        """The base URL of Prefect's API."""
        return f"http://127.0.0.1:{self.prefect_port}/api"

    @property
    def shell(self) -> dict[str, str]:
        """The variables that another shell has after the printed command for it."""
        (hint,) = [line for line in self.output.splitlines() if "from another shell:" in line]
        command = f"{hint.partition(': ')[2]} && env -0"
        done = subprocess.run(["bash", "-c", command], env=CLEAN, capture_output=True, text=True, check=True)
        found = dict(one.split("=", 1) for one in done.stdout.split("\0") if one)
        return {name: value for name, value in found.items() if name.startswith("PREFECT_")}

    def doctor(self, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run `spine doctor` in another shell."""
        return spine("doctor", SPINE_HOME=str(self.home), **environment)

    @property
    def output(self) -> str:
        """What it has printed."""
        return self._output.read_text()

    def wait_ready(self) -> None:
        """Wait for the summary; fail at once when the command ends."""

        def ready() -> bool:
            assert self.process.poll() is None, self.output
            return "Spine is ready" in self.output

        wait_until(ready, "spine up to be ready", 180)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> float:
        """Send the signal, wait for the end and return the seconds it took."""
        begun = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(timeout=30)
        return time.monotonic() - begun


@contextmanager
def running_up(
    home: Path,
    output: Path,
    port: int,
    prefect_port: int,
    cwd: Path = PROJECT,
    python: Path = Path(sys.executable),
    options: tuple[str, ...] = (),
    environment: dict[str, str] | None = None,
    umask: int = -1,
) -> Iterator[RunningUp]:
    """A `spine up` in the background; nothing of it is left afterwards, however the test ends."""
    started = RunningUp(home, output, port, prefect_port, cwd, environment or {}, python, options, umask)
    try:
        yield started
    finally:
        for process in [started.process, *of_home(home)]:
            if alive(process):
                process.kill()
        started.process.wait(timeout=10)
