"""Starting the child processes and watching them."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

from spine.up.errors import UpError
from spine.up.home import write_record
from spine.up.logtail import last_words

SERVER = "prefect-server"
WORKER = "worker"
API = "api"
DEPLOY = "deploy"
TITLES = {SERVER: "The Prefect server", WORKER: "The worker", API: "The API", DEPLOY: "prefect deploy"}


@dataclass
class Child:
    """A process that was started, and where its output goes."""

    name: str
    process: "subprocess.Popen[bytes]"
    log: Path
    log_offset: int

    def epitaph(self) -> str:
        """How it ended, in one sentence; to be asked only once it has."""
        code = self.process.returncode
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return f"{TITLES[self.name]} {how}: {last_words(self.log, self.log_offset)} (log: {self.log})"


class Children:
    """The children of one start."""

    def __init__(self, home: Path, project: Path) -> None:
        self._home = home
        self._project = project
        self._watched: list[Child] = []

    def start(self, name: str, module: list[str], environment: dict[str, str]) -> Child:
        """Run `python -m <module>` as the child `name` and watch it from now on."""
        child = self.launch(name, module, environment)
        self._watched.append(child)
        return child

    def launch(self, name: str, module: list[str], environment: dict[str, str]) -> Child:
        """Run `python -m <module>` as the child `name`, which may end when it likes."""
        log = self._home / "logs" / f"{name}.log"
        with log.open("ab") as output:
            offset = output.tell()
            process = subprocess.Popen(  # noqa: S603 (our own interpreter and fixed arguments)
                [sys.executable, "-m", *module],
                cwd=self._project,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # A Ctrl-C in the terminal reaches only the parent, which then stops the children in order.
                start_new_session=True,
            )
        write_record(self._home, name, process.pid, psutil.Process(process.pid).create_time())
        return Child(name, process, log, offset)

    def check(self) -> None:
        """Raise `UpError` when a watched child has died."""
        for child in self._watched:
            if child.process.poll() is not None:
                raise UpError(child.epitaph())
