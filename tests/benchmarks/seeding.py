"""Thousands of stored runs for the benchmarks, made by copying one run inside Prefect's SQLite file.

Storing 5,000 runs with three task runs each over Prefect's API takes ten minutes; the copies are the same rows.
"""

import json
import sqlite3
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

STAMP = "%Y-%m-%d %H:%M:%S.%f"
TIMES = {"start_time", "end_time", "expected_start_time", "created", "updated", "timestamp", "state_timestamp"}

Row = dict[str, Any]


def copy_run(database: Path, run_id: str, times: int) -> None:
    """Store `times` copies of a finished run with its task runs and states, each a second older than the last.

    The Prefect server must not be running.
    """
    connection = sqlite3.connect(database)
    connection.row_factory = sqlite3.Row
    run = _rows(connection, "flow_run", "id", run_id)[0]
    run_states = _rows(connection, "flow_run_state", "flow_run_id", run_id)
    tasks = _rows(connection, "task_run", "flow_run_id", run_id)
    task_states = {task["id"]: _rows(connection, "task_run_state", "task_run_id", task["id"]) for task in tasks}
    with connection:
        for number in range(times):
            shift = timedelta(minutes=10, seconds=number)
            new_run = str(uuid4())
            _copy(connection, "flow_run", run, run_states, "flow_run_state", "flow_run_id", new_run, shift)
            for task in tasks:
                owner = {**task, "flow_run_id": new_run, "dynamic_key": uuid4().hex}
                states = task_states[task["id"]]
                _copy(connection, "task_run", owner, states, "task_run_state", "task_run_id", str(uuid4()), shift)
    connection.close()


def copy_schedule(database: Path, deployment_id: str, run_id: str, times: int, runs_each: int) -> None:
    """Store `times` copies of a schedule, each at another minute of the day, each with copies of a finished run.

    The Prefect server must not be running.
    """
    connection = sqlite3.connect(database)
    connection.row_factory = sqlite3.Row
    deployment = _rows(connection, "deployment", "id", deployment_id)[0]
    row = _rows(connection, "deployment_schedule", "deployment_id", deployment_id)[0]
    run = _rows(connection, "flow_run", "id", run_id)[0]
    states = _rows(connection, "flow_run_state", "flow_run_id", run_id)
    with connection:
        for number in range(times):
            copy_id, name = str(uuid4()), f"copy-{number:05}"
            labels = json.dumps({**json.loads(deployment["labels"]), "spine.schedule": name})
            made = {**deployment, "id": copy_id, "name": name, "labels": labels, "concurrency_limit_id": None}
            age = timedelta(seconds=number)
            _insert(connection, "deployment", made, age)
            timing = json.dumps({"cron": f"{number % 60} {number % 24} * * *", "timezone": "America/New_York"})
            schedule = {**row, "id": str(uuid4()), "deployment_id": copy_id, "schedule": timing}
            _insert(connection, "deployment_schedule", schedule, age)
            for earlier in range(runs_each):
                shift = timedelta(days=earlier, seconds=number)
                owned = {**run, "deployment_id": copy_id}
                _copy(connection, "flow_run", owned, states, "flow_run_state", "flow_run_id", str(uuid4()), shift)
    connection.close()


def _rows(connection: sqlite3.Connection, table: str, column: str, value: str) -> list[Row]:
    found = connection.execute(f"SELECT * FROM {table} WHERE {column} = ?", [value])  # noqa: S608 - our own names
    return [dict(row) for row in found]


def _copy(
    connection: sqlite3.Connection,
    table: str,
    row: Row,
    states: list[Row],
    state_table: str,
    state_owner: str,
    new_id: str,
    shift: timedelta,
) -> None:
    state_ids = {state["id"]: str(uuid4()) for state in states}
    unique = {"idempotency_key": None} if "idempotency_key" in row else {}
    new_state = {"state_id": state_ids.get(row["state_id"])}
    _insert(connection, table, {**row, "id": new_id, **unique, **new_state}, shift)
    for state in states:
        _insert(connection, state_table, {**state, "id": state_ids[state["id"]], state_owner: new_id}, shift)


def _insert(connection: sqlite3.Connection, table: str, row: Row, shift: timedelta) -> None:
    shifted = {key: _earlier(value, shift) if key in TIMES and value else value for key, value in row.items()}
    columns, marks = ", ".join(shifted), ", ".join("?" * len(shifted))
    connection.execute(f"INSERT INTO {table} ({columns}) VALUES ({marks})", list(shifted.values()))  # noqa: S608


def _earlier(stamp: str, shift: timedelta) -> str:
    return (datetime.strptime(stamp, STAMP) - shift).strftime(STAMP)
