"""Traces: a request, its calls to Prefect, and the run that it starts are one trace."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.telemetry.run_telemetry import RunTelemetry
from spine.tracing import RUN_LABEL, exporting, request_span

from tests.support.api_here import api_here
from tests.support.processes import wait_until
from tests.support.stack import Api, PrefectStack
from tests.support.web import serving

# Of a caller that traces, too.
TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{CALLER}-01"


@contextmanager
def collector(spans: list[Any]) -> Iterator[str]:
    """A server that takes spans as OTLP over HTTP."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            request = ExportTraceServiceRequest.FromString(body)
            spans.extend(span for one in request.resource_spans for scope in one.scope_spans for span in scope.spans)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    with serving(server):
        yield f"http://127.0.0.1:{server.server_port}"


@pytest.fixture(scope="module")
def traced(stack: PrefectStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Api, list[Any]]]:
    """An API that exports its traces, and the spans that have arrived."""
    pytest.importorskip("opentelemetry.sdk.trace")
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    spans: list[Any] = []
    with collector(spans) as url, pytest.MonkeyPatch.context() as patched:
        patched.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        patched.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        with api_here(stack.url, stack.home, tmp_path_factory.mktemp("traced")) as api:
            yield api, spans


def test_without_an_endpoint_nothing_is_traced() -> None:
    threads = threading.active_count()
    with exporting({}), request_span("GET", TRACEPARENT) as span:
        assert span is None
    assert threading.active_count() == threads


def test_a_request_its_calls_and_the_run_that_it_starts_are_one_trace(
    traced: tuple[Api, list[Any]], stack: PrefectStack
) -> None:
    api, spans = traced
    workflow = stack.copy_deployment("demo.typed")
    body = {"params": {"day": "2025-12-12", "tier": "A"}}
    started = api.client.post(f"/workflows/trigger/{workflow}", json=body, headers={"traceparent": TRACEPARENT})
    assert started.status_code == 201, started.text

    def of_trace() -> dict[str, Any]:
        return {span.name: span for span in spans if span.trace_id.hex() == TRACE}

    name = "POST /api/v1/workflows/trigger/{workflow_name}"
    wait_until(lambda: name in of_trace(), "the span of the request", 20)
    request = of_trace()[name]
    assert request.parent_span_id.hex() == CALLER
    attributes = {one.key: one.value for one in request.attributes}
    assert attributes["http.response.status_code"].int_value == 201
    assert attributes["spine.request_id"].string_value == started.headers["X-Request-ID"]
    created = of_trace()["Prefect POST /deployments/{id}/create_flow_run"]
    assert created.parent_span_id == request.span_id
    assert workflow not in " ".join(of_trace())
    parent = asyncio.run(_parent_of_run(stack, started.json()["run_id"]))
    assert parent == (int(TRACE, 16), int(request.span_id.hex(), 16))


async def _parent_of_run(stack: PrefectStack, run_id: str) -> tuple[int, int]:
    """The trace and the span below which Prefect's engine puts the run."""
    from opentelemetry.sdk.trace import TracerProvider

    with temporary_settings({PREFECT_API_URL: stack.url}):
        async with get_client() as client:
            run = await client.read_flow_run(run_id)  # type: ignore[arg-type]
            assert RUN_LABEL in run.labels
            telemetry = RunTelemetry(_tracer=TracerProvider().get_tracer("engine"))
            span: Any = await telemetry.async_start_span(run, client)
    return span.parent.trace_id, span.parent.span_id


@pytest.mark.slow
def test_a_collector_that_is_out_of_reach_stops_nothing(stack: PrefectStack, tmp_path: Path) -> None:
    pytest.importorskip("opentelemetry.sdk.trace")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
        with api_here(stack.url, stack.home, tmp_path) as api:
            assert api.client.get("/sources").status_code == 200
