"""The format of a source's content: how its rows are counted, and how they become a table."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path

import pyarrow as pa
from pydantic import ValidationError

from spine.cache.failures import local_errors
from spine.egress.fetch_failure import FetchFailure
from spine.egress.limits import Limits
from spine.schemas import ErrorCategory
from spine.settings import Settings
from spine.sources.isolation.processes import TaskProcess
from spine.sources.isolation.task import Channel
from spine.sources.parsers import (
    FileToParse,
    Parsed,
    ParserConfig,
    ParserType,
    parse,
    parser_for,
    shows_encoding,
    write_table,
)
from spine.sources.parsers.other_documents import HTML_TYPES, instead_of_data
from spine.sources.readers.base import Item
from spine.tables.sources import Source


@dataclass(frozen=True)
class ContentFile:
    """A local file with one content of a source; the source gave its `name` and perhaps its `encoding`."""

    path: Path
    name: str
    encoding: str | None


@dataclass(frozen=True)
class TableTask:
    """Writes the valid rows of files as one table, in a process of its own."""

    files: Sequence[FileToParse]
    output: Path

    def __call__(self, channel: Channel) -> None:
        """Write the table. Raises `FetchFailure`."""
        with local_errors():
            write_table(self.files, self.output)


@dataclass(frozen=True)
class Format:
    """How the content of a source is parsed; without a `parser_type`, each file's name decides."""

    parser_type: str | None
    config: ParserConfig

    @classmethod
    def of_source(cls, source: Source) -> "Format":
        """The format of a source. A `format` in its configuration applies when it has no `parser_type`."""
        parser_type = source.parser_type or source.config.get("format")
        return cls(parser_type, ParserConfig.model_validate(source.parser_config or {}))

    def parse(self, path: Path, item: Item, limits: Limits, *, may_be_empty: bool = False) -> Parsed | None:
        """Count the rows of a downloaded item; None when its format is unknown. Raises `FetchFailure`."""
        parser = parser_for(item.name, self.parser_type)
        if parser is None:
            return None
        if item.declared_type in HTML_TYPES:
            raise instead_of_data(item.name, f"{item.declared_type}, as the server says,", parser)
        # A small compressed file can take hours to expand.
        check = partial(limits.check_time, ErrorCategory.SOURCE)
        with local_errors():
            config = self._config_for(item, path, parser)
            return parse(path, item.name, parser, config, check, may_be_empty=may_be_empty)

    def to_arrow(self, files: Sequence[ContentFile]) -> pa.Table:
        """The valid rows of files, parsed as their fetch parsed them. Raises `FetchFailure`.

        Another process parses them within the memory limit of a fetch. The table is a file that is mapped into
        memory: the system can drop pages of it that are not in use. It is deleted when the table is.
        """
        memory_bytes = Settings().read_memory_bytes
        tasks = [self._task(one) for one in files]
        with local_errors(), tempfile.NamedTemporaryFile(dir=files[0].path.parent if files else None) as output:
            task = TableTask(tasks, Path(output.name))
            process = TaskProcess(task, Limits(None, inf), memory_bytes, (__name__,))
            try:
                process.wait()
            finally:
                process.close()
            return pa.ipc.open_file(pa.memory_map(output.name)).read_all()

    def _task(self, file: ContentFile) -> FileToParse:
        parser = self._parser_of(file)
        return FileToParse(file.path, file.name, parser, self._config_for(file, file.path, parser))

    def _parser_of(self, file: ContentFile) -> ParserType:
        parser = parser_for(file.name, self.parser_type)
        if parser is None:
            raise FetchFailure(ErrorCategory.PARSE, f"The format of {file.name} is unknown; set parser_type.")
        return parser

    def _config_for(self, item: Item | ContentFile, path: Path, parser: ParserType) -> ParserConfig:
        if item.encoding is None or "encoding" in self.config.model_fields_set:
            return self.config
        if shows_encoding(path, item.name, parser, self.config):
            return self.config
        try:
            return ParserConfig.model_validate(self.config.model_dump(exclude_unset=True) | {"encoding": item.encoding})
        except ValidationError:
            # A server can name an encoding that does not exist.
            return self.config
