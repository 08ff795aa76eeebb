"""The state folder: created, checked and locked."""

import contextlib
import fcntl
import json
import os
import secrets
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

from spine.private_files import NotPrivate, close_to_others, write_private_file
from spine.up.waiting import UpError


def prepare_home(home: Path) -> int:
    """Create the folder and its subfolders, and close all in it to other users.

    Returns how many entries other users could read or write until now. Raises `UpError` if that is not possible.
    """
    try:
        # The folder has keys and databases: only its owner may read it.
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        closed = close_to_others(home)
        for name in ("logs", "run"):
            (home / name).mkdir(mode=0o700, exist_ok=True)
        probe = home / "run" / f"probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        reason = (error.strerror or "unknown reason").lower()
        raise UpError(f"The home {home} is not writable ({reason}); choose another with --home.") from None
    except NotPrivate as error:
        raise UpError(f"{error} Or choose another with --home.") from None
    return closed


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


def credential_path(home: Path) -> Path:
    """The file with the credential of the Prefect API that `spine up` starts."""
    return home / "prefect-auth"


def prefect_credential(home: Path, environ: Mapping[str, str] = os.environ) -> str:
    """The credential of the Prefect API that `spine up` starts, which is kept in a private file of the home.

    It is that of the environment, where the user has set one, else the one in the file, which is created once. Raises
    `UpError`.
    """
    names = ("PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_AUTH_STRING")
    given = {environ[name] for name in names if environ.get(name)}
    if len(given) > 1:
        raise UpError(f"{' and '.join(names)} differ; set one of them, or both to the same value.")
    path = credential_path(home)
    known = path.read_text().strip() if path.exists() else ""
    credential = next(iter(given), known) or f"spine:{secrets.token_urlsafe(32)}"
    if credential != known:
        write_private_file(path, credential + "\n")
    return credential


def prefect_url_path(home: Path) -> Path:
    """The file with the URL of the Prefect API that the last `spine up` has started, for commands in another shell."""
    return home / "run" / "prefect-api-url"


def remember_prefect(home: Path, api_url: str | None) -> None:
    """Write that file, or remove it if `spine up` has not started Prefect."""
    if api_url:
        write_atomically(prefect_url_path(home), api_url)
    else:
        prefect_url_path(home).unlink(missing_ok=True)


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
