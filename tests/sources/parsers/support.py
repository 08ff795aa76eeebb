"""Files made of bytes, and what parsing says about them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from spine.egress.fetch_failure import FetchFailure
from spine.schemas import ErrorCategory
from spine.sources.parsers import FileToParse, Parsed, ParserConfig, ParserType, parse, write_table


class Desk:
    """A folder for files of given content, in which any fraction of the rows may be invalid unless a test says less."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "content"

    def parse(self, content: bytes, kind: str, name: str = "file", **config: Any) -> Parsed:
        self.path.write_bytes(content)
        return parse(self.path, name, ParserType(kind), _config(config))

    def refusal(self, content: bytes, kind: str, name: str = "file", **config: Any) -> str:
        with pytest.raises(FetchFailure) as caught:
            self.parse(content, kind, name, **config)
        assert caught.value.category is ErrorCategory.PARSE
        assert caught.value.__cause__ is None
        return caught.value.sentence

    def table(self, content: bytes, kind: str, name: str = "file", **config: Any) -> pa.Table:
        self.path.write_bytes(content)
        return read_table([FileToParse(self.path, name, ParserType(kind), _config(config))])


def _config(given: dict[str, Any]) -> ParserConfig:
    return ParserConfig(**{"max_bad_fraction": 1, **given})


def read_table(files: Sequence[FileToParse]) -> pa.Table:
    """The table that is written for files."""
    output = files[0].path.with_name("table.arrow")
    write_table(files, output)
    return pa.ipc.open_file(pa.memory_map(str(output))).read_all()


def lines_of(parsed: Parsed) -> list[int]:
    return [row.line for row in parsed.examples]
