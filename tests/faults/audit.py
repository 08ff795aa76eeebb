"""What became of everything that was accepted: each run has ended once, each alert has arrived once."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import httpx
import psycopg

from tests.faults.load import ALERT, TRIGGER, Accepted, Load
from tests.support.receivers import Receiver
from tests.support.web import PATIENCE, PLAIN
from tests.topology.running import Topology

# A run whose worker is gone is CRASHED within 90 s; its alert is sent after that.
SECONDS_TO_SETTLE = 180.0
MOST_OF_A_REQUEST = 200
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
STEPS = ("extract", "validate", "publish")


@dataclass(frozen=True)
class Outcome:
    """How many of the accepted runs and alerts did not have their one outcome, and how many had an odd one."""

    runs_lost: int
    runs_twice: int
    runs_crashed: int
    alerts_lost: int
    alerts_twice: int
    # The same delivery came again, with the same key: its sender was killed before it could record the outcome.
    alerts_repeated: int

    @property
    def broken(self) -> dict[str, int]:
        """What must not be, and is."""
        never = ("runs_lost", "runs_twice", "alerts_lost", "alerts_twice")
        return {name: count for name, count in asdict(self).items() if name in never and count}


@dataclass(frozen=True)
class _Alert:
    """An alert that Spine has stored, with the status of each of its deliveries."""

    id: str
    run_id: str | None
    deliveries: tuple[str, ...]


class Auditor:
    """Compares the answers of a load with Prefect's runs, with the rows of alerts, and with what their receiver got."""

    def __init__(self, whole: Topology, desk: Receiver) -> None:
        self._whole, self._desk = whole, desk

    def audit(self, load: Load, seconds: float = SECONDS_TO_SETTLE) -> Outcome:
        """The outcome, once all is well, or as it is after so many seconds."""
        until = time.monotonic() + seconds
        while True:
            found = self._look(load)
            if not (found.runs_lost or found.alerts_lost) or time.monotonic() > until:
                return found
            time.sleep(1)

    def _look(self, load: Load) -> Outcome:
        runs, alerts = load.accepted[TRIGGER], load.accepted[ALERT]
        states = self._states([one.id for one in runs])
        failed = [one.id for one in runs if states.get(one.id) in ("FAILED", "CRASHED")]
        stored = self._alerts([one.id for one in alerts], failed)
        due: list[tuple[str, ...]] = [(one.id,) for one in alerts]
        of_run = defaultdict(list)
        for alert in stored.values():
            of_run[alert.run_id].append(alert.id)
        due += [tuple(of_run[run]) for run in failed]
        received = self._received()
        return Outcome(
            runs_lost=sum(not _has_ended(one, states.get(one.id), load.ran(one.key)) for one in runs),
            runs_twice=sum(max(Counter(load.ran(key)).values(), default=0) > 1 for key in load.keys),
            runs_crashed=sum(states.get(one.id) == "CRASHED" for one in runs),
            alerts_lost=sum(not any(_has_arrived(one, stored, received) for one in ids) for ids in due),
            alerts_twice=sum(len(ids) > 1 or any(len(received[one]) > 1 for one in ids) for ids in due),
            alerts_repeated=sum(sum(received[one].values()) - len(received[one]) for ids in due for one in ids),
        )

    def _states(self, ids: list[str]) -> dict[str, str]:
        """The types of the states of these runs, as Prefect has them."""
        found: dict[str, str] = {}
        with self._prefect() as client:
            for some in _portions(ids):
                answer = client.post("/flow_runs/filter", json={"flow_runs": {"id": {"any_": some}}})
                answer.raise_for_status()
                found |= {run["id"]: run["state_type"] for run in answer.json()}
        return found

    @contextmanager
    def _prefect(self) -> Iterator[httpx.Client]:
        user, _, password = self._whole.environment["PREFECT_API_AUTH_STRING"].partition(":")
        base = f"{self._whole.prefect_url}/api"
        with httpx.Client(base_url=base, auth=(user, password), timeout=PATIENCE, verify=PLAIN) as client:
            yield client

    def _alerts(self, ids: list[str], runs: list[str]) -> dict[str, _Alert]:
        """The alerts with these ids, and those that say that these runs failed."""
        query = (
            "SELECT a.id, a.run_id, array_remove(array_agg(d.status), NULL) FROM alerts a"
            " LEFT JOIN alert_deliveries d ON d.alert_id = a.id"
            " WHERE a.id = ANY(%s) OR (a.run_id = ANY(%s) AND a.cause LIKE 'run-failed:%%') GROUP BY a.id"
        )
        with psycopg.connect(self._whole.backends.spine_url) as connection:
            rows: list[Any] = connection.execute(query, (ids, runs)).fetchall()
        return {row[0]: _Alert(row[0], row[1], tuple(row[2])) for row in rows}

    def _received(self) -> defaultdict[str, Counter[str]]:
        """How often each delivery came, by the alert."""
        found: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for post in list(self._desk.posts):
            found[post.json["id"]][post.headers["Idempotency-Key"]] += 1
        return found


def _has_ended(run: Accepted, state: str | None, steps: list[str]) -> bool:
    """Whether a run has ended, and as its parameters say unless its process was killed."""
    if state == "CRASHED":
        return True
    return state == ("FAILED" if run.fails else "COMPLETED") and set(steps) == set(STEPS)


def _has_arrived(alert: str, stored: dict[str, _Alert], received: dict[str, Counter[str]]) -> bool:
    return alert in stored and stored[alert].deliveries == ("SENT",) and bool(received[alert])


def _portions(ids: list[str]) -> Iterable[list[str]]:
    return (ids[start : start + MOST_OF_A_REQUEST] for start in range(0, len(ids), MOST_OF_A_REQUEST))
