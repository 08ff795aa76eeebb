"""Reads sources as a fetch does, in a process of its own, and reports what that took."""

import os
import time
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

from spine.cache.store import BlobStore
from spine.egress.limits import Limits
from spine.settings import Settings
from spine.sources.fetching.content import Format, TableTask
from spine.sources.fetching.reading import Download, OpenReader, Reading
from spine.sources.isolation.processes import TaskProcess
from spine.sources.parsers import FileToParse, ParserConfig, parser_for
from spine.sources.types import SOURCE_TYPES

MEMORY = 400_000_000
# What a process shares with its fork server, and the pages of files that are mapped into it.
SHARED = 250_000_000


class Desk:
    """Files to read, and the last process that read one."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "files"
        self.root.mkdir()
        self.settings = Settings(home=folder / "home", file_roots=(self.root,), allow_private_addresses=True)
        self.parts = folder / "home" / "cache" / "parts"
        self._process: TaskProcess | None = None

    @property
    def peak_bytes(self) -> int:
        """The most memory that the last process had."""
        assert self._process is not None
        return self._process.peak_bytes or 0

    @property
    def cpu_seconds(self) -> float:
        """The processor time of the last process."""
        assert self._process is not None
        return self._process.cpu_seconds or 0.0

    def write(self, name: str, content: bytes) -> Path:
        """A file that is old enough to be read at once."""
        path = self.root / name
        path.write_bytes(content)
        os.utime(path, (1_700_000_000, 1_700_000_000))
        return path

    def read_file(self, path: Path, config: ParserConfig, seconds: float = inf) -> None:
        """Read and parse a file."""
        self.read(self.reader("file", {"path": path.name}), "file", config, seconds)

    def reader(self, source_type: str, config: dict[str, Any], **secrets: str) -> OpenReader:
        """What opens the reader of a source."""
        return partial(SOURCE_TYPES[source_type].model_validate(config).open_reader, secrets, self.settings)

    def read(
        self,
        open_reader: OpenReader,
        source_type: str,
        config: ParserConfig | None = None,
        seconds: float = inf,
        max_bytes: int | None = None,
    ) -> None:
        """Read a source, and drop what was read."""
        limits = Limits(max_bytes, time.monotonic() + seconds, seconds)
        store, format_ = BlobStore.from_settings(self.settings), Format(None, config or ParserConfig())
        modules = (f"spine.sources.types.{source_type}", f"spine.sources.readers.{source_type}")
        reading = Reading(open_reader, store, format_, {}, limits, memory_bytes=MEMORY, modules=modules)
        try:
            for item in reading.items():
                assert isinstance(item, Download)
                item.file.discard()
        finally:
            reading.close()
            self._process = reading.process

    def table(self, path: Path, config: ParserConfig) -> None:
        """Write a table of a file."""
        kind = parser_for(path.name, None)
        assert kind is not None
        task = TableTask([FileToParse(path, path.name, kind, config)], path.with_suffix(".arrow"))
        self._process = TaskProcess(task, Limits(None, inf), MEMORY)
        try:
            self._process.wait()
        finally:
            self._process.close()
