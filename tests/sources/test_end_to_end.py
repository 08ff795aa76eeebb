"""Sources over the API, fetched by a real worker: what clients and people in Prefect see."""

import asyncio
import hashlib
import threading
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest
from spine.database import make_engine, make_sessions
from spine.sources.fetch_requests import record_request
from spine.tables.base import new_id

import flows.finra
from tests.sources.running import fetch, register, wait_for
from tests.support.processes import wait_until
from tests.support.receivers import Handler, receiver
from tests.support.stack import Api, PrefectStack
from tests.support.weekly_files import PAIRS, WeeklyFile

SAMPLE = Path(flows.finra.__file__).parent / "sample" / "finra_otc_weekly_sample.csv"


@pytest.fixture(scope="module")
def api(worker_api: Api) -> Api:
    return worker_api


@pytest.fixture
def files(stack: PrefectStack) -> Path:
    """The folder that sources may read."""
    folder = Path(stack.environment["SPINE_FILE_ROOTS"])
    folder.mkdir(exist_ok=True)
    return folder


def test_a_weekly_file_is_registered_fetched_shown_in_prefect_downloaded_and_used(
    api: Api, stack: PrefectStack, files: Path
) -> None:
    (files / "weekly.csv").write_bytes(SAMPLE.read_bytes())
    sha256 = hashlib.sha256(SAMPLE.read_bytes()).hexdigest()
    name = register(api, "file", {"path": "weekly.csv"}, parser_type="psv", domain="finra.otc_transparency")
    fetched = wait_for(api, fetch(api, name))
    assert (fetched["status"], fetched["error"]) == ("SUCCESS", None)
    assert (fetched["content_hash"], fetched["rows_parsed"]) == (sha256, 16)
    assert (fetched["trigger"], fetched["triggered_by"]) == ("API", "admin")

    run = api.wait_for(fetched["run_id"])
    assert (run["status"], run["workflow_name"], run["rows_processed"]) == ("COMPLETED", "spine.fetch_source", 16)
    assert run["capture_id"] == sha256
    wanted = {"flow_run_id": {"any_": [fetched["run_id"]]}, "type": {"any_": ["table"]}}
    (artifact,) = stack.post("/artifacts/filter", {"artifacts": wanted})
    for shown in (name, sha256, "yes"):
        assert shown in artifact["data"]
    assert f"source:{name}" in stack.get(f"/flow_runs/{fetched['run_id']}")["tags"]

    (entry,) = api.get("/sources/cache", source_id=name)["data"]
    assert (entry["content_hash"], entry["fetch_id"], entry["source_name"]) == (sha256, fetched["id"], name)
    response = api.client.get(f"/sources/cache/{entry['id']}/content", headers={"Range": "bytes=0-9"})
    assert (response.status_code, response.content) == (206, SAMPLE.read_bytes()[:10])

    params = {"week_ending": "2026-01-05", "tier": "OTC", "source": name}
    user = api.wait_for(api.trigger("finra.weekly_refresh", **params))
    assert (user["status"], user["rows_processed"]) == ("COMPLETED", 16), user["error"]
    newest = api.get(f"/sources/{name}/fetches")["data"][0]
    used = api.get(f"/sources/fetches/{newest['id']}")
    # Without a time to live the source was checked again, and reported that it is unchanged.
    assert (used["trigger"], used["content_changed"], used["bytes_fetched"]) == ("DEPENDENCY", False, 0)
    assert (used["used_by_runs"], used["capture_id"]) == ([user["run_id"]], sha256)
    # Both fetches log to their own run, even the second, which a task of another run has called.
    lines = {one["run_id"]: f"Fetch {one['id']} of the source {name}." for one in (fetched, used)}
    wait_until(lambda: all(line in stack.logged(run_id) for run_id, line in lines.items()), "the logs", 30)
    detail = api.get(f"/sources/{name}")
    assert (detail["total_fetches"], detail["success_rate"], detail["last_content_hash"]) == (2, 1.0, sha256)
    # What the run published has its own capture id; a failed run has the capture id of what it read.
    assert user["capture_id"].startswith("otc-2026-01-05-")
    failed = api.wait_for(api.trigger("finra.weekly_refresh", **(params | {"tier": "T1"})))
    assert (failed["status"], failed["capture_id"]) == ("FAILED", sha256), failed["error"]


@pytest.mark.parametrize("weekly", [pair[0] for pair in PAIRS], ids=lambda weekly: weekly.name)
def test_a_weekly_file_has_all_its_rows(api: Api, files: Path, weekly: WeeklyFile) -> None:
    weekly.write(files)
    name = register(api, "file", {"path": weekly.name}, parser_type="psv")
    fetched = wait_for(api, fetch(api, name))
    assert (fetched["status"], fetched["rows_parsed"]) == ("SUCCESS", weekly.figures.rows)


def test_a_source_with_a_cron_expression_has_a_prefect_schedule(api: Api, stack: PrefectStack, files: Path) -> None:
    name = register(api, "file", {"path": "weekly.csv"}, cron_expression="0 6 * * MON", domain="desk.rates")
    detail = api.get(f"/sources/{name}")
    assert detail["cron_expression"] == "0 6 * * MON"
    assert detail["next_fetch_at"] is not None
    deployment = stack.deployment("spine.fetch_source", f"fetch-{name}")
    assert deployment["id"] == detail["schedule_id"]
    assert deployment["parameters"]["source"] == detail["id"]
    assert {"domain:desk.rates", f"source:{name}"} <= set(deployment["tags"])

    def patch(**changes: Any) -> dict[str, Any]:
        response = api.client.patch(f"/sources/{name}", json=changes)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    assert patch(enabled=False)["next_fetch_at"] is None
    assert not api.get(f"/schedules/fetch-{name}")["enabled"]
    assert patch(enabled=True)["next_fetch_at"] is not None
    assert patch(cron_expression="30 7 * * *")["cron_expression"] == "30 7 * * *"
    patch(name=f"{name}-renamed", domain=None)
    name = f"{name}-renamed"
    renamed = stack.deployment("spine.fetch_source", deployment["name"])
    assert [tag for tag in renamed["tags"] if tag.startswith(("source:", "domain:desk"))] == [f"source:{name}"]
    assert renamed["description"] == f"Fetches the source {name}."
    # A change in Prefect's UI changes the source.
    schedule = stack.deployment("spine.fetch_source", deployment["name"])["schedules"][0]
    changed = {"schedule": {"cron": "15 8 * * *", "timezone": "UTC"}}
    stack.patch(f"/deployments/{deployment['id']}/schedules/{schedule['id']}", changed)
    assert api.get(f"/sources/{name}")["cron_expression"] == "15 8 * * *"
    assert patch(cron_expression=None)["cron_expression"] is None
    assert api.client.get(f"/schedules/{deployment['name']}").status_code == 404

    patch(cron_expression="0 5 * * *")
    assert api.get(f"/sources/{name}")["schedule_id"] == api.get(f"/schedules/fetch-{name}")["id"]
    assert api.client.delete(f"/sources/{name}").json()["status"] == "deleted"
    assert api.client.get(f"/schedules/fetch-{name}").status_code == 404
    assert api.client.get(f"/sources/{name}").status_code == 404


def test_a_run_of_the_schedule_is_a_fetch(api: Api, files: Path) -> None:
    (files / "planned.csv").write_bytes(SAMPLE.read_bytes())
    config = {"path": "planned.csv"}
    name = register(api, "file", config, parser_type="psv", cron_expression="0 6 1 1 *")
    started = api.client.post(f"/schedules/fetch-{name}/run-now")
    run = api.wait_for(started.json()["run_id"])
    assert run["status"] == "COMPLETED", run["error"]
    (fetched,) = api.get(f"/sources/{name}/fetches")["data"]
    assert (fetched["status"], fetched["rows_parsed"]) == ("SUCCESS", 16)


def test_a_requested_fetch_that_was_never_started_is_started_by_the_next_request(api: Api, files: Path) -> None:
    (files / "left.csv").write_bytes(b"a\n1\n")
    name = register(api, "file", {"path": "left.csv"})

    async def request_and_die() -> str:
        engine = make_engine(api.settings.sqlalchemy_url)
        requested = await record_request(make_sessions(engine), name, new_id(), by="x", force=True)
        await engine.dispose()
        return requested.fetch_id

    left = asyncio.run(request_and_die())
    assert fetch(api, name) == left
    done = wait_for(api, left)
    assert (done["status"], done["rows_parsed"]) == ("SUCCESS", 1)
    assert api.run(done["run_id"])["input_params"]["force"] is True
    assert api.get(f"/sources/{name}")["total_fetches"] == 1


def test_the_same_request_starts_one_fetch(api: Api, files: Path) -> None:
    (files / "once.csv").write_bytes(b"a\n1\n")
    name = register(api, "file", {"path": "once.csv"})
    key = {"Idempotency-Key": uuid4().hex}
    answers = [api.client.post(f"/sources/{name}/fetch", headers=key) for _ in range(2)]
    assert answers[0].content == answers[1].content
    wait_for(api, answers[0].json()["fetch_id"])


def test_a_warm_run_reads_in_a_process_that_is_forked_from_it(api: Api) -> None:
    reading = threading.Event()
    released = threading.Event()

    def slow(handler: Handler) -> None:
        reading.set()
        released.wait(60)
        handler.answer(200, b"a,b\n1,2\n", {})

    with receiver() as site:
        site.behaviours = [slow]
        name = register(api, "http", {"url": f"http://127.0.0.1:{site.port}/trades.csv"})
        fetch_id = fetch(api, name)
        assert reading.wait(60)
        run = psutil.Process(int(wait_for(api, fetch_id, "RUNNING")["execution_id"].rpartition(":")[2]))
        server, *_ = run.children()
        # They are copies of the run, which imported everything before it was forked.
        assert [one.cmdline() for one in (server, *server.children())] == [run.cmdline()] * 2
        released.set()
        assert wait_for(api, fetch_id)["status"] == "SUCCESS"
