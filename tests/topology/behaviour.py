"""What the whole must do, with or without one of its parts."""

import time
from pathlib import Path
from typing import Any
from uuid import uuid4

from tests.support.processes import wait_until
from tests.support.receivers import Receiver
from tests.support.stack import Api
from tests.topology.running import Member, Topology


def members_of(whole: Topology, service: str) -> list[Member]:
    """The processes of a service."""
    return [member for name, member in whole.members.items() if name.startswith(service)]


def triggered(api: Api, workflow: str, **params: str) -> str:
    """Start a run as clients do: a request that met a process just killed is repeated with its key."""
    key, found = uuid4().hex, []

    def started() -> bool:
        sent: dict[str, Any] = {"json": {"params": params}, "headers": {"Idempotency-Key": key}}
        found.append(api.client.post(f"/workflows/trigger/{workflow}", **sent))
        assert found[-1].status_code in (201, 502, 503), found[-1].text
        return bool(found[-1].status_code == 201)

    wait_until(started, f"a run of {workflow}", 60)
    return str(found[-1].json()["run_id"])


def completes(api: Api, marks: Path) -> None:
    """A run of three steps completes."""
    run = triggered(api, "demo.three_steps", marks=str(marks), unless=str(marks.parent))
    assert api.wait_for(run)["status"] == "COMPLETED"


def fails_with_one_alert(api: Api, desk: Receiver) -> None:
    """A run that fails raises one alert, which arrives once."""
    run = triggered(api, "demo.fails_by", way="key")
    assert api.wait_for(run)["status"] == "FAILED"

    def arrived() -> list[str]:
        return [post.body.decode() for post in desk.posts if run in post.body.decode()]

    wait_until(lambda: bool(arrived()), "the alert of the run", 90)
    time.sleep(1)
    assert len(arrived()) == 1
