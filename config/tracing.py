"""Traces by OpenTelemetry, where its standard environment variables ask for them; else nothing of it is even loaded."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

log = logging.getLogger("voicequeue")

#: Asked for all the time, and about no job.
_ROUTINE = "healthz,readyz,metrics"

#: What instrumentation notes of a request's address; queries may hold a webhook's token.
_ADDRESSES = ("http.url", "http.target", "url.full", "url.query")


def is_wanted(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether somebody is told of traces, and did not switch them off."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true" or environment.get("OTEL_TRACES_EXPORTER") == "none":
        return False
    named = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER")
    return any(environment.get(name) for name in named)


def start(process: str) -> bool:
    """Send this process's traces as `voicequeue-<process>`; whether they are. After a fork, in the child."""
    if not is_wanted():
        return False
    try:
        _start(process)
    except ImportError as error:
        log.warning("no traces: %s is not installed (the extra `otel`)", error.name)
        return False
    return True


def _start(process: str) -> None:
    from opentelemetry import trace  # noqa: PLC0415
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    name = os.environ.get("OTEL_SERVICE_NAME") or f"voicequeue-{process}"
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def of_tasks(process: str) -> None:
    """Trace Celery's tasks in this process."""
    if start(process):
        from opentelemetry.instrumentation.celery import CeleryInstrumentor  # noqa: PLC0415

        CeleryInstrumentor().instrument()  # type: ignore[no-untyped-call]


def of_requests(app: Any) -> None:
    """Trace the requests that a FastAPI app answers."""
    if start("gateway"):
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor  # noqa: PLC0415

        FastAPIInstrumentor.instrument_app(app, excluded_urls=_ROUTINE, server_request_hook=_without_query)


def _without_query(span: Any, scope: Mapping[str, Any]) -> None:
    for name in _ADDRESSES:
        if name in span.attributes:
            span.set_attribute(name, scope["path"])


def spans() -> Callable[..., AbstractContextManager[None]]:
    """What a piece of work about a job is done within: a span where traces are on, else nothing."""
    return _span if is_wanted() else _nothing


def _nothing(*_: str, **__: str) -> AbstractContextManager[None]:
    return nullcontext()


@contextmanager
def _span(name: str, **about: str) -> Iterator[None]:
    from opentelemetry import trace  # noqa: PLC0415

    attributes = {f"voicequeue.{of}": value for of, value in about.items()}
    with trace.get_tracer("voicequeue").start_as_current_span(name, attributes=attributes):
        yield
