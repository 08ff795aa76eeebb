"""Traces: from a request, over its calls to Prefect, into the runs that it starts (OpenTelemetry).

There are none unless `OTEL_EXPORTER_OTLP_ENDPOINT` (or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`) is set and the packages of
`prefect-spine[otel]` are installed. The exporter reads the other `OTEL_*` variables itself.
"""

import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
# Prefect's engine puts the span of a run that has this label below the span that the label names.
RUN_LABEL = "__OTEL_TRACEPARENT"
# What has not been exported by then is lost: a collector that hangs must not keep the process from stopping.
SECONDS_TO_EXPORT_THE_REST = 2.0
_IDS = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

log = structlog.get_logger("spine.tracing")


class _Tracing:
    """The tracer of this process; None while nothing is traced."""

    tracer: "Tracer | None" = None


@contextmanager
def exporting(environ: Mapping[str, str] = os.environ) -> Iterator[None]:
    """Make and export traces while the block runs, if an endpoint is set."""
    provider = _provider(environ) if any(environ.get(name) for name in ENDPOINTS) else None
    if provider is None:
        yield
        return
    _Tracing.tracer = provider.get_tracer("spine", version("prefect-spine"))
    try:
        yield
    finally:
        _Tracing.tracer = None
        ending = threading.Thread(target=provider.shutdown, daemon=True)
        ending.start()
        ending.join(SECONDS_TO_EXPORT_THE_REST)


def _provider(environ: Mapping[str, str]) -> Any:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        log.warning("traces_not_exported", reason="install prefect-spine[otel]")
        return None
    provider = TracerProvider(resource=Resource.create({"service.name": environ.get("OTEL_SERVICE_NAME") or "spine"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


@contextmanager
def request_span(method: str, traceparent: str | None) -> "Iterator[Span | None]":
    """The span of a request, below the one that its header `traceparent` names; None while nothing is traced."""
    if _Tracing.tracer is None:
        yield None
        return
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    parent = TraceContextTextMapPropagator().extract({"traceparent": traceparent} if traceparent else {})
    with _Tracing.tracer.start_as_current_span(method, context=parent, kind=SpanKind.SERVER) as span:
        yield span


def request_ended(span: "Span | None", method: str, route: str | None, status: int, request_id: str) -> None:
    """Set what is known when a request has been answered."""
    if span is None:
        return
    from opentelemetry.trace import StatusCode

    span.update_name(f"{method} {route or ''}".strip())
    span.set_attribute("http.request.method", method)
    span.set_attribute("http.route", route or "")
    span.set_attribute("http.response.status_code", status)
    span.set_attribute("spine.request_id", request_id)
    if status >= 500:
        span.set_status(StatusCode.ERROR)


@contextmanager
def call_span(name: str) -> "Iterator[Span | None]":
    """The span of a call to Prefect's API; None while nothing is traced."""
    if _Tracing.tracer is None:
        yield None
        return
    from opentelemetry.trace import SpanKind

    with _Tracing.tracer.start_as_current_span(f"Prefect {_IDS.sub('{id}', name)}", kind=SpanKind.CLIENT) as span:
        yield span


def run_labels() -> dict[str, str]:
    """The label that puts a run below the present span; none while nothing is traced."""
    if _Tracing.tracer is None:
        return {}
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return {RUN_LABEL: carrier["traceparent"]} if "traceparent" in carrier else {}
