"""Fetches by a real worker that are killed, cancelled or fail: what is left, the alerts, and the retry."""

import base64
import json
import os
import re
import signal
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.sources.running import fetch, register, wait_for
from tests.support.processes import wait_until
from tests.support.receivers import Handler, echo, receiver
from tests.support.stack import Api, PrefectStack


@pytest.fixture(scope="module")
def api(worker_api: Api) -> Api:
    return worker_api


def slow(free: threading.Event, size: int) -> Any:
    """Send half of a response, and the rest once `free` is set."""

    def behave(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(size))
        handler.end_headers()
        handler.wfile.write(b"x" * (size // 2))
        handler.wfile.flush()
        free.wait(60)
        handler.wfile.write(b"x" * (size - size // 2))

    return behave


@pytest.mark.slow
def test_a_fetch_whose_process_is_killed_fails_with_an_alert_and_can_be_retried_in_prefect(
    api: Api, stack: PrefectStack
) -> None:
    size = 8 * 1024 * 1024
    cache = Path(stack.environment["SPINE_HOME"]) / "cache"
    with receiver() as site:
        free = threading.Event()
        site.behaviours = [slow(free, size)]
        site.always = lambda handler: handler.answer(200, b"x" * size)
        name = register(api, "http", {"url": f"http://127.0.0.1:{site.port}/big.bin"})
        fetch_id = fetch(api, name)
        wait_for(api, fetch_id, "RUNNING")
        wait_until(lambda: bool(site.requests), "the fetch to read", 30)
        time.sleep(0.5)
        _kill(wait_for(api, fetch_id, "RUNNING")["execution_id"])
        free.set()
        failed = wait_for(api, fetch_id, seconds=40)
        assert (failed["status"], failed["error_category"]) == ("FAILED", "ORCHESTRATION")
        assert api.get("/sources/cache", source_id=name)["data"] == []
        alerts = api.get("/alerts", source=name)["data"]
        assert [alert["title"] for alert in alerts] == [f"The source {name} could not be fetched"]
        # The same as the Retry button in Prefect's UI.
        due = {"scheduled_time": datetime.now(UTC).isoformat()}
        retry = {"type": "SCHEDULED", "name": "AwaitingRetry", "state_details": due}
        stack.post(f"/flow_runs/{failed['run_id']}/set_state", {"state": retry, "force": True})
        again = wait_for(api, fetch_id, "SUCCESS")
        assert (again["bytes_fetched"], again["run_id"], again["error"]) == (size, failed["run_id"], None)
    retried = api.wait_for(failed["run_id"])
    assert (retried["status"], retried["attempt"]) == ("COMPLETED", 2)
    (entry,) = api.get("/sources/cache", source_id=name)["data"]
    assert (entry["fetch_id"], entry["size_bytes"]) == (fetch_id, size)
    assert api.get(f"/sources/{name}/fetches")["pagination"]["total"] == 1
    assert list((cache / "parts").glob("*")) == []
    # The run raises no second alert for the same failure. Other tests have failed runs of this flow.
    of_flow = api.get("/alerts", source="spine.fetch_source")["data"]
    assert failed["run_id"] not in [api.get(f"/alerts/{alert['id']}")["run_id"] for alert in of_flow]


def _kill(execution_id: str) -> None:
    pid = int(re.findall(r"\d+", execution_id)[-1])
    assert "python" in " ".join(psutil.Process(pid).cmdline())
    os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
def test_a_fetch_that_is_cancelled_has_failed_without_an_alert(api: Api) -> None:
    with receiver() as site:
        free = threading.Event()
        site.always = slow(free, 1_000_000)
        name = register(api, "http", {"url": f"http://127.0.0.1:{site.port}/big.bin"})
        fetch_id = fetch(api, name)
        wait_until(lambda: bool(site.requests), "the fetch to read", 60)
        run_id = wait_for(api, fetch_id, "RUNNING")["run_id"]
        assert api.client.post(f"/workflows/runs/{run_id}/cancel").status_code == 200
        ended = wait_for(api, fetch_id, seconds=60)
        free.set()
    assert (ended["status"], ended["error"]) == ("FAILED", "Its flow run was cancelled.")
    assert api.get("/alerts", source=name)["data"] == []
    assert api.get(f"/sources/{name}")["consecutive_failures"] == 0


def test_a_transient_failure_is_retried_by_prefect_which_sees_no_secret(api: Api, stack: PrefectStack) -> None:
    password = Path(stack.environment["SPINE_HOME"]) / "secrets" / "password"
    password.parent.mkdir(exist_ok=True)
    password.write_text("s3cr3t-password")
    with receiver() as site:
        # It echoes the whole request.
        site.behaviours = [echo(503)]
        site.always = lambda handler: handler.answer(200, b"a,b\n1,2\n3\n")
        config = {
            "url": f"http://127.0.0.1:{site.port}/a.csv?key=s3cr3t-key",
            "headers": {"X-Desk": "s3cr3t-header"},
            "auth": {"type": "basic", "username": "desk", "password_ref": f"file:{password}"},
        }
        name = register(api, "http", config, parser_config={"max_bad_fraction": 0.5})
        fetched = wait_for(api, fetch(api, name))
        assert (fetched["status"], fetched["rows_parsed"], len(site.requests)) == ("PARTIAL", 1, 2)
        login = f"Basic {base64.b64encode(b'desk:s3cr3t-password').decode()}"
        assert {request.headers["Authorization"] for request in site.requests} == {login}
        assert {request.headers["X-Desk"] for request in site.requests} == {"s3cr3t-header"}
    run = api.wait_for(fetched["run_id"])
    (step,) = [step for step in run["steps"] if step["step_name"] == "fetch"]
    assert step["retry_count"] == 1
    known = known_to_prefect(stack, fetched["run_id"])
    # Parameters, logs of both attempts and the artifact are all present.
    for shown in (fetched["id"], "503", "Read http://", "Skipped 1 invalid rows", fetched["content_hash"]):
        assert shown in known
    assert [secret for secret in ("s3cr3t", login.split()[1]) if secret in known] == []


def known_to_prefect(stack: PrefectStack, run_id: str) -> str:
    """Everything that Prefect keeps of a run: it, its tasks, states, logs and artifacts, as JSON."""
    mine = {"flow_run_id": {"any_": [run_id]}}
    logs: list[dict[str, Any]] = []

    def are_written() -> bool:
        logs[:] = stack.post("/logs/filter", {"logs": mine})
        return any("invalid rows" in line["message"] for line in logs)

    wait_until(are_written, "the log of the run", 30)
    of_run = {"flow_runs": {"id": {"any_": [run_id]}}}
    tasks = stack.post("/task_runs/filter", of_run)
    states = [stack.get(f"/flow_run_states/?flow_run_id={run_id}")]
    states += [stack.get(f"/task_run_states/?task_run_id={task['id']}") for task in tasks]
    artifacts = stack.post("/artifacts/filter", {"artifacts": mine})
    return json.dumps([stack.get(f"/flow_runs/{run_id}"), tasks, states, logs, artifacts])


def test_a_permanent_failure_is_not_retried(api: Api) -> None:
    with receiver() as site:
        site.always = lambda handler: handler.answer(404, b"")
        name = register(api, "http", {"url": f"http://127.0.0.1:{site.port}/a.csv"})
        fetched = wait_for(api, fetch(api, name))
        assert (fetched["status"], fetched["error_category"], len(site.requests)) == ("FAILED", "SOURCE", 1)
    assert api.wait_for(fetched["run_id"])["status"] == "FAILED"
