"""The rows about reading among very many alerts, on PostgreSQL."""

import asyncio
import time
from datetime import timedelta

import httpx
import psycopg
from spine.tables.base import utc_now

from tests.benchmarks.bench import Bench
from tests.benchmarks.conditions import POSTGRESQL
from tests.benchmarks.figures import Row, middle
from tests.support.stack import ADMIN_KEY, Api
from tests.support.web import PLAIN

_WARMING_UP = 2


def measure_stored(bench: Bench, api: Api, database_url: str) -> None:
    """Add the rows about lists and statistics."""
    _fill(database_url, bench.scale.stored_alerts)
    asyncio.run(_measure(bench, api.url))


def _fill(database_url: str, count: int) -> None:
    """So many alerts over thirty days with one delivery each, by PostgreSQL itself."""
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
            {"n": count},
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


async def _measure(bench: Bench, url: str) -> None:
    since = (utc_now() - timedelta(days=1)).isoformat()
    asked: dict[str, tuple[str, dict[str, str]]] = {
        "list of 20": ("/alerts", {}),
        "list of 20, severity and source": ("/alerts", {"severity": "ERROR", "source": "source-10"}),
        "list of 100, domain, last day": ("/alerts", {"domain": "domain.7", "since": since, "limit": "100"}),
        "statistics of a day": ("/alerts/stats", {"period": "day"}),
        "statistics of a month": ("/alerts/stats", {"period": "month"}),
    }
    headers = {"X-API-Key": ADMIN_KEY}
    async with httpx.AsyncClient(base_url=f"{url}/api/v1", headers=headers, timeout=60, verify=PLAIN) as client:
        for what, (path, query) in asked.items():
            spent = []
            for _ in range(bench.scale.rounds + _WARMING_UP):
                began = time.perf_counter()
                (await client.get(path, params=query)).raise_for_status()
                spent.append((time.perf_counter() - began) * 1000)
            name = f"{what}, {bench.scale.stored_alerts:,} alerts"
            bench.add(Row(name, middle(spent[_WARMING_UP:], "ms"), engine=POSTGRESQL))
