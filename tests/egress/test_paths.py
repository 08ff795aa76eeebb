"""Files that a user names: below the roots, and never Spine's state, its secrets or the system."""

import os
import sqlite3
import time
from pathlib import Path

import pytest
from spine.connections.drivers import driver_of
from spine.egress.fetch_failure import FetchFailure
from spine.egress.limits import Limits
from spine.egress.paths import FileRoots, state_paths
from spine.flows.files import allowed_file
from spine.settings import Settings
from spine.sources.readers.base import Item
from spine.sources.readers.file import FileReader

from tests.connections.support import target

SECRET = "0123456789-master-key"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder inside of the only root, with the settings of a flow."""
    home = tmp_path / "home"
    (home / "prefect").mkdir(parents=True)
    (home / "secrets").mkdir()
    for name in ("secret-key", "api-key", "prefect/prefect.db", "secrets/db"):
        (home / name).write_text(SECRET)
    with sqlite3.connect(home / "spine.db") as database:
        database.execute(f"CREATE TABLE keys AS SELECT '{SECRET}' AS key")
    database.close()
    for name in [name for name in os.environ if name.startswith(("SPINE_", "PREFECT_HOME"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SPINE_HOME", str(home))
    monkeypatch.setenv("SPINE_FILE_ROOTS", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return home


def ways_to(home: Path) -> list[str]:
    """Many names of files in the state folder; the links are made."""
    root = home.parent
    links = {
        "to-key": home / "secret-key",
        "to-home": home,
        "to-root": Path("/"),
        "to-proc": Path("/proc/self/cwd"),
        "chain": root / "to-home",
        "relative": Path("home/secret-key"),
        "environ": Path("/proc/self/environ"),
        "zero": Path("/dev/zero"),
        "null": Path("/dev/null"),
    }
    for name, place in links.items():
        (root / name).symlink_to(place)
    os.link(home / "secret-key", root / "hard")
    return [
        *(f"{home}/secret-key", f"{home}/api-key", f"{home}/spine.db", f"{home}/prefect/prefect.db", f"{home}"),
        *(f"{home}/secrets/db", "home/secret-key", "./home/secret-key", "home//secret-key", "home/./secret-key"),
        *(f"{root}/data/../home/secret-key", "../home/secret-key", f"{root}/to-key", "to-key", "relative", "hard"),
        *("to-home/secret-key", "chain/secret-key", f"to-root{home}/secret-key", "to-proc/home/secret-key", "environ"),
        *(f"/proc/self/root{home}/secret-key", "/proc/self/cwd/home/secret-key", "/proc/self/environ", "/dev/zero"),
        *(f"/proc/{os.getpid()}/cwd/home/secret-key", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0", "zero", "null"),
        *(f"file://{home}/secret-key", f"{home}/secret-key\x00", f"\x00{home}/secret-key", "", "."),
    ]


def test_no_way_leads_to_the_state(home: Path) -> None:
    opened = (home / "secret-key").open()
    ways = [*ways_to(home), f"/proc/self/fd/{opened.fileno()}", f"/dev/fd/{opened.fileno()}"]
    got_through: list[tuple[str, str, object]] = []
    with opened:
        for everywhere in (False, True):
            # Even if the operator opens the whole machine.
            roots = FileRoots.of(Settings(file_roots=(Path("/"),)) if everywhere else Settings())
            for way in ways:
                for reads in (_with_reader, _with_sqlite):
                    if (content := reads(way, roots)) is not None:
                        got_through.append((reads.__name__, way, content))
        for way in ways:
            try:
                got_through.append(("flow", way, str(allowed_file(way))))
            except OSError as refused:
                if SECRET in str(refused):
                    got_through.append(("sentence", way, str(refused)))
    assert got_through == []


def _with_reader(path: str, roots: FileRoots) -> bytes | None:
    found = []
    try:
        for item in FileReader(path, roots, Limits(None, time.monotonic() + 10)).items({}, True):
            assert isinstance(item, Item)
            found += list(item.chunks)
    except (FetchFailure, ValueError) as refused:
        return str(refused).encode() if SECRET in str(refused) else None
    return b"".join(found)


def _with_sqlite(path: str, roots: FileRoots) -> bytes | None:
    try:
        driver_of("sqlite").connect(target(db_type="sqlite", database=path, file_roots=roots), 5).probe()
    except (FetchFailure, ValueError, sqlite3.Error):
        return None
    return b"opened"


def test_patterns_match_nothing_in_the_state(home: Path) -> None:
    (home.parent / "data").mkdir()
    (home.parent / "data" / "a.csv").write_text("a,b\n")
    for pattern in ("home/*", "home/**", "hom?/secret-key", "home/secret-[k]ey", f"{home}/*"):
        with pytest.raises(FetchFailure):
            list(FileReader(pattern, FileRoots.of(Settings()), Limits(None, time.monotonic() + 10)).items({}, True))
    assert _with_reader("data/*", FileRoots.of(Settings())) == b"a,b\n"


def test_state_outside_of_the_home_is_closed_too(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = home.parent
    for name in ("prefect-home", "results", "cache", "mounted"):
        (root / name).mkdir()
        (root / name / "x").write_text(SECRET)
    (root / "elsewhere.db").write_text(SECRET)
    (root / "elsewhere.db-wal").write_text(SECRET)
    monkeypatch.setenv("PREFECT_HOME", str(root / "prefect-home"))
    monkeypatch.setenv("PREFECT_LOCAL_STORAGE_PATH", str(root / "results"))
    monkeypatch.setenv("SPINE_CACHE_URL", f"file://{root}/cache")
    monkeypatch.setenv("SPINE_SECRET_DIRS", str(root / "mounted"))
    monkeypatch.setenv("SPINE_DATABASE_URL", f"sqlite:///{root}/elsewhere.db")
    for name in ("prefect-home/x", "results/x", "cache/x", "mounted/x", "elsewhere.db", "elsewhere.db-wal"):
        assert _with_reader(name, FileRoots.of(Settings())) is None
        with pytest.raises(PermissionError):
            allowed_file(name)


def test_files_of_flows_obey_the_roots(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = home.parent / "data"
    root.mkdir()
    (root / "a.csv").write_text("a")
    (root / "link.csv").symlink_to("a.csv")
    (outside := home.parent / "other.csv").write_text("b")
    (root / "out.csv").symlink_to(outside)
    monkeypatch.setenv("SPINE_FILE_ROOTS", str(root))
    for path in (f"{root}/a.csv", "data/a.csv", "a.csv", "link.csv"):
        assert allowed_file(path) == root / "a.csv"
    for path in (str(outside), "other.csv", "out.csv", "data/../other.csv", "/etc/hostname", "/etc/no-such-file"):
        with pytest.raises((PermissionError, FileNotFoundError)) as refused:
            allowed_file(path)
        if path.startswith("/"):
            assert isinstance(refused.value, PermissionError)
    for path in ("missing.csv", f"{root}", f"{root}/missing.csv"):
        with pytest.raises(FileNotFoundError):
            allowed_file(path)
    assert allowed_file(str(outside), also=home.parent) == outside
    monkeypatch.delenv("SPINE_FILE_ROOTS")
    with pytest.raises(PermissionError, match="SPINE_FILE_ROOTS"):
        allowed_file(f"{root}/a.csv")


def test_the_private_file_of_a_worker_and_the_files_of_prefects_database_are_state(tmp_path: Path) -> None:
    environ = {
        "SPINE_SETTINGS_FILE": str(tmp_path / "of-a-worker" / "settings.json"),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{tmp_path}/pre%20fect.db?timeout=5",
        "PREFECT_API_DATABASE_CONNECTION_URL": "postgresql+asyncpg://prefect:secret@db/prefect",
    }
    found = state_paths(Settings(home=tmp_path / "home"), environ)
    assert {tmp_path / "of-a-worker", tmp_path / "pre fect.db", tmp_path / "pre fect.db-wal"} <= set(found)
    assert tmp_path / "home" / "spine.db" in found
