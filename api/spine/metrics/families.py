"""The readings as families of metrics. A reading that failed is left out, and its part is reported as down."""

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import QueuePool

from spine.alerts.delivery_health import DeliveryHealth
from spine.database import SessionFactory
from spine.measures import CHANNEL_TYPES, OTHER
from spine.metrics.readings import CacheUse, Readings
from spine.oddities import ODDITIES
from spine.run_history.lag import Lag
from spine.table_revisions import newest_revision

Metrics = Iterator[Metric]


class SharedState(Collector):
    """What is the same in every API process, as far as it could be read."""

    def __init__(self, readings: Readings) -> None:
        self._readings = readings

    def collect(self) -> Metrics:
        """All gauges and counters."""
        found = self._readings
        up = GaugeMetricFamily("spine_dependency_up", "1: this process could read it for this scrape.", labels=["part"])
        up.add_metric(["database"], float(found.revision is not None))
        up.add_metric(["prefect"], float(found.silent_runs is not None))
        yield up
        if found.revision is not None and found.revision.isdigit():
            yield GaugeMetricFamily("spine_schema_version", "The revision of the tables.", int(found.revision))
        yield GaugeMetricFamily(
            "spine_schema_version_needed", "The revision that this release needs.", int(newest_revision())
        )
        if found.deliveries is not None:
            yield from _deliveries(found.deliveries)
        if found.lag is not None:
            yield from _lag(found.lag)
        if found.fetches is not None:
            fetches = GaugeMetricFamily(
                "spine_fetches_last_hour", "Fetches requested within the last hour.", labels=["status"]
            )
            for status, count in found.fetches.items():
                fetches.add_metric([status.value], count)
            yield fetches
        if found.cache is not None:
            yield from _cache(found.cache)
        if found.silent_runs is not None:
            name, what = "spine_runs_without_heartbeat", "Runs in progress that emitted no heartbeat for nine minutes."
            yield GaugeMetricFamily(name, what, found.silent_runs)
        if found.workers is not None:
            yield GaugeMetricFamily("spine_workers_online", "Online workers of SPINE_WORK_POOL.", found.workers)


class OwnState(Collector):
    """What belongs to this process: its connections, whether it follows, and the records that it has set aside."""

    def __init__(self, sessions: SessionFactory, *, leads: bool) -> None:
        self._sessions = sessions
        self._leads = leads

    def collect(self) -> Metrics:
        """All gauges."""
        yield GaugeMetricFamily("spine_follower_leader", "1: this process follows runs.", float(self._leads))
        pool = self._sessions.kw["bind"].sync_engine.pool
        if isinstance(pool, QueuePool):
            connections = GaugeMetricFamily(
                "spine_database_connections", "Connections of this process's pool.", labels=["state"]
            )
            connections.add_metric(["in_use"], pool.checkedout())
            connections.add_metric(["idle"], pool.checkedin())
            yield connections
            name, what = "spine_database_connections_max", "The most connections that the pool opens."
            yield GaugeMetricFamily(name, what, pool.size())
        aside = GaugeMetricFamily(
            "spine_records_set_aside", "Records that could not be read as the others, last hour.", labels=["kind"]
        )
        for kind, count in Counter(one.kind for one in ODDITIES.recent()).items():
            aside.add_metric([kind], count)
        yield aside


def _deliveries(health: DeliveryHealth) -> Metrics:
    yield GaugeMetricFamily("spine_alert_deliveries_pending", "Deliveries that are pending.", health.pending)
    name, what = "spine_alert_deliveries_oldest_pending_seconds", "Age of the oldest pending delivery."
    yield GaugeMetricFamily(name, what, health.oldest_pending_seconds)
    name, what = "spine_alert_deliveries_overdue_seconds", "How long the first delivery that is due has been due."
    yield GaugeMetricFamily(name, what, health.overdue_seconds)
    name, what = "spine_alert_deliveries_given_up_last_hour", "Deliveries that were abandoned in the last hour."
    yield GaugeMetricFamily(name, what, health.abandoned)
    failing = GaugeMetricFamily(
        "spine_alert_channels_failing",
        "Enabled channels that have failed ten times or more in a row.",
        labels=["channel_type"],
    )
    # Each type has a series, so that a graph shows a zero and not a gap.
    known = Counter(dict.fromkeys(sorted(CHANNEL_TYPES), 0))
    for channel_type, count in health.failing_by_type.items():
        known[channel_type if channel_type in CHANNEL_TYPES else OTHER] += count
    for channel_type, count in known.items():
        failing.add_metric([channel_type], count)
    yield failing


def _lag(lag: Lag) -> Metrics:
    name, what = "spine_follower_lag_seconds", "Age of the first ended run that is not recorded."
    yield GaugeMetricFamily(name, what, lag.seconds)
    yield GaugeMetricFamily("spine_follower_runs_behind", "Ended runs that are not recorded.", lag.runs)
    yield GaugeMetricFamily("spine_follower_has_leader", "1: a process follows runs.", float(lag.is_followed))


def _cache(use: CacheUse) -> Metrics:
    yield GaugeMetricFamily("spine_cache_entries", "Entries of the cache.", use.entries)
    yield GaugeMetricFamily("spine_cache_bytes", "Bytes of content in the cache.", use.bytes)
    reads = CounterMetricFamily("spine_cache_reads", "Reads of current content.", labels=["result"])
    reads.add_metric(["hit"], use.hits)
    reads.add_metric(["miss"], use.misses)
    yield reads
