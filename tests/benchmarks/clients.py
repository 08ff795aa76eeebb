"""The rows about an API process that many clients use: how even its answers are, and whether its memory grows."""

from itertools import chain, cycle, islice

from tests.benchmarks.bench import Bench
from tests.benchmarks.conditions import SQLITE
from tests.benchmarks.figures import Figure, Row, at_most, percentile
from tests.benchmarks.wire import request, send_all
from tests.support.stack import ADMIN_KEY, Api

CLIENTS = 64
_TIMES = "times the median, p95"


def measure_clients(bench: Bench, api: Api, run_id: str) -> None:
    """Add the row about reads by many clients at once."""
    reads = ("workflows/runs?limit=20", f"workflows/runs/{run_id}", "workflows/definitions", "schedules", "alerts")
    requests = [request("GET", f"/api/v1/{path}", ADMIN_KEY) for path in reads]
    answers = send_all(api.url, islice(cycle(requests), bench.scale.reads), CLIENTS)
    statuses = {answer.status for answer in answers}
    assert statuses <= {200, 503}, statuses
    seconds = [answer.seconds for answer in answers if answer.status == 200]
    refused = len(answers) - len(seconds)
    p50, p95 = percentile(seconds, 50), percentile(seconds, 95)
    figures = (Figure(p50, "s"), Figure(p95, "s", "p95"), Figure(p95 / p50, "", _TIMES), Figure(refused, "", "refused"))
    aims = (at_most(5, _TIMES), at_most(0, "refused"))
    bench.add(Row(f"reads by {CLIENTS} clients", figures, aims=aims, engine=SQLITE))


def measure_growth(bench: Bench, api: Api) -> None:
    """Add the row about memory: requests of many kinds, after so many that all is loaded that will be."""
    send_all(api.url, islice(_requests(), bench.scale.requests // 10), CLIENTS)
    before = _megabytes(api)
    answers = send_all(api.url, islice(_requests(), bench.scale.requests), CLIENTS)
    statuses = {answer.status for answer in answers}
    assert statuses == {200, 401, 404, 422}, statuses
    figures = (Figure(_megabytes(api) - before, "MB"), Figure(before, "MB", "before"))
    what = f"growth of the API over {bench.scale.requests:,} requests"
    bench.add(Row(what, figures, aims=(at_most(5),), engine=SQLITE))


def _requests() -> "cycle[bytes]":
    """Requests without end; most are refused or answered at once, so that very many take little time."""
    cheap = (
        ("/health/live", None),
        ("/api/v1/alerts", None),
        ("/api/v1/alerts", "wrong"),
        ("/api/v1/alerts/unknown", ADMIN_KEY),
        ("/api/v1/alerts?limit=none", ADMIN_KEY),
    )
    many = islice(cycle(request("GET", path, key) for path, key in cheap), 100)
    few = (request("GET", f"/api/v1/{path}", ADMIN_KEY) for path in ("alerts", "alerts/channels", "workflows/runs"))
    return cycle(chain(many, few))


def _megabytes(api: Api) -> float:
    return float(api.process.memory_full_info().uss) / 1e6
