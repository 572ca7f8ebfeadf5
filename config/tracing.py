"""OpenTelemetry traces, if its standard environment variables enable them; otherwise its modules are not loaded."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from voicequeue.version import VERSION

log = logging.getLogger("voicequeue")

#: Paths that are not traced: frequent requests that concern no job.
_UNTRACED_PATHS = "healthz,readyz,metrics"

#: The attributes with a request's address, whose query may contain a webhook's token.
_ADDRESS_ATTRIBUTES = ("http.url", "http.target", "url.full", "url.query")


def is_enabled(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether an exporter is configured and tracing is not disabled."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true" or environment.get("OTEL_TRACES_EXPORTER") == "none":
        return False
    variables = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER")
    return any(environment.get(name) for name in variables)


def start(process: str) -> bool:
    """Export the traces of this process as `voicequeue-<process>`; return whether it does. Call it after a fork, in
    the child."""
    if not is_enabled():
        return False
    try:
        _start(process)
    except ImportError as error:
        log.warning("traces are disabled: %s is not installed (extra `otel`)", error.name)
        return False
    return True


def _start(process: str) -> None:
    from opentelemetry import trace  # noqa: PLC0415
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    name = os.environ.get("OTEL_SERVICE_NAME") or f"voicequeue-{process}"
    provider = TracerProvider(resource=Resource.create({"service.name": name, "service.version": VERSION}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def instrument_celery(process: str) -> None:
    """Trace the Celery tasks of this process."""
    if start(process):
        from opentelemetry.instrumentation.celery import CeleryInstrumentor  # noqa: PLC0415

        CeleryInstrumentor().instrument()  # type: ignore[no-untyped-call]


def instrument_fastapi(app: Any) -> None:
    """Trace the requests to a FastAPI app."""
    if start("gateway"):
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor  # noqa: PLC0415

        FastAPIInstrumentor.instrument_app(app, excluded_urls=_UNTRACED_PATHS, server_request_hook=_without_query)


def _without_query(span: Any, scope: Mapping[str, Any]) -> None:
    for name in _ADDRESS_ATTRIBUTES:
        if name in span.attributes:
            span.set_attribute(name, scope["path"])


def span_factory() -> Callable[..., AbstractContextManager[None]]:
    """Return the context manager for work on a job: a span if tracing is enabled, else one that does nothing."""
    return _span if is_enabled() else _nothing


def _nothing(*_: str, **__: str) -> AbstractContextManager[None]:
    return nullcontext()


@contextmanager
def _span(name: str, **attributes: str) -> Iterator[None]:
    from opentelemetry import trace  # noqa: PLC0415

    named = {f"voicequeue.{key}": value for key, value in attributes.items()}
    with trace.get_tracer("voicequeue").start_as_current_span(name, attributes=named):
        yield
