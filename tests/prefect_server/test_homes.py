"""Homes on SQLite under Spine's start of Prefect's server: new ones, those of plain Prefect, and after SIGKILL."""

import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock
from typing import Any
from uuid import uuid4

import httpx
import psutil
import pytest

from tests.support.prefect_processes import STOCK, prefect_environment, prefect_server
from tests.support.processes import free_port, wait_until
from tests.support.stack import PrefectStack

pytestmark = pytest.mark.slow

CLIENTS, KILLS, ANSWERS_BEFORE_A_KILL = 8, 3, 150
OWN = ("spine.prefect_server",)


def new_home(folder: Path) -> PrefectStack:
    """A home for a server on a free port; nothing is started."""
    # Prefect's migrations write constraints in the order of a set, which depends on the seed.
    environment = {**prefect_environment(folder / "prefect", free_port()), "PYTHONHASHSEED": "0"}
    return PrefectStack(environment["PREFECT_API_URL"], folder, environment)


def database_of(home: PrefectStack) -> Path:
    return home.home / "prefect" / "prefect.db"


def schema_of(home: PrefectStack) -> list[Any]:
    with closing(sqlite3.connect(database_of(home))) as database:
        found = database.execute("SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_master ORDER BY 1, 2")
        # The constraints of a table are in no certain order.
        return [(*row, sorted(line.strip(" ,\t") for line in sql.splitlines())) for *row, sql in found]


def integrity_of(home: PrefectStack) -> list[Any]:
    with closing(sqlite3.connect(database_of(home))) as database:
        return [*database.execute("PRAGMA integrity_check"), *database.execute("PRAGMA foreign_key_check")]


def test_a_new_database_is_as_prefect_makes_it(tmp_path: Path) -> None:
    schemas = []
    for module in (OWN, STOCK):
        folder = tmp_path / module[0]
        folder.mkdir()
        home = new_home(folder)
        with prefect_server(home.environment, folder / "server.log", module):
            pass
        assert integrity_of(home) == [("ok",)]
        schemas.append(schema_of(home))
    assert len(schemas[0]) > 100
    assert schemas[0] == schemas[1]


@dataclass
class Written:
    """What clients have written and the server has answered, until the server is killed."""

    home: PrefectStack
    flow: str
    stopped: Event = field(default_factory=Event)
    lock: Lock = field(default_factory=Lock)
    variables: dict[str, str] = field(default_factory=dict)
    # The last state of each run that was answered, and those that were sent last, of which no answer is known.
    states: dict[str, str] = field(default_factory=dict)
    sent: dict[str, str] = field(default_factory=dict)

    @property
    def answers(self) -> int:
        return len(self.variables) + len(self.states)

    def write(self, client: int) -> None:
        """Create variables and runs, and move the runs on, until the server is gone."""
        with httpx.Client(base_url=self.home.url, timeout=60) as http:
            number = 0
            while not self.stopped.is_set():
                number += 1
                try:
                    self._variable(http, f"v_{client}_{number}_{uuid4().hex}")
                    self._run(http)
                except httpx.TransportError:
                    return

    def _variable(self, http: httpx.Client, name: str) -> None:
        answer = http.post("/variables/", json={"name": name, "value": name[::-1]})
        assert answer.status_code == 201, answer.text
        with self.lock:
            self.variables[name] = name[::-1]

    def _run(self, http: httpx.Client) -> None:
        answer = http.post("/flow_runs/", json={"flow_id": self.flow, "state": {"type": "PENDING"}})
        assert answer.status_code == 201, answer.text
        run = answer.json()["id"]
        with self.lock:
            self.states[run] = "PENDING"
        for state in ("RUNNING", "COMPLETED"):
            with self.lock:
                self.sent[run] = state
            answer = http.post(f"/flow_runs/{run}/set_state", json={"state": {"type": state}})
            assert answer.status_code in (200, 201), answer.text
            assert answer.json()["status"] == "ACCEPT"
            with self.lock:
                self.states[run] = state

    def lost(self) -> list[str]:
        """What was answered and is not stored."""
        lost = [
            name for name, value in self.variables.items() if self._read(f"/variables/name/{name}", "value") != value
        ]
        for run, state in self.states.items():
            if self._read(f"/flow_runs/{run}", "state_type") not in (state, self.sent.get(run)):
                lost.append(run)
        return lost

    def _read(self, path: str, key: str) -> Any:
        answer = self.home.http.get(f"{self.home.url}{path}")
        return answer.json()[key] if answer.is_success else None


def killed_under_load(server: psutil.Popen, written: Written, answers: int) -> None:
    """Let clients write at once, and kill the server when it has answered so many."""
    with ThreadPoolExecutor(CLIENTS) as clients:
        writing = [clients.submit(written.write, client) for client in range(CLIENTS)]
        wait_until(lambda: written.answers >= answers or any(one.done() for one in writing), "answers", 300, 0.01, 0.01)
        for process in [server, *server.children(recursive=True)]:
            process.kill()
        written.stopped.set()
        for one in writing:
            one.result()
    assert written.answers >= answers


def test_a_server_that_is_killed_under_load_loses_nothing_that_it_has_answered(tmp_path: Path) -> None:
    home, log = new_home(tmp_path), tmp_path / "server.log"
    rounds: list[Written] = []
    for number in range(KILLS):
        with prefect_server(home.environment, log) as server:
            assert [one.lost() for one in rounds] == [[]] * number
            rounds.append(Written(home, home.flow_id("loaded")))
            killed_under_load(server, rounds[-1], ANSWERS_BEFORE_A_KILL)
            server.wait(10)
        # Nothing has the file open: SQLite restores it from its log when it is opened here.
        assert integrity_of(home) == [("ok",)]
    with prefect_server(home.environment, log):
        assert [one.lost() for one in rounds] == [[]] * KILLS
        one_more = home.make_run(rounds[0].flow)
        assert home.get(f"/flow_runs/{one_more}")["state_type"] == "COMPLETED"


def make_one_of_each(home: PrefectStack, name: str) -> Callable[[], dict[str, Any]]:
    """Make objects of several kinds in Prefect; gives a function that reads them as they are now."""
    flow = home.flow_id(name)
    home.post("/work_pools/", {"name": name, "type": "process"})
    deployment = home.post("/deployments/", {"name": name, "flow_id": flow, "work_pool_name": name, "tags": [name]})
    run = home.make_run(flow, deployment_id=deployment["id"], parameters={"of": name})
    home.post("/variables/", {"name": name, "value": {"of": name}})
    home.post("/v2/concurrency_limits/", {"name": name, "limit": 3})
    expected = {"type": "event", "expect": ["never"], "posture": "Reactive", "threshold": 1, "within": 0}
    automation = home.post(
        "/automations/", {"name": name, "trigger": expected, "actions": [{"type": "do-nothing"}], "enabled": True}
    )
    paths = {
        "deployment": (f"/deployments/{deployment['id']}", ("name", "tags", "work_pool_name")),
        "run": (f"/flow_runs/{run}", ("state_type", "parameters", "deployment_id")),
        "variable": (f"/variables/name/{name}", ("value",)),
        "limit": (f"/v2/concurrency_limits/{name}", ("limit", "active_slots")),
        "automation": (f"/automations/{automation['id']}", ("name", "trigger", "actions", "enabled")),
    }
    return lambda: {
        kind: {key: found[key] for key in keys} for kind, (path, keys) in paths.items() for found in [home.get(path)]
    }


def test_a_home_of_plain_prefect_continues_under_spine_and_back(tmp_path: Path) -> None:
    home, log = new_home(tmp_path), tmp_path / "server.log"
    reads: list[tuple[Callable[[], dict[str, Any]], dict[str, Any]]] = []
    schemas = []
    for number, module in enumerate((STOCK, OWN, STOCK)):
        with prefect_server(home.environment, log, module):
            assert [read() for read, _ in reads] == [made for _, made in reads]
            read = make_one_of_each(home, f"of_{number}")
            reads.append((read, read()))
        assert integrity_of(home) == [("ok",)]
        schemas.append(schema_of(home))
    assert schemas[0] == schemas[1] == schemas[2]
