"""No accepted alert is lost when a process is killed, and several processes send nothing twice."""

import random
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from spine.tables.alerts import Alert
from sqlalchemy import select

from tests.alerts.conftest import FAST_RETRIES
from tests.alerts.support import Alerts
from tests.support.databases import in_database
from tests.support.processes import wait_until
from tests.support.receivers import Receiver, receiver
from tests.support.stack import ADMIN_KEY, Api, PrefectStack, api_process
from tests.support.web import PATIENCE

POSTERS = 4
MANY_POSTERS = 16


def post_until_accepted(client: httpx.Client, url: list[str], number: int) -> str:
    """Raise an alert as a client should: repeat the request with the same key until there is a response."""
    headers = {"Idempotency-Key": f"alert-{number}"}
    body = {"severity": "ERROR", "title": f"alert {number}", "message": "m", "source": "kills"}
    until = time.monotonic() + 120
    while time.monotonic() < until:
        try:
            response = client.post(f"{url[0]}/api/v1/alerts", json=body, headers=headers)
        except httpx.HTTPError:
            time.sleep(0.1)
            continue
        if response.status_code == 201:
            return str(response.json()["id"])
        assert response.status_code == 503, response.text
    raise AssertionError("no process accepted the alert")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("database", "alerts", "kills"),
    [
        ("sqlite", 500, 20),
        ("postgresql", 500, 3),
    ],
)
def test_no_alert_is_lost_when_the_process_is_killed_repeatedly(
    stack: PrefectStack, request: pytest.FixtureRequest, tmp_path: Path, database: str, alerts: int, kills: int
) -> None:
    given = request.getfixturevalue("alerts_database") if database == "postgresql" else None
    chance = random.Random(5)
    url, pause = [""], threading.Event()
    with ExitStack() as desks:
        receivers = [desks.enter_context(receiver()) for _ in range(3)]

        def api_on_same_folder() -> ExitStack:
            running = ExitStack()
            home = tmp_path / "api"
            api = running.enter_context(api_process(stack.url, stack.home, home, given, **FAST_RETRIES))
            url[0] = api.url
            running.callback(api.process.kill)
            return running

        with api_on_same_folder() as first, httpx.Client(headers={"X-API-Key": ADMIN_KEY}, timeout=PATIENCE) as client:
            for number, one in enumerate(receivers):
                body = {"name": f"{database}-{number}", "channel_type": "webhook", "config": {"url": one.url}}
                made = client.post(f"{url[0]}/api/v1/alerts/channels", json={**body, "throttle_minutes": 0})
                assert made.status_code == 201
            del first
        posting = desks.enter_context(httpx.Client(headers={"X-API-Key": ADMIN_KEY}, timeout=5))
        with ThreadPoolExecutor(POSTERS) as pool:
            accepted = [pool.submit(_paced, posting, url, number, pause) for number in range(alerts)]
            for _ in range(kills):
                with api_on_same_folder():
                    pause.wait(chance.uniform(0.05, 1.2))
            pause.set()
            with api_on_same_folder():
                ids = {future.result() for future in accepted}
                assert len(ids) == alerts
                _check(receivers, ids, kills)
                if database == "postgresql":
                    with httpx.Client(
                        base_url=f"{url[0]}/api/v1", headers={"X-API-Key": ADMIN_KEY}, timeout=PATIENCE
                    ) as client:
                        for number in range(3):
                            client.delete(f"/alerts/channels/{database}-{number}")


def _paced(client: httpx.Client, url: list[str], number: int, pause: threading.Event) -> str:
    # So that alerts are being accepted and sent at every kill.
    pause.wait(0.15)
    return post_until_accepted(client, url, number)


def _check(receivers: list[Receiver], ids: set[str], kills: int) -> None:
    """All alerts arrived, and repeats have the same key."""
    duplicates = 0
    for one in receivers:
        until = time.monotonic() + 60
        while {request.json["id"] for request in one.posts} < ids:
            assert time.monotonic() < until, len(ids - {request.json["id"] for request in one.posts})
            time.sleep(0.2)
        assert {request.json["id"] for request in one.posts} == ids
        keys = defaultdict(set)
        for request in one.posts:
            keys[request.json["id"]].add(request.headers["Idempotency-Key"])
        assert all(len(found) == 1 for found in keys.values())
        duplicates += len(one.posts) - len(ids)
    # Only deliveries in flight at a kill can be repeated: a lane has eight slots.
    assert duplicates <= kills * 3 * 8
    print(f"{duplicates} of {len(ids) * 3} were sent twice")


@pytest.mark.slow
def test_several_processes_share_the_work_and_send_nothing_twice(
    stack: PrefectStack, alerts_database: str, tmp_path: Path
) -> None:
    with receiver() as desk, ExitStack() as processes:
        apis = [
            processes.enter_context(
                api_process(stack.url, stack.home, tmp_path / name, alerts_database, **FAST_RETRIES)
            )
            for name in ("one", "two")
        ]
        one, two = Alerts(apis[0]), Alerts(apis[1])
        one.channel(desk)
        with ThreadPoolExecutor(8) as pool:
            ids = list(pool.map(lambda number: (one, two)[number % 2].alert(title=f"shared {number}"), range(200)))
        desk.wait_for(200, seconds=40)
        time.sleep(1)
        assert Counter(request.json["id"] for request in desk.posts) == Counter(ids)
        one.delete_channels()


@pytest.mark.slow
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_what_was_answered_is_stored_when_the_process_is_killed_under_load(
    stack: PrefectStack, request: pytest.FixtureRequest, tmp_path: Path, database: str
) -> None:
    given = request.getfixturevalue("alerts_database") if database == "postgresql" else None
    known: set[str] = set()
    for _ in range(5):
        with api_process(stack.url, stack.home, tmp_path / "api", given, SPINE_SEND_ALERTS="false") as api:
            known |= _answered_until_killed(api)
    with in_database(api.settings.sqlalchemy_url) as connection:
        assert known <= set(connection.scalars(select(Alert.id)))


def _answered_until_killed(api: Api) -> set[str]:
    """Kill a process that many clients raise alerts at; the alerts that it has answered."""
    answered: list[str] = []
    with ThreadPoolExecutor(MANY_POSTERS) as pool:
        posting = [pool.submit(_post_until_killed, api, answered) for _ in range(MANY_POSTERS)]
        wait_until(lambda: len(answered) > 200, "alerts to be accepted", 30, every=0.01)
        api.process.kill()
        for one in posting:
            one.result()
    return set(answered)


def _post_until_killed(api: Api, answered: list[str]) -> None:
    body = {"severity": "ERROR", "title": "under load", "message": "m", "source": "kills"}
    with httpx.Client(base_url=f"{api.url}/api/v1", headers={"X-API-Key": ADMIN_KEY}, timeout=PATIENCE) as client:
        while True:
            try:
                response = client.post("/alerts", json=body)
            except httpx.HTTPError:
                return
            assert response.status_code == 201, response.text
            answered.append(response.json()["id"])
