"""Steady load: clients that start runs, raise alerts and read, and repeat what was not accepted with its key."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from tests.support.web import PLAIN

TRIGGER, ALERT, READ = KINDS = ("trigger", "alert", "read")
# How long each of the clients of a kind waits between two requests.
SECONDS_BETWEEN = {TRIGGER: 3.0, ALERT: 1.5, READ: 1.5}
CLIENTS_OF_A_KIND = 3
SECONDS_TO_REPEAT = 0.5
# Longer than the deadline that Spine has for Prefect.
PATIENCE = 15.0
# A run of these fails at its last step.
EVERY_FAILING = 4
NO_CONNECTION, TIMEOUT = "no connection", "timeout"
READS = ("/workflows/runs?limit=5", "/alerts?limit=5")


@dataclass(frozen=True)
class Attempt:
    """One request and what became of it: the status, or why there is none."""

    kind: str
    began: float
    ended: float
    result: str

    @property
    def is_accepted(self) -> bool:
        """Whether the answer is a success."""
        return self.result.startswith("2")


@dataclass(frozen=True)
class Accepted:
    """A trigger or an alert that was answered with success: when it was sent first, and the id of its run or alert."""

    began: float
    key: str
    id: str
    fails: bool = False


@dataclass
class Load:
    """What is sent, and what was answered."""

    url: str
    headers: dict[str, str]
    # Each run leaves the marks of its steps in a file with the name of its key.
    marks: Path
    attempts: list[Attempt] = field(default_factory=list)
    accepted: dict[str, list[Accepted]] = field(default_factory=lambda: {TRIGGER: [], ALERT: []})
    # All keys of triggers, accepted or not.
    keys: list[str] = field(default_factory=list)
    _stopped: threading.Event = field(default_factory=threading.Event)
    _numbers: dict[str, Iterator[int]] = field(default_factory=lambda: {kind: itertools.count() for kind in KINDS})

    @contextmanager
    def running(self) -> Iterator[None]:
        """Send for as long as the block lasts; afterwards every answer is there."""
        self.marks.mkdir(parents=True)
        (self.marks / "may-end").touch()
        work: dict[str, Callable[[httpx.Client], None]] = {TRIGGER: self._trigger, ALERT: self._alert, READ: self._read}
        threads = [
            threading.Thread(target=self._repeat, args=(work[kind], SECONDS_BETWEEN[kind], number), daemon=True)
            for kind in KINDS
            for number in range(CLIENTS_OF_A_KIND)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            for thread in threads:
                thread.join()

    def successes(self, kind: str) -> list[float]:
        """When requests of a kind were accepted, in order."""
        return sorted(one.ended for one in self.attempts if one.kind == kind and one.is_accepted)

    def ran(self, key: str) -> list[str]:
        """The steps that the runs with this key began."""
        file = self.marks / key
        return file.read_text().split() if file.exists() else []

    def _repeat(self, work: Callable[[httpx.Client], None], pause: float, number: int) -> None:
        # Clients of a kind begin one after the other, so that the load is even.
        self._stopped.wait(pause * number / CLIENTS_OF_A_KIND)
        with httpx.Client(
            base_url=f"{self.url}/api/v1", headers=self.headers, timeout=PATIENCE, verify=PLAIN
        ) as client:
            due = time.monotonic()
            while not self._stopped.is_set():
                work(client)
                # What could not be sent in time is not sent later: the load stays what it is.
                due = max(due + pause, time.monotonic())
                self._stopped.wait(due - time.monotonic())

    def _trigger(self, client: httpx.Client) -> None:
        fails = next(self._numbers[TRIGGER]) % EVERY_FAILING == EVERY_FAILING - 1
        key = uuid4().hex
        self.keys.append(key)
        params = {"marks": str(self.marks / key), "unless": str(self.marks / ("never" if fails else "may-end"))}
        answer = self._until_accepted(client, TRIGGER, "/workflows/trigger/demo.three_steps", key, {"params": params})
        if answer:
            self.accepted[TRIGGER].append(Accepted(answer[0], key, str(answer[1]["run_id"]), fails))

    def _alert(self, client: httpx.Client) -> None:
        key = uuid4().hex
        body = {"severity": "ERROR", "title": f"Load {key}", "message": "Of the tests.", "source": "tests.faults"}
        answer = self._until_accepted(client, ALERT, "/alerts", key, body)
        if answer:
            self.accepted[ALERT].append(Accepted(answer[0], key, str(answer[1]["id"])))

    def _read(self, client: httpx.Client) -> None:
        self._send(client, READ, "GET", READS[next(self._numbers[READ]) % len(READS)])

    def _until_accepted(
        self, client: httpx.Client, kind: str, path: str, key: str, body: dict[str, Any]
    ) -> tuple[float, dict[str, Any]] | None:
        """When it was sent first, and the answer; None if the load ended before that."""
        began = time.monotonic()
        while True:
            answer = self._send(client, kind, "POST", path, json=body, headers={"Idempotency-Key": key})
            if answer is not None and answer.is_success:
                return began, answer.json()
            if self._stopped.wait(SECONDS_TO_REPEAT):
                return None

    def _send(self, client: httpx.Client, kind: str, method: str, path: str, **given: Any) -> httpx.Response | None:
        began, answer = time.monotonic(), None
        try:
            answer = client.request(method, path, **given)
            result = str(answer.status_code)
            if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE and "Retry-After" not in answer.headers:
                result = "503 without Retry-After"
        except httpx.TimeoutException:
            result = TIMEOUT
        except httpx.HTTPError:
            result = NO_CONNECTION
        self.attempts.append(Attempt(kind, began, time.monotonic(), result))
        return answer
