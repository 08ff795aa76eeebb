import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from spine.auth.bootstrap import ensure_admin_key
from spine.cache.store import BlobStore
from spine.flows import staging
from spine.migrations.migrate import upgrade
from spine.own_settings import keep_for_own_flows
from spine.private_files import open_to_others
from spine.secrets.keyring import Keyring
from spine.settings import Settings
from spine.up.home import credential_path, locked, prefect_credential, prepare_home, worker_name
from spine.up.waiting import UpError


def test_the_home_is_made_with_its_parents_and_closed_to_others(tmp_path: Path) -> None:
    home = tmp_path / "a" / "b"
    prepare_home(home)
    assert home.stat().st_mode & 0o777 == 0o700
    assert (home / "logs").is_dir()


@pytest.fixture
def any_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("any_umask")
def test_a_home_that_was_made_for_everyone_is_closed_with_all_in_it_and_the_number_is_given(tmp_path: Path) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    (home / "cache" / "blobs").mkdir(parents=True)
    (home / "spine.db").touch()
    (home / "cache" / "blobs" / "read-only").touch(0o444)
    elsewhere.touch(0o666)
    (home / "link").symlink_to(elsewhere)
    assert open_to_others(home) != []
    # The home, two folders and two files; what a link leads to is not part of the home.
    assert prepare_home(home) == 5
    assert prepare_home(home) == 0
    assert open_to_others(home) == []
    assert stat.S_IMODE((home / "cache" / "blobs" / "read-only").stat().st_mode) == 0o400
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o666


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")
@pytest.mark.parametrize("which", ["home", "home/run", "home/secret-key"])
def test_what_belongs_to_another_user_is_refused_by_name(which: str, tmp_path: Path) -> None:
    (tmp_path / "home" / "run").mkdir(parents=True)
    (tmp_path / "home" / "secret-key").touch()
    os.chown(tmp_path / which, 12345, -1)
    with pytest.raises(UpError, match=rf"{which} belongs to another user \(uid 12345\)") as refused:
        prepare_home(tmp_path / "home")
    assert "--home" in str(refused.value)


@pytest.mark.usefixtures("any_umask")
def test_all_that_spine_makes_in_a_home_is_private_whatever_the_umask(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    upgrade(settings.sqlalchemy_url)
    ensure_admin_key(settings)
    Keyring.from_settings(settings)
    staging.fresh(staging.directory_of(settings.home) / "run")
    assert prefect_credential(settings.home, {}) == prefect_credential(settings.home, {})
    keep_for_own_flows(settings.home, {"SPINE_DATABASE_URL": "postgresql://spine:secret@db/spine"})
    with BlobStore.from_settings(settings).stage().path.open("rb"):
        assert open_to_others(settings.home) == []
    assert len(list(settings.home.rglob("*"))) >= 9


def test_the_credential_is_that_of_the_user_where_one_is_set(tmp_path: Path) -> None:
    made = prefect_credential(tmp_path, {})
    assert made.startswith("spine:")
    assert len(made) > 40
    assert prefect_credential(tmp_path, {"PREFECT_API_AUTH_STRING": ""}) == made
    for name in ("PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING"):
        assert prefect_credential(tmp_path, {name: name}) == name
        assert credential_path(tmp_path).read_text() == f"{name}\n"
    both = {"PREFECT_API_AUTH_STRING": "one", "PREFECT_SERVER_API_AUTH_STRING": "other"}
    with pytest.raises(UpError, match="differ") as refused:
        prefect_credential(tmp_path, both)
    assert "other" not in str(refused.value)


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
