"""`spine doctor`: each check finds what is wrong and says what to do."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from spine.doctor import machine
from spine.doctor.findings import degraded, down, json_of, up, worst
from spine.doctor.machine import check_disk
from spine.doctor.redis_server import check_redis
from spine.doctor.variables import check_variables
from spine.prefect.client import Prefect
from spine.prefect.diagnosis import server_facts
from spine.settings import Settings

from tests.support.databases import in_database
from tests.support.processes import free_port, wait_until
from tests.support.stack import Api, PrefectStack
from tests.support.variants import one_by_default
from tests.support.web import serving
from tests.topology.backends import private_redis
from tests.up.support import CLEAN

HERE = "http://127.0.0.1:4200/api"


def doctor(*options: str, **environment: str) -> tuple[int, dict[str, Any]]:
    """The exit code and the findings by name."""
    command = [sys.executable, "-P", "-m", "spine.cli", "doctor", "--json", *options]
    given = {**CLEAN, **environment}
    done = subprocess.run(command, env=given, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, {one["name"]: one for one in json.loads(done.stdout)["checks"]}


def environment_of(api: Api, stack: PrefectStack) -> dict[str, str]:
    database = {"SPINE_DATABASE_URL": api.database_url} if api.database_url else {}
    url = {"PREFECT_API_URL": stack.url, "PREFECT_HOME": str(stack.home)}
    return {**url, **database, "SPINE_HOME": str(api.settings.home)}


@pytest.mark.slow
def test_what_works_is_up_and_each_check_is_there(postgresql_api: Api, stack: PrefectStack) -> None:
    given, tries = environment_of(postgresql_api, stack), []

    def all_is_well() -> bool:
        # Each check has three seconds, which a busy machine may exceed.
        tries.append(doctor(**given))
        return tries[-1][0] == 0

    wait_until(all_is_well, "every check to pass", 120)
    found = tries[-1][1]
    checked = ("settings", "disk", "versions", "database", "prefect", "worker", "clock", "results", "cache", "secrets")
    assert {name: found[name]["state"] for name in checked} == dict.fromkeys(checked, "up"), found
    assert "Prefect 3" in found["versions"]["detail"]
    # The server of the tests has no credential.
    assert (found["prefect_open"]["state"], "AUTH_STRING" in found["prefect_open"]["advice"]) == ("degraded", True)


@pytest.mark.slow
def test_what_is_missing_is_named_with_what_to_do(api: Api, stack: PrefectStack, tmp_path: Path) -> None:
    # A copy of the database, whose tables are older, and whose secrets have another key.
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    shutil.copy(str(api.settings.sqlalchemy_url.database), home / "spine.db")
    (home / "cache").write_text("a file where the folder of the cache should be")
    given = {**environment_of(api, stack), "SPINE_HOME": str(home)}
    given |= {"SPINE_WORK_POOL": "none-such", "PREFECT_RESULTS_LOCAL_STORAGE_PATH": str(home / "spine.db" / "results")}
    code, found = doctor(**given)
    assert code == 1
    down = [name for name, one in found.items() if one["state"] == "down"]
    # The database remembers a key only if something has used one.
    assert [name for name in down if name != "secrets"] == ["worker", "results", "cache"], found
    assert all(one["advice"] for one in found.values() if one["state"] != "up")
    with in_database(Settings(home=home).sqlalchemy_url) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0002'")
    code, found = doctor("--worker", **given)
    assert (code, found["database"]["state"]) == (1, "down")
    assert "spine db upgrade" in found["database"]["advice"]
    assert "follower" not in found
    code, found = doctor(**{**given, "PREFECT_API_URL": f"http://127.0.0.1:{free_port()}/api"})
    assert (code, found["prefect"]["state"]) == (1, "down")


@pytest.mark.slow
def test_secrets_of_another_key_are_found(postgresql_api: Api, stack: PrefectStack) -> None:
    channel: dict[str, Any] = {"name": "doctors", "channel_type": "webhook", "enabled": False}
    channel |= {"config": {"url": "https://hooks.example.com/s3cret"}}
    assert postgresql_api.client.post("/alerts/channels", json=channel).status_code == 201
    try:
        given = environment_of(postgresql_api, stack)
        other = "b3RoZXItMzItcmFuZG9tLWJ5dGVzLW9mLWEta2V5ISE="
        code, found = doctor(**given, SPINE_SECRET_KEY=other)
        assert (code, found["secrets"]["state"]) == (1, "down"), found["secrets"]
        assert doctor(**given)[1]["secrets"]["state"] == "up"
    finally:
        postgresql_api.client.delete("/alerts/channels/doctors")


def test_variables_that_nothing_reads_are_named_without_their_values() -> None:
    given = {"SPINE_LOGLEVEL": "s3cret", "SPINE_SECRET_DESK": "x", "SPINE_WORKER_GRACE_SECONDS": "3"}
    found = check_variables(Settings(), {**given, "PREFECT_API_URL": HERE})
    assert found.detail == "nothing reads SPINE_LOGLEVEL (is it SPINE_LOG_LEVEL?)"
    assert check_variables(Settings(), {"SPINE_LOG_LEVEL": "INFO", "PREFECT_API_URL": HERE}).state == "up"


@pytest.mark.parametrize(
    ("given", "settings", "names"),
    [
        ({"PREFECT_API_AUTH_STRING": "a:b", "PREFECT_SERVER_API_AUTH_STRING": "a:c"}, {}, "differ"),
        ({"PREFECT_API_URL": "http://127.0.0.1:4200"}, {}, "does not end in /api"),
        ({"PREFECT_MESSAGING_BROKER": "prefect_redis.messaging"}, {}, "only one of"),
        ({}, {"file_roots": "/none/such"}, "/none/such"),
        ({"PREFECT_API_URL": "http://prefect/api"}, {"database_url": "postgresql://h/d"}, "SPINE_SECRET_KEY"),
    ],
)
def test_contradictions_are_found(given: dict[str, str], settings: dict[str, str], names: str) -> None:
    found = check_variables(Settings.model_validate(settings), given)
    assert (found.state, names in found.detail) == ("degraded", True), found


@pytest.mark.skipif(not shutil.which("redis-server"), reason="there is no Redis")
@pytest.mark.parametrize(
    ("options", "state"),
    one_by_default(
        [
            (("--appendonly", "no", "--save", ""), "degraded"),
            (("--appendonly", "yes"), "up"),
            (("--appendonly", "yes", "--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru"), "degraded"),
        ]
    ),
)
def test_a_redis_that_forgets_is_found(tmp_path: Path, options: tuple[str, ...], state: str) -> None:
    with private_redis(tmp_path, *options) as (port, _):
        given = {"PREFECT_REDIS_MESSAGING_HOST": "127.0.0.1", "PREFECT_REDIS_MESSAGING_PORT": str(port)}
        (found,) = check_redis(given)
    assert found.state == state, found
    (gone,) = check_redis(given)
    assert gone.state == "down"
    assert check_redis({}) == []


def test_a_full_disk_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(home=tmp_path / "not" / "made")
    assert check_disk(settings).state == "up"
    monkeypatch.setattr(machine, "LITTLE_SPACE", 2**60)
    assert check_disk(settings).state == "degraded"
    monkeypatch.setattr(machine, "NO_SPACE", 2**60)
    assert check_disk(settings).state == "down"


@contextmanager
def server_of_another_time() -> Iterator[int]:
    """A server that says the version of Prefect an hour late."""

    class Late(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b'"3.1.0"'
            self.send_response_only(200)
            self.send_header("Date", self.date_time_string(time.time() - 3600))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Late)
    with serving(server):
        yield server.server_address[1]


async def test_a_clock_that_is_wrong_and_another_version_are_found() -> None:
    with server_of_another_time() as port, temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{port}/api"}):
        async with Prefect.connect(5) as prefect:
            facts = await server_facts(prefect)
    assert abs(facts.ahead.total_seconds() + 3600) < 5
    assert not facts.is_same_minor


def test_the_state_of_the_whole_is_that_of_its_worst_part() -> None:
    findings = [up("a", "works"), degraded("b", "is slow", "Wait."), down("c", "is gone", "Start it.")]
    assert worst(findings) == "down"
    assert worst(findings[:2]) == "degraded"
    assert json.loads(json_of(findings))["checks"][2]["advice"] == "Start it."
