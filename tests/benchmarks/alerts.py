"""The rows about alerts: taking them in, sending them on, and hearing of a failed run."""

import time
from uuid import UUID, uuid4

import apprise
from sqlalchemy import create_engine, text

from tests.benchmarks.bench import Bench
from tests.benchmarks.conditions import POSTGRESQL, SQLITE
from tests.benchmarks.figures import RATIO, Figure, Row, at_least, at_most, middle
from tests.benchmarks.prepared import OPEN, prepared_stack
from tests.benchmarks.stacks import durable_database
from tests.benchmarks.stored_alerts import measure_stored
from tests.benchmarks.wire import request, send_all
from tests.run_history.support import Line
from tests.support.receivers import Receiver, receiver
from tests.support.stack import ADMIN_KEY, FOLLOWING, Api, PrefectStack, api_process

CLIENTS = 16
ACCEPTED = {SQLITE: 250, POSTGRESQL: 400}


def measure(bench: Bench) -> None:
    """Add all rows, on SQLite and on PostgreSQL."""
    with prepared_stack(bench, "alerts") as (stack, api, _):
        _sending(bench, api, SQLITE)
        _failures(bench, api, stack)
        folder = bench.folder / "alerts-postgresql"
        with (
            durable_database() as database,
            api_process(stack.url, stack.home, folder, database, **FOLLOWING, **OPEN) as postgresql_api,
        ):
            _sending(bench, postgresql_api, POSTGRESQL)
            measure_stored(bench, postgresql_api, database)


def _sending(bench: Bench, api: Api, engine: str) -> None:
    """Alerts accepted and delivered per second, against Apprise alone in a loop over the same receiver."""
    count = bench.scale.alerts
    with receiver() as desk:
        body = {"channel_type": "webhook", "config": {"url": desk.url}, "min_severity": "INFO", "throttle_minutes": 0}
        channel = api.client.post("/alerts/channels", json={**body, "name": f"desk-{uuid4().hex[:6]}"}).json()["id"]
        began = time.perf_counter()
        answers = send_all(api.url, (_alert(number) for number in range(count)), CLIENTS)
        assert {answer.status for answer in answers} == {201}
        accepted = count / (time.perf_counter() - began)
        desk.wait_for(count, seconds=300)
        through = count / (time.perf_counter() - began)
        figures = (Figure(accepted, "/s"), Figure(through, "/s", "delivered too"))
        what = f"alerts accepted from {CLIENTS} clients"
        bench.add(Row(what, figures, aims=(at_least(ACCEPTED[engine]),), engine=engine))
        # The outbox alone: what was accepted while the channel was off is sent when it is on again.
        api.client.patch(f"/alerts/channels/{channel}", json={"enabled": False})
        _fill_outbox(api, channel)
        raw = _raw_rate(desk, count)
        desk.requests.clear()
        began = time.perf_counter()
        api.client.patch(f"/alerts/channels/{channel}", json={"enabled": True})
        desk.wait_for(count, seconds=300)
        rate = (Figure(count / (time.perf_counter() - began), "/s"),)
        aims = (at_least(0.8, RATIO),)
        bench.add(Row("deliveries", rate, "Apprise.notify in a loop", (Figure(raw, "/s"),), aims, engine))
        api.client.delete(f"/alerts/channels/{channel}")


def _alert(number: int) -> bytes:
    body = {"severity": "ERROR", "title": f"alert {number}", "message": "m", "source": "bench"}
    return request("POST", "/api/v1/alerts", ADMIN_KEY, body)


def _fill_outbox(api: Api, channel: str) -> None:
    """Let everything that was sent to a channel be due again."""
    url = api.settings.sqlalchemy_url.render_as_string(hide_password=False).replace("+aiosqlite", "")
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE alert_deliveries SET status='PENDING', due_at=created_at, attempt=0 WHERE channel_id=:channel"
            ),
            {"channel": channel},
        )
    engine.dispose()


def _raw_rate(desk: Receiver, count: int) -> float:
    """Sends per second of Apprise's own JSON plugin, one after the other."""
    plain = apprise.Apprise()
    plain.add(f"json://127.0.0.1:{desk.port}/hook")
    began = time.perf_counter()
    for number in range(count):
        assert plain.notify(title=f"alert {number}", body="m")
    return count / (time.perf_counter() - began)


def _failures(bench: Bench, api: Api, stack: PrefectStack) -> None:
    """From the failure of a run to the receiver."""
    with receiver() as desk:
        body = {"name": f"desk-{uuid4().hex[:6]}", "channel_type": "webhook", "config": {"url": desk.url}}
        api.client.post("/alerts/channels", json={**body, "throttle_minutes": 0})
        flow_id = stack.flow_id("bench.failing")
        deployment = stack.post("/deployments/", {"name": "bench.failing", "flow_id": flow_id})
        line = Line(stack, flow_id, UUID(deployment["id"]))
        spent = []
        for number in range(bench.scale.failures):
            run_id = line.run_through("RUNNING")
            began = time.perf_counter()
            line.put(run_id, "FAILED")
            desk.wait_for(number + 1)
            spent.append(time.perf_counter() - began)
        figures = (*middle(spent, "s"), Figure(max(spent), "s", "at most"))
        bench.add(Row("a run's failure to the receiver", figures, aims=(at_most(2, "at most"),), engine=SQLITE))
