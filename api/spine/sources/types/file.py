"""Configuration of file sources: files of the machine that Spine runs on."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator

from spine.egress.fetch_failure import FetchFailure
from spine.egress.limits import Limits
from spine.egress.paths import FileRoots
from spine.settings import Settings
from spine.sources.readers.base import Reader
from spine.sources.readers.file import FileReader
from spine.sources.readers.globs import has_magic
from spine.sources.types.base import PathText, SourceConfig, refused


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


Format = Annotated[
    Literal["csv", "psv", "tsv", "json", "jsonl", "xml", "parquet"],
    BeforeValidator(_lower),
]


class FileConfig(SourceConfig):
    """A path or a pattern below SPINE_FILE_ROOTS: absolute, or relative to the root where there is only one."""

    path: PathText
    # The format of the files, if their names do not show it; a source's `parser_type` takes precedence.
    format: Format | None = None

    def is_list(self) -> bool:
        """Whether `path` is a pattern."""
        return has_magic(self.path)

    def check(self, settings: Settings) -> None:
        """Refuse a path outside of the roots; links are checked when the file is read. Raises `BadRequest`."""
        try:
            FileRoots.of(settings).absolute(self.path)
        except FetchFailure as failure:
            raise refused("path", failure.sentence.removesuffix(".")) from None

    def open_reader(self, secrets: Mapping[str, str], settings: Settings, limits: Limits) -> Reader:
        """A reader of the files."""
        return FileReader(self.path, FileRoots.of(settings), limits)
