"""A fault under load, and the row that results from it."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tests.faults.audit import STEPS, Auditor, Outcome
from tests.faults.disk import small_disk
from tests.faults.faults import Fault
from tests.faults.load import ALERT, READ, TRIGGER, Load
from tests.support.processes import wait_until
from tests.support.receivers import Receiver, receiver
from tests.support.stack import DEMO
from tests.support.web import WEB
from tests.topology.definitions import COMPLETED, services
from tests.topology.running import SECONDS_TO_START, Topology, is_reachable, topology

# The services that end once they have done their work.
COMMANDS = {name for one in services().values() for name, how in one.after.items() if how == COMPLETED}
# Prefect stands still for minutes after Redis has lost its memory.
SECONDS_TO_RECOVER = 400.0
# The parts of the time before, during and after the fault.
BEFORE, DURING, AFTER = 0.2, 0.6, 0.2


@dataclass(frozen=True)
class Seen:
    """What the clients of a load saw: when the fault began and ended, and when all was well."""

    fault: Fault
    load: Load
    began: float
    ended: float
    # None if it did not recover in time.
    recovered: float | None
    # When every process answered.
    restored: float

    def longest_gap(self, kind: str) -> float:
        """The longest time in which no request of a kind was accepted."""
        times = [one.began for one in self.load.attempts if one.kind == kind]
        successes = self.load.successes(kind)
        marks = [min(times), *successes, max(one.ended for one in self.load.attempts if one.kind == kind)]
        return max(later - earlier for earlier, later in pairwise(marks))

    def results(self, kind: str) -> Counter[str]:
        """How often each answer came."""
        return Counter(one.result for one in self.load.attempts if one.kind == kind)

    def surprises(self) -> list[str]:
        """Answers that no client should see: of another kind, or to a read while nothing was broken."""
        allowed = {"503", *self.fault.answers}
        refused = [one for one in self.load.attempts if not one.is_accepted]
        return [
            f"{one.kind} {one.result} at {one.began - self.began:+.1f} s"
            for one in refused
            if one.result not in allowed
            or (one.kind == READ and not (one.ended >= self.began and one.began <= self.restored))
        ]


@dataclass(frozen=True)
class Row:
    """The fault, what clients saw, and what became of everything that was accepted."""

    seen: Seen
    outcome: Outcome


@dataclass
class Bench:
    """The topology, with a receiver of alerts and a key."""

    whole: Topology
    desk: Receiver
    headers: dict[str, str]

    def measure(self, fault: Fault, seconds: float) -> Seen:
        """Send for so many seconds, and until all is well again. Raises `NotPossible`."""
        load = Load(self.whole.api_url, self.headers, self.whole.folder / "marks" / fault.title.replace(" ", "-"))
        with load.running():
            time.sleep(seconds * BEFORE)
            began = time.monotonic()
            with fault.breaking(self.whole):
                time.sleep(seconds * DURING)
                ended = time.monotonic()
            recovered = self._wait_for_recovery(load, ended)
            # What was started again has to be there before the next fault.
            wait_until(self._is_whole, "all processes to answer", SECONDS_TO_START)
            restored = time.monotonic()
            time.sleep(seconds * AFTER)
        return Seen(fault, load, began, ended, recovered, restored)

    def outcome(self, seen: Seen) -> Outcome:
        """What became of everything that was accepted."""
        return Auditor(self.whole, self.desk).audit(seen.load)

    def _is_whole(self) -> bool:
        """Whether every process that lasts answers."""
        lasting = (one for one in self.whole.members.values() if one.service.name not in COMMANDS)
        return all(one.answers() for one in lasting) and is_reachable(f"{self.whole.api_url}/health/ready")

    def _wait_for_recovery(self, load: Load, ended: float) -> float | None:
        """When a run and an alert that were requested after the fault had ended and arrived, and a read succeeded."""
        while not self._is_well(load, ended):
            if time.monotonic() > ended + SECONDS_TO_RECOVER:
                return None
            time.sleep(0.1)
        return time.monotonic()

    def _is_well(self, load: Load, ended: float) -> bool:
        runs, alerts = ([one for one in list(load.accepted[kind]) if one.began >= ended] for kind in (TRIGGER, ALERT))
        reads = any(one.kind == READ and one.is_accepted and one.began >= ended for one in list(load.attempts))
        if not reads or not any(set(load.ran(one.key)) == set(STEPS) for one in runs):
            return False
        received = {post.json["id"] for post in list(self.desk.posts)}
        return any(one.id in received for one in alerts)


@contextmanager
def bench(folder: Path) -> Iterator[Bench]:
    """All of it, started."""
    # The receiver of alerts is on this machine.
    with (
        small_disk() as disk,
        topology(folder, disk, SPINE_ALLOW_PRIVATE_ADDRESSES="true") as whole,
        receiver() as desk,
    ):
        whole.command("prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(DEMO / "prefect.yaml"))
        headers = {"X-API-Key": whole.command("spine", "keys", "create", "faults", "--scope", "admin").strip()}
        channel = {"name": "desk", "channel_type": "webhook", "config": {"url": desk.url}, "throttle_minutes": 0}
        WEB.post(f"{whole.api_url}/api/v1/alerts/channels", json=channel, headers=headers).raise_for_status()
        yield Bench(whole, desk, headers)
