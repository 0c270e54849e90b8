"""Ready-made hooks: a line in the log, Prometheus metrics, an OpenTelemetry span per request."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from typing import TYPE_CHECKING

from tritonkit.client.events import Event, Hook, RequestEnded, RequestRetried, ServerRested
from tritonkit.errors import InputError

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer
    from prometheus_client import CollectorRegistry

LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


def log_events(
    logger: logging.Logger | None = None,
    *,
    level: int = logging.DEBUG,
    failure_level: int = logging.WARNING,
) -> Hook:
    """One line per event. level: of what goes well. logger: "tritonkit.client" if not given."""
    log = logger or logging.getLogger("tritonkit.client")

    def hook(event: Event) -> None:
        at = failure_level if getattr(event, "error", "") else level
        if log.isEnabledFor(at):
            log.log(at, "%s", _line(event))

    return hook


def _line(event: Event) -> str:
    if isinstance(event, RequestEnded):
        version = f" version {event.version}" if event.version else ""
        request = f" request {event.request_id}" if event.request_id else ""
        outcome = f"failed ({event.error})" if event.error else "answered"
        return (
            f"{event.model}{version}:{request} {outcome} at {event.address} in "
            f"{event.latency_s * 1000:.1f} ms, rows: {event.rows}, tries: {event.tries}"
        )
    if isinstance(event, RequestRetried):
        return (
            f"{event.model}: try {event.tried} failed at {event.address} ({event.error}); the "
            f"next in {event.wait_s * 1000:.0f} ms"
        )
    if isinstance(event, ServerRested):
        return f"{event.address} failed ({event.error}); no requests to it for {event.for_s:.1f} s"
    return f"{event.address} gets requests again"


class _Metrics:
    """The metrics of one registry."""

    def __init__(self, registry: CollectorRegistry):
        from prometheus_client import Counter, Gauge, Histogram

        self.requests = Counter(
            "tritonkit_client_requests",
            "Requests that ended, by the kind of error; empty for those answered.",
            ["model", "error"],
            registry=registry,
        )
        self.seconds = Histogram(
            "tritonkit_client_request_seconds",
            "Time from the call to the answer or the error, retries included.",
            ["model"],
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.retries = Counter(
            "tritonkit_client_retries",
            "Tries that failed and were followed by another.",
            ["model", "error"],
            registry=registry,
        )
        self.rests = Counter(
            "tritonkit_client_server_rests",
            "Times that a server failed and was left out for a while.",
            ["address", "error"],
            registry=registry,
        )
        self.resting = Gauge(
            "tritonkit_client_server_resting",
            "1 while a server is left out, else 0.",
            ["address"],
            registry=registry,
            multiprocess_mode="livemax",
        )


_metrics_lock = threading.Lock()
_metrics: weakref.WeakKeyDictionary[CollectorRegistry, _Metrics] = weakref.WeakKeyDictionary()


def prometheus_hook(registry: CollectorRegistry | None = None) -> Hook:
    """Counts and times requests in `registry`, prometheus_client's default one if not given.

    Hooks on the same registry share its metrics, so every client may have its own.
    """
    from prometheus_client import REGISTRY

    registry = registry or REGISTRY
    with _metrics_lock:
        metrics = _metrics.get(registry)
        if metrics is None:
            metrics = _metrics[registry] = _Metrics(registry)

    def hook(event: Event) -> None:
        if isinstance(event, RequestEnded):
            metrics.requests.labels(event.model, event.error).inc()
            metrics.seconds.labels(event.model).observe(event.latency_s)
        elif isinstance(event, RequestRetried):
            metrics.retries.labels(event.model, event.error).inc()
        elif isinstance(event, ServerRested):
            metrics.rests.labels(event.address, event.error).inc()
            metrics.resting.labels(event.address).set(1)
        else:
            metrics.resting.labels(event.address).set(0)

    return hook


def opentelemetry_hook(tracer: Tracer | None = None) -> Hook:
    """A client span "infer <model>" for every request, under the span that is current when it ends.

    tracer: the global provider's "tritonkit.client" if not given. InputError if OpenTelemetry is
    not installed.
    """
    try:
        from opentelemetry import trace
    except ImportError as error:
        raise InputError(
            "opentelemetry_hook needs OpenTelemetry; pip install opentelemetry-api"
        ) from error
    spans = tracer or trace.get_tracer("tritonkit.client")

    def hook(event: Event) -> None:
        if not isinstance(event, RequestEnded):
            return
        end_ns = time.time_ns()
        span = spans.start_span(
            f"infer {event.model}",
            kind=trace.SpanKind.CLIENT,
            start_time=end_ns - round(event.latency_s * 1e9),
            attributes={
                "tritonkit.model": event.model,
                "tritonkit.version": event.version,
                "tritonkit.address": event.address,
                "tritonkit.request_id": event.request_id,
                "tritonkit.rows": event.rows,
                "tritonkit.tries": event.tries,
            },
        )
        if event.error:  # OpenTelemetry has a client's success left unset
            span.set_attribute("error.type", event.error)
            span.set_status(trace.StatusCode.ERROR, event.error)
        span.end(end_ns)

    return hook
