"""The faults: each is a context, which breaks a part of the topology at its beginning and mends it at its end."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg

from tests.faults.disk import filled
from tests.faults.load import NO_CONNECTION, TIMEOUT
from tests.support.processes import wait_until
from tests.support.web import WEB
from tests.topology.backends import Server
from tests.topology.behaviour import members_of
from tests.topology.running import Member, Topology

SECONDS_TO_START = 90
CLOCK_AHEAD = Path(__file__).parent / "clock_ahead.c"


class NotPossible(Exception):
    """This machine lacks what the fault needs."""


Breaking = Callable[[Topology], AbstractContextManager[None]]


@dataclass(frozen=True)
class Fault:
    """A fault, and the answers besides 503 that clients may get meanwhile."""

    title: str
    breaking: Breaking
    answers: frozenset[str] = frozenset()


def _kill(member: Member, *, with_family: bool = False) -> None:
    assert member.process is not None
    family = [member.process, *(member.process.children(recursive=True) if with_family else ())]
    # All at once: the parent first would let a child notice and act.
    for process in family:
        process.suspend()
    for process in family:
        process.kill()
    psutil.wait_procs(family, timeout=10)


def _killed(service: str, *, all_of_them: bool = False, with_family: bool = False) -> Breaking:
    """The processes of a service are killed, and started again."""

    @contextmanager
    def breaking(whole: Topology) -> Iterator[None]:
        members = members_of(whole, service)[: None if all_of_them else 1]
        for member in members:
            _kill(member, with_family=with_family)
        try:
            yield
        finally:
            for member in members:
                member.start()

    return breaking


@contextmanager
def _postgresql(whole: Topology) -> Iterator[None]:
    server = _own(whole.backends.postgresql)
    server.kill()
    try:
        yield
    finally:
        server.start()


@contextmanager
def _redis(whole: Topology) -> Iterator[None]:
    server = _own(whole.backends.redis)
    server.kill()
    try:
        yield
    finally:
        server.start()


@contextmanager
def _redis_without_memory(whole: Topology) -> Iterator[None]:
    with _redis(whole):
        folder = _own(whole.backends.redis).cwd
        shutil.rmtree(folder / "appendonlydir")
        (folder / "dump.rdb").unlink(missing_ok=True)
        yield


@contextmanager
def _proxy(whole: Topology) -> Iterator[None]:
    for proxy in whole.proxies:
        proxy.kill()
    try:
        yield
    finally:
        for proxy in whole.proxies:
            proxy.start()


@contextmanager
def _disk_full(whole: Topology) -> Iterator[None]:
    server = _own(whole.backends.postgresql)
    if not server.cwd.parent.is_mount():
        raise NotPossible("this user may not mount a small disk")
    try:
        with filled(server.cwd.parent):
            yield
    finally:
        assert server.process is not None
        # Without space for its log it ends itself; whatever supervises it starts it again.
        if server.process.poll() is not None:
            server.start()


@contextmanager
def _read_only(whole: Topology) -> Iterator[None]:
    _own(whole.backends.postgresql)
    _set_read_only(whole, "SET default_transaction_read_only = on")
    try:
        yield
    finally:
        _set_read_only(whole, "RESET default_transaction_read_only")


def _set_read_only(whole: Topology, change: str) -> None:
    options = "-c default_transaction_read_only=off"
    with psycopg.connect(whole.backends.spine_url, autocommit=True, options=options) as connection:
        connection.execute(f"ALTER SYSTEM {change}")
        connection.execute("SELECT pg_reload_conf()")


def _leads(member: Member) -> bool:
    assert member.health is not None
    metrics = WEB.get(member.health.replace("/health/live", "/metrics")).text
    return "spine_follower_leader 1.0" in metrics.splitlines()


@contextmanager
def _frozen_leader(whole: Topology) -> Iterator[None]:
    leaders: list[Member] = []

    def found() -> bool:
        leaders[:] = [member for member in members_of(whole, "spine-api") if _leads(member)]
        return bool(leaders)

    wait_until(found, "a process to follow runs", 60)
    process = leaders[0].process
    assert process is not None
    process.suspend()
    try:
        yield
    finally:
        process.resume()


@contextmanager
def _clock_ahead(whole: Topology) -> Iterator[None]:
    member = members_of(whole, "spine-api")[0]
    usual, library = member.environment, whole.folder / "clock-ahead.so"
    if not shutil.which("cc"):
        raise NotPossible("this machine has no C compiler")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(CLOCK_AHEAD), "-ldl"], check=True)
    _kill(member)
    member.environment = {**usual, "LD_PRELOAD": str(library)}
    member.start()
    wait_until(member.answers, f"{member.name} to answer", SECONDS_TO_START)
    try:
        yield
    finally:
        _kill(member)
        member.environment = usual
        member.start()


def _own(server: Server | None) -> Server:
    if server is None:
        raise NotPossible("this machine has no programs of PostgreSQL and Redis")
    return server


# A request that was with a process when it was killed.
CUT = frozenset({"502"})
FAULTS = {
    # First those after which it takes longest until all is as it should be: a lost run is found after 90 s.
    "worker": Fault("worker, one of two killed", _killed("worker")),
    "machine": Fault("worker with its machine, one of two", _killed("worker", with_family=True)),
    "clock": Fault("clock of one Spine API 120 s ahead", _clock_ahead, CUT),
    "spine-api": Fault("Spine API, one of two killed", _killed("spine-api"), CUT),
    "prefect-api": Fault("Prefect API, one of two killed", _killed("prefect-api")),
    "prefect-apis": Fault("Prefect API, both killed", _killed("prefect-api", all_of_them=True)),
    "prefect-services": Fault("Prefect services killed", _killed("prefect-services")),
    "postgresql": Fault("PostgreSQL killed", _postgresql),
    "redis": Fault("Redis killed", _redis),
    "redis-memory": Fault("Redis killed, its memory lost", _redis_without_memory),
    "proxy": Fault("proxy killed", _proxy, frozenset({NO_CONNECTION})),
    "disk": Fault("disk of PostgreSQL full", _disk_full),
    "read-only": Fault("PostgreSQL read-only", _read_only),
    "leader": Fault("the leading Spine API frozen", _frozen_leader, CUT | {TIMEOUT}),
}
