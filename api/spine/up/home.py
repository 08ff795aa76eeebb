"""The state folder: created, checked and locked."""

import contextlib
import fcntl
import json
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

from spine.up.waiting import UpError


def prepare_home(home: Path) -> None:
    """Create the folder and its subfolders. Raises `UpError` if that is not possible."""
    try:
        # The folder has keys and databases: only its owner may read it.
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("logs", "run"):
            (home / name).mkdir(exist_ok=True)
        probe = home / "run" / f"probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        reason = (error.strerror or "unknown reason").lower()
        raise UpError(f"The home {home} is not writable ({reason}); choose another with --home.") from None


@contextlib.contextmanager
def locked(home: Path) -> Iterator[None]:
    """Lock the home for this process; the kernel releases the lock when the process ends. Raises `UpError`."""
    path = home / "run" / "lock"
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            pid = file.read().strip() or "unknown"
            message = (
                f"The home {home} is in use by another spine up (pid {pid}); stop it or choose another with --home."
            )
            raise UpError(message) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def worker_name(home: Path) -> str:
    """The name of this home's worker, created once.

    It stays the same so that runs of an earlier worker are recognised, also in a container whose host name is
    new at each start; and it differs between homes so that two of them can share a Prefect server.
    """
    path = home / "worker-name"
    if not path.exists():
        write_atomically(path, f"spine-{socket.gethostname()}-{secrets.token_hex(2)}\n")
    return path.read_text().strip()


def write_record(home: Path, name: str, pid: int, create_time: float) -> None:
    """Record a child, so that the next start finds it if this process is killed."""
    write_atomically(_record(home, name), json.dumps({"name": name, "pid": pid, "create_time": create_time}) + "\n")


def read_records(home: Path) -> dict[str, tuple[int, float]]:
    """Pid and creation time of each recorded child, by name; unreadable records are skipped."""
    records = {}
    for path in sorted((home / "run").glob("*.json")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            record = json.loads(path.read_text())
            records[str(record["name"])] = (int(record["pid"]), float(record["create_time"]))
    return records


def forget_records(home: Path) -> None:
    """Remove the records of processes that have ended."""
    for path in (home / "run").glob("*.json"):
        path.unlink(missing_ok=True)


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that readers see all of it or nothing."""
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(text)
    temporary.replace(path)


def _record(home: Path, name: str) -> Path:
    return home / "run" / f"{name}.json"
