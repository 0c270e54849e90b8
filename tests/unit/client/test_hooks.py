"""Ready-made hooks: the log, Prometheus, OpenTelemetry."""

import gc
import logging
import sys
import time
import weakref

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client import CollectorRegistry, generate_latest

from tritonkit.client.events import RequestEnded, RequestRetried, ServerBack, ServerRested
from tritonkit.client.hooks import log_events, opentelemetry_hook, prometheus_hook
from tritonkit.errors import InputError

A = "grpc://a:8001"
ANSWERED = RequestEnded("ranker", "2", A, rows=3, tries=1, latency_s=0.0123, request_id="r7")
FAILED = RequestEnded("ranker", "", A, rows=3, tries=2, latency_s=1.0, error="timeout")
RETRIED = RequestRetried("ranker", A, tried=1, wait_s=0.05, error="closed")
RESTED = ServerRested(A, for_s=2.0, error="refused")
BACK = ServerBack(A)


@pytest.mark.parametrize(
    ("event", "level", "line"),
    [
        (
            ANSWERED,
            logging.DEBUG,
            f"ranker version 2: request r7 answered at {A} in 12.3 ms, rows: 3, tries: 1",
        ),
        (
            FAILED,
            logging.WARNING,
            f"ranker: failed (timeout) at {A} in 1000.0 ms, rows: 3, tries: 2",
        ),
        (RETRIED, logging.WARNING, f"ranker: try 1 failed at {A} (closed); the next in 50 ms"),
        (RESTED, logging.WARNING, f"{A} failed (refused); no requests to it for 2.0 s"),
        (BACK, logging.DEBUG, f"{A} gets requests again"),
    ],
)
def test_log_line(caplog, event, level, line):
    """Each event is one line; failures are warnings, all else is for debugging."""
    caplog.set_level(logging.DEBUG, "tritonkit.client")
    log_events()(event)
    assert caplog.record_tuples == [("tritonkit.client", level, line)]


def test_log_levels_and_logger(caplog):
    """The logger and both levels can be chosen."""
    caplog.set_level(logging.DEBUG, "mine")
    hook = log_events(logging.getLogger("mine"), level=logging.INFO, failure_level=logging.ERROR)
    hook(ANSWERED)
    hook(FAILED)
    assert [(r.name, r.levelno) for r in caplog.records] == [
        ("mine", logging.INFO),
        ("mine", logging.ERROR),
    ]


def test_prometheus_requests():
    """Requests are counted by model and error, and timed by model."""
    registry = CollectorRegistry()
    hook = prometheus_hook(registry)
    for event in (ANSWERED, ANSWERED, FAILED):
        hook(event)

    def value(name, **labels):
        return registry.get_sample_value(f"tritonkit_client_{name}", {"model": "ranker", **labels})

    assert value("requests_total", error="") == 2
    assert value("requests_total", error="timeout") == 1
    assert value("request_seconds_count") == 3
    assert value("request_seconds_bucket", le="0.025") == 2
    assert value("request_seconds_sum") == pytest.approx(1.0246)


def test_prometheus_servers():
    """Retries and rests are counted, and a server rests until it is back."""
    registry = CollectorRegistry()
    hook = prometheus_hook(registry)
    hook(RETRIED)
    hook(RESTED)

    def resting():
        return registry.get_sample_value("tritonkit_client_server_resting", {"address": A})

    assert resting() == 1
    hook(BACK)
    assert resting() == 0
    text = generate_latest(registry).decode()
    assert 'tritonkit_client_retries_total{error="closed",model="ranker"} 1.0' in text
    assert f'tritonkit_client_server_rests_total{{address="{A}",error="refused"}} 1.0' in text


def test_prometheus_twice():
    """Two hooks on one registry count together."""
    registry = CollectorRegistry()
    for _ in range(2):
        prometheus_hook(registry)(FAILED)
    labels = {"model": "ranker", "error": "timeout"}
    assert registry.get_sample_value("tritonkit_client_requests_total", labels) == 2


def test_prometheus_default_registry():
    """Without a registry it is prometheus_client's own."""
    prometheus_hook()(RequestEnded("only here", "", A, 1, 1, 0.1))
    assert b'model="only here"' in generate_latest()


def test_prometheus_keeps_no_registry():
    """A registry that nobody else needs is not kept alive."""
    registry = CollectorRegistry()
    prometheus_hook(registry)(FAILED)
    gone = weakref.ref(registry)
    del registry
    gc.collect()
    assert gone() is None


@pytest.fixture
def spans():
    """A tracer, and the exporter that keeps its ended spans."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider.get_tracer("test"), exporter
    provider.shutdown()


def test_span_of_an_answer(spans):
    """An answered request is a client span as long as its latency, with its attributes."""
    tracer, exporter = spans
    before_ns = time.time_ns()
    opentelemetry_hook(tracer)(ANSWERED)
    (span,) = exporter.get_finished_spans()
    assert (span.name, span.kind) == ("infer ranker", SpanKind.CLIENT)
    assert span.end_time - span.start_time == 12_300_000
    assert before_ns <= span.end_time <= time.time_ns()
    assert span.status.status_code == StatusCode.UNSET
    assert dict(span.attributes) == {
        "tritonkit.model": "ranker",
        "tritonkit.version": "2",
        "tritonkit.address": A,
        "tritonkit.request_id": "r7",
        "tritonkit.rows": 3,
        "tritonkit.tries": 1,
    }


def test_span_of_a_failure(spans):
    """A failed request's span has the status ERROR and the error's kind."""
    tracer, exporter = spans
    opentelemetry_hook(tracer)(FAILED)
    (span,) = exporter.get_finished_spans()
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "timeout")
    assert span.attributes["error.type"] == "timeout"


def test_span_parent(spans):
    """The span belongs to the one that is current where the request was made."""
    tracer, exporter = spans
    with tracer.start_as_current_span("handler") as parent:
        opentelemetry_hook(tracer)(ANSWERED)
    span = exporter.get_finished_spans()[0]
    assert span.parent.span_id == parent.get_span_context().span_id


def test_only_requests_are_spans(spans):
    """Retries and rests make no spans of their own."""
    tracer, exporter = spans
    for event in (RETRIED, RESTED, BACK):
        opentelemetry_hook(tracer)(event)
    assert exporter.get_finished_spans() == ()


def test_without_a_provider():
    """With no tracer and no provider set up, a request still passes."""
    opentelemetry_hook()(ANSWERED)


def test_opentelemetry_missing(monkeypatch):
    """Without the package the error says what to install."""
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(InputError, match="pip install opentelemetry-api"):
        opentelemetry_hook()
