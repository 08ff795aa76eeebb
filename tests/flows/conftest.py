"""Weekly files that a test writes itself.

And for the tests of `read_source` a Prefect server, a desk on the environment of flows, and a site to fetch from.
"""

import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import pytest

from flows.finra import weekly_file
from tests.flows.support import ROWS, desk_of_flows
from tests.sources.support import Desk
from tests.support.flows_here import flows_on
from tests.support.receivers import Receiver, receiver, refuse
from tests.support.stack import PrefectStack

HEADER = "|".join(weekly_file.COLUMNS)


@pytest.fixture
def write_file(tmp_path: Path) -> Callable[..., Path]:
    """Write the header and ``lines`` as a weekly file; the first of ``lines`` is on line 2."""

    def write(lines: Sequence[str], header: str = HEADER, end: str = "\n", start: bytes = b"") -> Path:
        path = tmp_path / "weekly.csv"
        path.write_bytes(start + "".join(line + end for line in [header, *lines]).encode())
        return path

    return write


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    return tmp_path / "staged"


@pytest.fixture(scope="module")
def prefect_server(quiet_stack: PrefectStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Prefect's server for flows that run in this process; gives the folder of their results."""
    with flows_on(quiet_stack, Path(tmp_path_factory.mktemp("flows"))) as results:
        yield results


@pytest.fixture
def home(prefect_server: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The environment of a worker."""
    for name in [name for name in os.environ if name.startswith("SPINE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SPINE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SPINE_FILE_ROOTS", str(tmp_path / "files"))
    monkeypatch.setenv("SPINE_ALLOW_PRIVATE_ADDRESSES", "true")
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
async def desk(home: Path) -> AsyncIterator[Desk]:
    async with desk_of_flows() as made:
        yield made


@pytest.fixture
def site() -> Iterator[Receiver]:
    with receiver() as started:
        started.always = refuse(200, ROWS, ETag='"v1"')
        yield started
