"""Weekly files to test with: FINRA's own where they are at hand, and small ones that a test writes itself."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from flows.finra import weekly_file

HEADER = "|".join(weekly_file.COLUMNS)
FINRA_FILES = Path(__file__).parents[3] / "shared" / "data" / "finra"


@pytest.fixture
def finra_files() -> Path:
    if not FINRA_FILES.is_dir():
        pytest.skip(f"FINRA's files are not at {FINRA_FILES}")
    return FINRA_FILES


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
