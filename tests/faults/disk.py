"""A small disk of its own for PostgreSQL, which can be filled."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# The databases of the topology and what they log take a fifth of it.
SIZE = "1g"
BLOCK = b"\0" * 2**20


@contextmanager
def small_disk() -> Iterator[Path | None]:
    """A file system in memory; None where this user may not mount one."""
    place = Path(tempfile.mkdtemp(prefix="spine-disk-"))
    place.chmod(0o755)
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=0755", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(mounting, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    try:
        yield place if mounted else None
    finally:
        if mounted:
            # What is still open on it, such as the log of a process that was killed, does not keep it.
            subprocess.run(["umount", "--lazy", str(place)], check=False)
        place.rmdir()


@contextmanager
def filled(disk: Path) -> Iterator[None]:
    """Leave no space on it for as long as the block lasts."""
    ballast = disk / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(BLOCK)
        with ballast.open("ab", buffering=0) as file, suppress(OSError):
            while os.statvfs(disk).f_bavail:
                file.write(BLOCK[: os.statvfs(disk).f_bsize])
        yield
    finally:
        ballast.unlink(missing_ok=True)
