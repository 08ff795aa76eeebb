"""What `spine doctor` needs to know of Prefect: the server's version and clock, and the storage of results."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import prefect
from prefect.filesystems import LocalFileSystem
from prefect.results import aget_default_result_storage

from spine.database_clock import local_now
from spine.prefect.client import Prefect


@dataclass(frozen=True)
class ServerFacts:
    """The versions of Prefect here and at the server, and how far the server's clock is ahead."""

    version_here: str
    version_there: str
    ahead: timedelta

    @property
    def is_same_minor(self) -> bool:
        """Whether both versions have the same two first parts."""
        here, there = (version.split(".")[:2] for version in (self.version_here, self.version_there))
        return here == there


async def server_facts(connection: Prefect) -> ServerFacts:
    """Read them from the server. Raises `PrefectUnavailable`."""
    before = local_now()
    version, date = await connection.server_version()
    middle = before + (local_now() - before) / 2
    # The header has whole seconds, of which half a second has passed on average.
    ahead = parsedate_to_datetime(date) + timedelta(seconds=0.5) - middle if date else timedelta(0)
    return ServerFacts(prefect.__version__, version, ahead)


@dataclass(frozen=True)
class ResultStorage:
    """Where results of steps go by default; `folder` is set if it is one of this machine."""

    folder: str | None
    detail: str


async def try_result_storage() -> ResultStorage:
    """Write a small file where results go, read it, and empty it. Raises what the storage raises."""
    storage: Any = await aget_default_result_storage()
    key, content = f"spine-doctor-{uuid4().hex}", b"spine doctor"
    is_local = isinstance(storage, LocalFileSystem)
    await storage.write_path(key, content)
    if await storage.read_path(key) != content:
        raise OSError("what was written there reads differently")
    if not is_local:
        await storage.write_path(key, b"")
        return ResultStorage(None, f"a block of type {type(storage).__name__}")
    folder = await asyncio.to_thread(_remove, str(storage.basepath or "."), key)
    return ResultStorage(folder, f"the folder {folder}")


def _remove(folder: str, key: str) -> str:
    found = Path(folder).expanduser().resolve()
    (found / key).unlink(missing_ok=True)
    return str(found)
