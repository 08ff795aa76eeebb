"""Writers that are killed leave no incomplete blob, and no staging file after the next sweep."""

import random
import signal
import time
from pathlib import Path

import psutil
import pytest
from spine.cache.store import BlobStore
from spine.settings import Settings

from tests.cache.support import hash_of, read_blob
from tests.support.processes import running, wait_until

KILLS = 10


@pytest.mark.slow
def test_killed_writers_leave_no_incomplete_blob_and_no_staging_file(tmp_path: Path) -> None:
    home = tmp_path / "home"
    store = BlobStore.from_settings(Settings(home=home))
    staging = home / "cache" / "parts"
    swept = 0
    for number in range(KILLS):
        with running(["tests.cache.writer", str(home)], {}, tmp_path / "writer.log") as writer:
            wait_until(lambda: _is_writing(staging, writer), "the writer to write", 20, every=0.01)
            time.sleep(random.uniform(0, 0.2))
            assert store.sweep() == 0, f"kill {number}: the staging file of a living process was swept"
            writer.send_signal(signal.SIGKILL)
            writer.wait()
        swept += store.sweep()
        assert list(staging.iterdir()) == []
    for name, _ in store.list():
        assert hash_of(read_blob(store, name)) == name
    assert swept > 0


def _is_writing(staging: Path, writer: psutil.Popen) -> bool:
    assert writer.poll() is None
    return staging.is_dir() and any(staging.iterdir())
