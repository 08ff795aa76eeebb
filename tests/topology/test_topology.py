"""The topology of `deployments/` in operation: two of each server behind the proxy, and what its parts survive."""

import itertools
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.support.processes import variables_of, wait_until
from tests.support.receivers import Receiver
from tests.support.stack import Api
from tests.support.web import PATIENCE, PLAIN, WEB
from tests.topology.behaviour import completes, fails_with_one_alert, members_of
from tests.topology.running import Member, Topology

pytestmark = pytest.mark.slow


def test_runs_alerts_and_cancellations_pass_through_all_parts(
    whole: Topology, balanced: Api, desk: Receiver, tmp_path: Path
) -> None:
    ready = WEB.get(f"{whole.api_url}/health/ready").json()
    assert ready["status"] == "ready", ready
    completes(balanced, tmp_path / "completes")
    fails_with_one_alert(balanced, desk)
    run = balanced.trigger("demo.sleeper", marks=str(tmp_path / "sleeps"))
    balanced.wait_for(run, "RUNNING")
    assert balanced.client.post(f"/workflows/runs/{run}/cancel").status_code == 200
    assert balanced.wait_for(run)["status"] == "CANCELLED"


@pytest.mark.parametrize("service", ["spine-api", "prefect-api", "prefect-services", "worker"])
def test_a_killed_process_of_each_kind_stops_nothing(
    whole: Topology, balanced: Api, desk: Receiver, tmp_path: Path, service: str
) -> None:
    member = members_of(whole, service)[0]
    assert member.process is not None
    member.process.kill()
    member.process.wait()
    # What events of Prefect bring about waits for the services, of which there is one.
    if service == "prefect-services":
        member.start()
    completes(balanced, tmp_path / "without-it")
    fails_with_one_alert(balanced, desk)
    if service != "prefect-services":
        member.start()
    wait_until(member.answers, f"{member.name} to be back", 90)
    completes(balanced, tmp_path / "with-it")


@dataclass
class Clients:
    """What clients saw that sent requests all the time."""

    answers: list[int] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


@contextmanager
def clients_of(send: Callable[[httpx.Client], httpx.Response], many: int = 4) -> Iterator[Clients]:
    """Clients that send requests while the block runs."""
    seen, stopped = Clients(), threading.Event()

    def work() -> None:
        with httpx.Client(timeout=PATIENCE, verify=PLAIN) as client:
            while not stopped.is_set():
                try:
                    seen.answers.append(send(client).status_code)
                except httpx.HTTPError as error:
                    seen.failures.append(repr(error))

    threads = [threading.Thread(target=work) for _ in range(many)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stopped.set()
        for thread in threads:
            thread.join()


def test_an_api_that_is_stopped_cuts_no_request_and_loses_no_delivery(
    whole: Topology, balanced: Api, desk: Receiver
) -> None:
    member, other = members_of(whole, "spine-api")
    assert member.process is not None
    assert member.health is not None
    own = member.health.removesuffix("/health/live")
    headers, numbers = balanced.client.headers, itertools.count()

    def send(client: httpx.Client) -> httpx.Response:
        alert = {"severity": "ERROR", "title": f"load {next(numbers)}.", "message": "m", "source": "tests"}
        return client.post(f"{whole.api_url}/api/v1/alerts", json=alert, headers=headers)

    with clients_of(send) as seen:
        wait_until(lambda: len(seen.answers) > 20, "requests to be answered")
        member.process.terminate()
        wait_until(lambda: WEB.get(f"{own}/health/serving").status_code == 503, "the end to be announced", 3)
        # It still answers those that have not heard of it.
        answer = WEB.get(f"{own}/api/v1/alerts", headers=headers)
        assert (answer.status_code, answer.headers["Connection"]) == (200, "close")
        assert WEB.get(f"{own}/health/ready").status_code == 503
        member.process.wait(30)
        before = len(seen.answers)
        wait_until(lambda: len(seen.answers) > before + 20, "requests to be answered by the other")
    assert seen.failures == []
    assert set(seen.answers) == {201}

    def delivered() -> Counter[str]:
        return Counter(title for post in desk.posts for title in re.findall(r"load \d+\.", post.body.decode())[:1])

    wait_until(lambda: len(delivered()) == len(seen.answers), "every alert to be delivered", 120)
    assert set(delivered().values()) == {1}
    assert other.answers()
    member.start()
    wait_until(member.answers, "the API to be back", 90)


def test_a_worker_that_is_stopped_hands_its_run_to_the_other(whole: Topology, balanced: Api, tmp_path: Path) -> None:
    run = balanced.trigger("demo.sleeper", marks=str(tmp_path / "sleeps"), seconds=20)
    balanced.wait_for(run, "RUNNING")
    wait_until((tmp_path / "sleeps").exists, "the step to begin")
    first, second = members_of(whole, "worker")

    def runs_it(member: Member) -> bool:
        assert member.process is not None
        children = member.process.children(recursive=True)
        return any(run in " ".join(variables_of(child).values()) for child in children)

    owner = first if runs_it(first) else second
    assert owner.process is not None
    owner.process.terminate()
    owner.process.wait(60)
    assert balanced.wait_for(run)["status"] in ("COMPLETED", "FAILED")
    assert balanced.run(run)["attempt"] == 2
    owner.start()
