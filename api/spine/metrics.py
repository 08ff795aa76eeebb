"""`/metrics` for Prometheus; no credential needed."""

from collections.abc import Iterator

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from spine.alerts.delivery_health import DeliveryHealth, read_delivery_health
from spine.http.dependencies import SessionsDep

router = APIRouter(tags=["health"])


class _Alerts(Collector):
    """The state of deliveries, which is the same in every API process."""

    def __init__(self, health: DeliveryHealth) -> None:
        self._health = health

    def collect(self) -> Iterator[Metric]:
        """All gauges."""
        health = self._health
        yield GaugeMetricFamily("spine_alert_deliveries_pending", "Deliveries that are pending.", health.pending)
        yield GaugeMetricFamily(
            "spine_alert_deliveries_oldest_pending_seconds",
            "Age of the oldest pending delivery.",
            health.oldest_pending_seconds,
        )
        yield GaugeMetricFamily(
            "spine_alert_deliveries_given_up_last_hour",
            "Deliveries that were abandoned in the last hour.",
            health.abandoned,
        )
        failures = GaugeMetricFamily(
            "spine_alert_channel_consecutive_failures", "Consecutive failed attempts.", labels=["channel"]
        )
        for name, count in health.failures.items():
            failures.add_metric([name], count)
        yield failures


@router.get("/metrics", operation_id="metrics", response_class=Response)
async def metrics(sessions: SessionsDep) -> Response:
    """Show the state of alert deliveries, in Prometheus's text format."""
    registry = CollectorRegistry()
    registry.register(_Alerts(await read_delivery_health(sessions)))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
