"""The rows about alerts: taking them in, sending them on, hearing of a failed run, and reading among a million."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from statistics import median
from uuid import UUID, uuid4

import apprise
import httpx
import psycopg
from spine.tables.base import utc_now
from sqlalchemy import create_engine, text

from tests.benchmarks.table import line as table_line
from tests.benchmarks.timing import row
from tests.run_history.support import Line
from tests.support.receivers import Receiver, receiver
from tests.support.stack import ADMIN_KEY, Api, PrefectStack

SENDS = 1_000
CLIENTS = 8
FAILURES = 40
MILLION = 1_000_000


def measure_sending(api: Api, database: str) -> None:
    """Alerts accepted and delivered per second, against Apprise alone in a loop over the same receiver."""
    with receiver() as desk:
        body = {"channel_type": "webhook", "config": {"url": desk.url}, "min_severity": "INFO", "throttle_minutes": 0}
        body["name"] = f"desk-{uuid4().hex[:6]}"
        channel = api.client.post("/alerts/channels", json=body).json()["id"]
        raw = _raw_rate(desk)
        desk.requests.clear()
        began = time.perf_counter()
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(lambda number: _raise(api, number), range(SENDS)))
        accepted = SENDS / (time.perf_counter() - began)
        desk.wait_for(SENDS, seconds=300)
        through = SENDS / (time.perf_counter() - began)
        table_line(f"alerts accepted per second, {database}", f"{accepted:.0f}")
        table_line(f"alerts accepted and delivered per second, {database}", f"{through:.0f}")
        # The outbox alone: what was accepted while the channel was off is sent when it is on again.
        api.client.patch(f"/alerts/channels/{channel}", json={"enabled": False})
        desk.requests.clear()
        _fill_outbox(api, channel)
        began = time.perf_counter()
        api.client.patch(f"/alerts/channels/{channel}", json={"enabled": True})
        desk.wait_for(SENDS, seconds=300)
        rate = SENDS / (time.perf_counter() - began)
        row(f"deliveries per second, {database}", rate, "Apprise.notify in a loop", raw, "/s", "≥ 0.7")
        api.client.delete(f"/alerts/channels/{channel}")


def _raise(api: Api, number: int) -> None:
    body = {"severity": "ERROR", "title": f"alert {number}", "message": "m", "source": "bench"}
    assert api.client.post("/alerts", json=body).status_code == 201


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


def _raw_rate(desk: Receiver) -> float:
    """Sends per second of Apprise's own JSON plugin, one after the other."""
    plain = apprise.Apprise()
    plain.add(f"json://127.0.0.1:{desk.port}/hook")
    began = time.perf_counter()
    for number in range(SENDS):
        assert plain.notify(title=f"alert {number}", body="m")
    return SENDS / (time.perf_counter() - began)


def measure_failures(api: Api, stack: PrefectStack) -> None:
    """From the failure of a run to the receiver."""
    with receiver() as desk:
        body = {"name": f"desk-{uuid4().hex[:6]}", "channel_type": "webhook", "config": {"url": desk.url}}
        api.client.post("/alerts/channels", json={**body, "throttle_minutes": 0})
        flow_id = stack.flow_id("bench.failing")
        deployment = stack.post("/deployments/", {"name": "bench.failing", "flow_id": flow_id})
        line = Line(stack, flow_id, UUID(deployment["id"]))
        spent = []
        for number in range(FAILURES):
            run_id = line.run_through("RUNNING")
            began = time.perf_counter()
            line.put(run_id, "FAILED")
            desk.wait_for(number + 1)
            spent.append(time.perf_counter() - began)
        told = f"{median(spent):.2f} s median, {max(spent):.2f} s at most"
        table_line(f"a run's failure to the receiver (n={FAILURES})", told, aim="≤ 2 s")


def fill_with_a_million(database_url: str) -> None:
    """A million alerts over thirty days with one delivery each, by PostgreSQL itself."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("DELETE FROM alerts")
        connection.execute(
            """
            INSERT INTO alerts (id, created_at, severity, title, message, source, domain)
            SELECT '01' || lpad(upper(to_hex(n)), 24, '0'), now() - interval '30 days' + n * interval '30 days' / %(n)s,
                   (ARRAY['INFO','WARNING','ERROR','CRITICAL'])[1 + n %% 4], 'title ' || n, 'message',
                   'source-' || n %% 50, CASE WHEN n %% 3 = 0 THEN NULL ELSE 'domain.' || n %% 20 END
            FROM generate_series(1, %(n)s) AS n
            """,
            {"n": MILLION},
        )
        connection.execute(
            """
            INSERT INTO alert_deliveries (id, alert_id, channel_id, channel_name, status, created_at, attempt,
                                          delivered_at, delivery_ms, held_back)
            SELECT id, id, '01CHANNEL', 'desk', CASE WHEN random() < 0.02 THEN 'FAILED' ELSE 'SENT' END, created_at, 1,
                   created_at + interval '1 second', 900 + (random() * 200)::int, 0
            FROM alerts
            """
        )
        connection.execute("VACUUM ANALYZE alerts, alert_deliveries")


async def measure_reading(url: str) -> None:
    """Lists and statistics among a million alerts."""
    since = (utc_now() - timedelta(days=1)).isoformat()
    asked: dict[str, tuple[str, dict[str, str]]] = {
        "list of 20, no filter": ("/alerts", {}),
        "list of 20, severity and source": ("/alerts", {"severity": "ERROR", "source": "source-10"}),
        "list of 100, domain, last day": ("/alerts", {"domain": "domain.7", "since": since, "limit": "100"}),
        "statistics of a day": ("/alerts/stats", {"period": "day"}),
        "statistics of a month": ("/alerts/stats", {"period": "month"}),
    }
    async with httpx.AsyncClient(base_url=f"{url}/api/v1", headers={"X-API-Key": ADMIN_KEY}, timeout=60) as client:
        for what, (path, query) in asked.items():
            spent = []
            for _ in range(12):
                began = time.perf_counter()
                response = await client.get(path, params=query)
                assert response.status_code == 200, response.text
                spent.append((time.perf_counter() - began) * 1000)
            table_line(f"{what}, 1,000,000 alerts, PostgreSQL", f"{median(spent[2:]):.1f} ms")


def show_plans(database_url: str) -> None:
    """How PostgreSQL answers the filtered page and the day's statistics."""
    asked = [
        "SELECT * FROM alerts WHERE severity='ERROR' AND source='source-10' ORDER BY id DESC LIMIT 20",
        "SELECT count(*) FROM alerts WHERE severity='ERROR' AND source='source-10'",
        "SELECT severity, source, domain, count(*) FROM alerts WHERE created_at >= now() - interval '1 day' "
        "GROUP BY 1, 2, 3",
        "SELECT count(*), avg(delivery_ms) FROM alert_deliveries WHERE created_at >= now() - interval '1 day'",
    ]
    with psycopg.connect(database_url) as connection:
        for one in asked:
            print(one)
            for (line,) in connection.execute(f"EXPLAIN (ANALYZE, COSTS OFF) {one}".encode()):
                print(f"    {line}")


def measure_million(api: Api, database_url: str) -> None:
    """All that is read among a million."""
    fill_with_a_million(database_url)
    asyncio.run(measure_reading(api.url))
    show_plans(database_url)
