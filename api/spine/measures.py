"""What this process counts and measures of itself, for `/metrics`.

Every label has few values, all known here: no name, id, address or text of a client ever becomes one.
"""

from functools import cache

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics

# Each counter would have a second series with the time at which it was made.
disable_created_metrics()  # type: ignore[no-untyped-call]

# From a read of one row to the deadline of a request for all its calls to Prefect.
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
CHANNEL_TYPES = frozenset({"slack", "email", "servicenow", "webhook", "pagerduty", "teams", "discord", "apprise"})
OTHER = "other"
# The route of a request whose path and method no route has.
UNMATCHED = "unmatched"

# The results of a call, which all have a series from the start: a rate needs the zero before the first error.
CALL_RESULTS = ("ok", "not_found", "refused", "conflict", "unavailable")


class _Measures:
    """The counters of a process. They read the clock when they are made, so importing this module makes none of them:
    the worker shares what an import has made only if it is the same at any time.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter("http_requests", "Requests that were answered.", ["method", "route", "status"])
        self.request_seconds = self._histogram(
            "http_request_duration_seconds", "Time from a request to the end of its answer.", ["method", "route"]
        )
        self.prefect_calls = self._counter("prefect_calls", "Calls to Prefect's API by their result.", ["result"])
        self.prefect_seconds = self._histogram("prefect_call_duration_seconds", "Time of calls to Prefect's API.", [])
        self.attempts = self._counter(
            "alert_delivery_attempts",
            "Attempts of this process to deliver an alert: sent, failed (tried again), or refused (never accepted).",
            ["channel_type", "result"],
        )
        for result in CALL_RESULTS:
            self.prefect_calls.labels(result)

    def _counter(self, name: str, text: str, labels: list[str]) -> Counter:
        return Counter(f"spine_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, labels: list[str]) -> Histogram:
        return Histogram(f"spine_{name}", text, labels, buckets=_SECONDS, registry=self.registry)


@cache
def _measures() -> _Measures:
    return _Measures()


def own_registry() -> CollectorRegistry:
    """What Prometheus reads of this process."""
    return _measures().registry


def request_answered(method: str, route: str | None, status: int, seconds: float) -> None:
    """Count a request; `route` is the path of its route with `{...}` for parameters."""
    known, path = method if method in METHODS else OTHER, (route or UNMATCHED).rstrip("/")
    _measures().requests.labels(known, path, str(status)).inc()
    _measures().request_seconds.labels(known, path).observe(seconds)


def prefect_called(result: str, seconds: float) -> None:
    """Count a call to Prefect's API; `result` is one of `CALL_RESULTS`."""
    _measures().prefect_calls.labels(result).inc()
    _measures().prefect_seconds.observe(seconds)


def delivery_attempted(channel_type: str, *, sent: bool, permanent: bool) -> None:
    """Count an attempt to deliver an alert."""
    result = "sent" if sent else "refused" if permanent else "failed"
    _measures().attempts.labels(channel_type if channel_type in CHANNEL_TYPES else OTHER, result).inc()
