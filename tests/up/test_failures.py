"""Starts that do not get far: a failure is one sentence and exit code 1, and nothing is left running."""

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from spine.up.plan import LOOPBACK
from spine.up.processes import of_home

from tests.support.processes import free_port, wait_until
from tests.up.support import assert_one_sentence, running_up, spine_up


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "home"
    assert of_home(tmp_path / "home") == []


@pytest.fixture
def ports() -> list[str]:
    return ["--port", str(free_port()), "--prefect-port", str(free_port())]


@pytest.fixture
def nowhere() -> str:
    """A Prefect URL that refuses connections: the start fails there without a Prefect server of its own."""
    return f"http://{LOOPBACK}:{free_port()}/api"


def test_a_taken_port_stops_before_anything_starts(home: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as listener:
        port = str(listener.getsockname()[1])
        done = spine_up("--home", str(home), "--port", port)
    assert_one_sentence(done, f"Port {port} on 127.0.0.1 is in use", "--port")
    assert not (home / "spine.db").exists()


@pytest.mark.slow
def test_a_home_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert_one_sentence(spine_up("--home", str(tmp_path / "file" / "home")), "is not writable", "--home")


@pytest.mark.slow
def test_settings_that_do_not_fit_together_are_named(home: Path, ports: list[str]) -> None:
    done = spine_up("--home", str(home), *ports, SPINE_JWKS_URL="https://issuer.example/keys")
    assert_one_sentence(done, "SPINE_JWKS_URL", "must be set together")


@pytest.mark.slow
def test_a_database_url_that_is_none_is_named(home: Path, ports: list[str]) -> None:
    assert_one_sentence(spine_up("--home", str(home), *ports, SPINE_DATABASE_URL="spine.db"), "SPINE_DATABASE_URL")
    assert_one_sentence(spine_up("--home", str(home), *ports, SPINE_DATABASE_URL="mysql://db/x"), "SPINE_DATABASE_URL")


@pytest.mark.slow
def test_a_database_out_of_reach_is_said_without_its_password(home: Path, ports: list[str], nowhere: str) -> None:
    url = f"postgresql://spine:secret@{LOOPBACK}:{free_port()}/spine"
    done = spine_up("--home", str(home), *ports, PREFECT_API_URL=nowhere, SPINE_DATABASE_URL=url)
    assert_one_sentence(done, "database")
    assert "secret" not in done.stdout + done.stderr


@pytest.mark.slow
def test_an_external_prefect_out_of_reach_is_named(home: Path, ports: list[str], nowhere: str) -> None:
    done = spine_up("--home", str(home), *ports, PREFECT_API_URL=nowhere)
    assert_one_sentence(done, nowhere, "PREFECT_API_URL", "cannot be reached")


@pytest.mark.slow
def test_an_external_prefect_that_is_no_url_is_named(home: Path, ports: list[str]) -> None:
    done = spine_up("--home", str(home), *ports, PREFECT_API_URL="localhost:4200/api")
    assert_one_sentence(done, "PREFECT_API_URL is 'localhost:4200/api'")


@pytest.mark.slow
def test_a_server_that_dies_is_named_with_its_exit_code_and_last_words(home: Path, ports: list[str]) -> None:
    broken = "sqlite+aiosqlite:////proc/none/prefect.db"
    done = spine_up("--home", str(home), *ports, PREFECT_API_DATABASE_CONNECTION_URL=broken)
    assert_one_sentence(
        done, "The Prefect server ended with exit code", "unable to open database", "prefect-server.log"
    )


@pytest.mark.slow
def test_ctrl_c_during_the_start_stops_what_has_started(home: Path, tmp_path: Path) -> None:
    with running_up(home, tmp_path / "output.txt", free_port(), free_port()) as started:
        wait_until(lambda: "Admin key" in started.output, "the first steps")
        assert of_home(home)
        assert started.stop(signal.SIGINT) < 10
        assert started.process.returncode == 0, started.output
        assert "Traceback" not in started.output
        assert of_home(home) == []
