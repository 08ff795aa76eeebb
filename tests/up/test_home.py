import os
import subprocess
import sys
from pathlib import Path

import pytest
from spine.up.home import locked, prepare_home, worker_name
from spine.up.waiting import UpError


def test_the_home_is_made_with_its_parents_and_closed_to_others(tmp_path: Path) -> None:
    home = tmp_path / "a" / "b"
    prepare_home(home)
    assert home.stat().st_mode & 0o777 == 0o700
    assert (home / "logs").is_dir()


def test_a_file_as_home_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UpError, match=r"is not writable \(file exists\); choose another with --home"):
        prepare_home(tmp_path / "file")


def test_a_home_below_a_file_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UpError, match=r"is not writable \(not a directory\)"):
        prepare_home(tmp_path / "file" / "home")


def test_a_second_process_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    prepare_home(tmp_path)
    enter = f"from pathlib import Path\nfrom spine.up.home import locked\nwith locked(Path({str(tmp_path)!r})): pass"
    with locked(tmp_path):
        second = subprocess.run([sys.executable, "-c", enter], capture_output=True, text=True, check=False)
    assert f"is in use by another spine up (pid {os.getpid()})" in second.stderr
    third = subprocess.run([sys.executable, "-c", enter], capture_output=True, text=True, check=False)
    assert third.returncode == 0, third.stderr


def test_the_workers_name_stays_the_same_and_differs_between_homes(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    prepare_home(one)
    prepare_home(two)
    assert worker_name(one) == worker_name(one)
    assert worker_name(one) != worker_name(two)
