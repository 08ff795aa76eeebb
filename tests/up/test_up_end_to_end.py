"""`spine up` as its users live with it: started, used, killed, started again, stopped."""

import os
import signal
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from spine.private_files import open_to_others
from spine.up.home import read_records
from spine.up.processes import SERVER, alive, of_home

from tests.support.processes import free_port, wait_until
from tests.support.stack import PrefectStack
from tests.support.web import WEB
from tests.up.support import CLEAN, RunningUp, assert_one_sentence, running_up, spine_up

FLOW = """
import time
from prefect import flow

@flow
def lasting(seconds: float = 0.0) -> None:
    time.sleep(seconds)
"""
PREFECT_YAML = """
name: elsewhere
pull:
  - prefect.deployments.steps.set_working_directory:
      directory: {folder}
deployments:
  - name: lasting
    entrypoint: flow.py:lasting
    work_pool:
      name: spine
"""
SAMPLE = "flows/finra/sample/finra_otc_weekly_sample.csv"
STEPS = ["Database", "Admin key", "Prefect server", "Work pool", "Deployments", "API", "Worker"]


@pytest.mark.slow
def test_spine_up_is_started_used_as_the_readme_says_and_stopped(tmp_path: Path) -> None:
    home = tmp_path / "home"
    # Whatever the umask is, nothing in the home is for others.
    with running_up(home, tmp_path / "output.txt", free_port(), free_port(), umask=0) as started:
        started.wait_ready()
        key = (home / "api-key").read_text().strip()
        assert_steps_and_urls_are_shown(started)
        assert_the_key_is_shown_once_and_private(started, key)
        body = {"params": {"week_ending": "2026-01-05", "tier": "OTC", "path": SAMPLE}}
        url = f"{started.api}/api/v1/workflows/trigger/finra.weekly_refresh"
        triggered = WEB.post(url, json=body, headers={"X-API-Key": key}, timeout=20)
        assert triggered.status_code == 201, triggered.text
        assert_nothing_is_open_to_others(started)
        completed = {triggered.json()["run_id"]: "COMPLETED"}
        wait_until(lambda: listed(started, key) == completed, "the run to be completed", 60)
        assert_stopped_by_sigterm(started)


@pytest.mark.slow
def test_spine_up_is_started_used_killed_started_again_and_stopped(tmp_path: Path) -> None:
    home = tmp_path / "home"
    ports = free_port(), free_port()
    with running_up(home, tmp_path / "first.txt", *ports) as first:
        first.wait_ready()
        key = (home / "api-key").read_text().strip()
        assert_steps_and_urls_are_shown(first)
        assert_the_key_is_shown_once_and_private(first, key)
        assert_a_second_up_is_refused(first)
        deploy_from_another_shell(tmp_path / "elsewhere", first)
        done = run_to(first, "COMPLETED", seconds=0)
        assert listed(first, key) == {done: "COMPLETED"}
        interrupted = run_to(first, "RUNNING", seconds=300)
        orphans = of_home(home)
        kill_with_prefect(first)

        with running_up(home, tmp_path / "second.txt", *ports) as second:
            second.wait_ready()
            assert not [process for process in orphans if alive(process)]
            assert "✓ Leftovers" in second.output
            assert "1 set to Crashed" in second.output
            assert key not in second.output
            assert listed(second, key) == {done: "COMPLETED", interrupted: "FAILED"}
            last = run_to(second, "RUNNING", seconds=300)
            assert_stopped_by_sigterm(second)
    assert states_in_prefects_database(home) == {done: "COMPLETED", interrupted: "CRASHED", last: "SCHEDULED"}


def assert_steps_and_urls_are_shown(started: RunningUp) -> None:
    lines = started.output.splitlines()
    ticked = [line[2:].split("  ")[0] for line in lines if line.startswith("✓")]
    assert ticked == STEPS
    assert "\x1b" not in started.output
    for url in (f"{started.api}/docs", f"http://127.0.0.1:{started.prefect_port}"):
        assert url in started.output
        assert WEB.get(url).status_code == 200
    assert WEB.get(f"{started.api}/health/ready").json()["status"] == "ready"


def assert_the_key_is_shown_once_and_private(started: RunningUp, key: str) -> None:
    assert started.output.count(key) == 1
    assert str(started.home / "api-key") in started.output
    assert stat.S_IMODE((started.home / "api-key").stat().st_mode) == 0o600
    assert WEB.get(f"{started.api}/api/v1/workflows/runs").status_code == 401
    assert listed(started, key) == {}


def assert_nothing_is_open_to_others(started: RunningUp) -> None:
    assert WEB.post(f"{started.prefect_api}/deployments/filter", json={}).status_code == 401
    assert WEB.get(f"{started.prefect_api}/health", headers={"Host": "evil.example"}).status_code == 403
    assert open_to_others(started.home) == []
    doctor = started.doctor()
    assert doctor.returncode == 0, doctor.stdout + doctor.stderr
    assert {line[0] for line in doctor.stdout.splitlines()} == {"✓"}, doctor.stdout
    for part in ("state_folder", "prefect_open", "database", "worker"):
        assert part in doctor.stdout


def assert_a_second_up_is_refused(started: RunningUp) -> None:
    done = spine_up("--home", str(started.home), "--port", str(free_port()), "--prefect-port", str(free_port()))
    assert_one_sentence(done, "is in use by another spine up", f"(pid {started.process.pid})")


def kill_with_prefect(started: RunningUp) -> None:
    """SIGKILL the command and Prefect's server, so that the run that is in progress cannot report its end."""
    server, _ = read_records(started.home)[SERVER]
    # The command first: it would see the server die and stop everything in order.
    started.process.kill()
    started.process.wait()
    os.kill(server, signal.SIGKILL)


def assert_stopped_by_sigterm(started: RunningUp) -> None:
    family = [*started.process.children(recursive=True), *of_home(started.home)]
    assert len(family) >= 4
    assert started.stop(signal.SIGTERM) < 10
    assert started.process.returncode == 0, started.output
    assert not [process for process in family if alive(process)]
    assert of_home(started.home) == []
    assert read_records(started.home) == {}
    assert "Traceback" not in started.output


def deploy_from_another_shell(folder: Path, started: RunningUp) -> None:
    """Deploy a flow of another folder as the summary's hint says."""
    folder.mkdir()
    (folder / "flow.py").write_text(FLOW)
    (folder / "prefect.yaml").write_text(PREFECT_YAML.format(folder=folder))
    subprocess.run(
        [sys.executable, "-m", "prefect", "deploy", "--all", "--no-prompt"],
        cwd=folder,
        env={**CLEAN, **started.shell, "PREFECT_HOME": str(folder / "prefect")},
        check=True,
        capture_output=True,
    )


def run_to(started: RunningUp, state: str, seconds: float) -> str:
    """Start a run that lasts `seconds` and wait until Prefect says that it is in `state`."""
    prefect = PrefectStack(started.prefect_api, started.home, {})
    prefect.http.auth = httpx.BasicAuth(*started.shell["PREFECT_API_AUTH_STRING"].split(":", 1))
    deployment = prefect.deployment("lasting", "lasting")["id"]
    body = {"parameters": {"seconds": seconds}}
    run = str(prefect.post(f"/deployments/{deployment}/create_flow_run", body)["id"])
    wait_until(lambda: bool(prefect.get(f"/flow_runs/{run}")["state_type"] == state), f"the run to be {state}", 60)
    return run


def listed(started: RunningUp, key: str) -> dict[str, str]:
    """Id and status of each run that Spine lists."""
    answer = WEB.get(f"{started.api}/api/v1/workflows/runs", headers={"X-API-Key": key}, timeout=20)
    assert answer.status_code == 200, answer.text
    return {run["run_id"]: run["status"] for run in answer.json()["data"]}


def states_in_prefects_database(home: Path) -> dict[str, str]:
    """What Prefect remembers once everything is stopped."""
    with sqlite3.connect(home / "prefect" / "prefect.db") as database:
        # Without those that a schedule has planned.
        wanted = "SELECT id, state_type FROM flow_run WHERE auto_scheduled = 0"
        return dict(database.execute(wanted).fetchall())
