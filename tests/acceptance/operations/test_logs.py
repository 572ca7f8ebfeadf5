"""The history of one job, read from the logs of all processes by its id alone."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import requests
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.acceptance.conftest import LYRICS, SECRET, Build, System
from tests.conftest import eventually
from tests.support.scripted import ScriptedServer, always, answer
from voicequeue import State

COMMON = "a secret shared by all processes"
PASSWORD = "redis-pass-word"
AUDIO = "https://recordings.example/logged.wav?signature=recording-secret"


@pytest.fixture(scope="module")
def collector() -> Iterator[ScriptedServer]:
    """Yield a collector of traces."""
    with ScriptedServer(always(answer(""))) as server:
        yield server


@pytest.fixture(scope="module")
def system(build_shared: Build, collector: ScriptedServer) -> System:
    """Start two workers, the gateway with webhooks, and a callback process that may call this machine."""
    system = build_shared(
        workers=2,
        web=True,
        password=PASSWORD,
        VOICEQUEUE_SECRET=COMMON,
        VOICEQUEUE_CALLBACK_ALLOWED_HOSTS="localhost",
        VOICEQUEUE_CALLBACK_BACKOFF_INITIAL_S="0.2",
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_BSP_SCHEDULE_DELAY="100",
    )
    system.stack.start_callbacks()
    with system.queue() as queue:
        eventually(lambda: queue.callback_counts().workers, within_s=30)
    return system


@pytest.fixture
def receiver() -> Iterator[ScriptedServer]:
    """Yield a caller's server."""
    with ScriptedServer(always(answer({}))) as server:
        yield server


def all_logs(system: System) -> str:
    """Return the logs of all our processes."""
    ours = (
        file for file in sorted((system.home / "log").iterdir()) if not file.name.startswith(("valkey", "simulator"))
    )
    return "".join(file.read_text() for file in ours)


def lines_of(system: System, job_id: str) -> list[dict[str, Any]]:
    """Return the log lines of all processes that contain the id, in order of time."""
    lines = [json.loads(line) for line in all_logs(system).splitlines() if job_id in line]
    return sorted(lines, key=lambda line: line["timestamp"])


def enqueue(system: System, receiver: ScriptedServer, name: str) -> str:
    """Enqueue a voice with a song over HTTP; return the job's id."""
    body = {
        "audio_url": AUDIO, "batch": "logged", "key": name, "song": {"title": "A secret title", "prompt": LYRICS},
        "callback_url": f"{receiver.url.replace('127.0.0.1', 'localhost')}/hook?token=callback-secret",
    }  # fmt: skip
    response = requests.post(
        f"{system.web}/v1/jobs", json=body, headers={**system.key, "X-Request-ID": f"r-{name}"}, timeout=5
    )
    assert (response.status_code, response.headers["X-Request-ID"]) == (202, f"r-{name}")
    return str(response.json()["id"])


def has_ended(system: System, job_id: str, *ends: str) -> bool:
    """Return whether these final states were logged, and a callback for each."""
    events = [line["event"] for line in lines_of(system, job_id)]
    return events.count("callback delivered") == len(ends) and set(ends) <= set(events)


def test_the_logs_contain_the_whole_history_of_a_job(system: System, receiver: ScriptedServer) -> None:
    """From the HTTP request to the callback: every transition of its timeline, each with its duration."""
    job_id = enqueue(system, receiver, "first")
    eventually(lambda: has_ended(system, job_id, "succeeded"), within_s=30)
    with system.queue() as queue:
        timeline = queue.timeline(job_id)
        job = queue.get(job_id)
    lines = lines_of(system, job_id)

    transitions = [line for line in lines if line["logger"] == "voicequeue.transition"]
    assert [(line["event"], line["stage"]) for line in transitions] == [
        (step.state, step.stage) for step in timeline if step.state is not State.QUEUED
    ]
    assert all(line["batch"] == "logged" and line["job"] == job_id and line["duration"] >= 0 for line in transitions)
    assert (lines[0]["event"], lines[0]["request"]) == ("queued", "r-first")
    submissions = [line for line in lines if line["event"] == "submitted"]
    assert [(line["stage"], line["task_id"], line["outcome"]) for line in submissions] == [
        (stage, task_id, "pending") for stage, task_id in job.task_ids.items()
    ]
    assert all(0 < line["duration"] < 30 for line in submissions)
    assert {line["stage"] for line in lines if line["event"] == "webhook"} == {"voice", "music"}
    [delivered] = [line for line in lines if line["event"] == "callback delivered"]
    assert (delivered["callback_id"], delivered["event_type"]) == (job.callback_id, "job.succeeded")
    assert [line["event"] for line in lines if line["event"] in ("queued", "succeeded", "callback delivered")] == [
        "queued", "succeeded", "callback delivered"
    ]  # fmt: skip
    assert len({line["pid"] for line in lines}) >= 3


def test_the_logs_contain_the_failure_and_retry_of_a_job(system: System, receiver: ScriptedServer) -> None:
    """The failure as a warning with its reason, the retry, and the success."""
    system.dial(fail_match="logged.wav")
    job_id = enqueue(system, receiver, "second")
    eventually(lambda: has_ended(system, job_id, "failed"), within_s=30)
    system.dial(fail_match=None)
    response = requests.post(f"{system.web}/v1/jobs/{job_id}/retry", headers=system.key, timeout=5)
    assert response.status_code == 200, response.text
    eventually(lambda: has_ended(system, job_id, "failed", "succeeded"), within_s=30)

    lines = lines_of(system, job_id)

    transitions = [line["event"] for line in lines if line["logger"] == "voicequeue.transition"]
    assert (
        transitions.count("failed"),
        transitions[-1],
        transitions.index("failed") < transitions.index("queued"),
    ) == (1, "succeeded", True)
    [failed] = [line for line in lines if line["event"] == "failed"]
    assert (failed["level"], failed["reason"]) == ("warning", "upstream_failed")
    assert {line["path"] for line in lines if line["event"] == "request"} >= {f"/v1/jobs/{job_id}/retry"}


def test_no_log_line_contains_a_secret_and_every_line_is_json(system: System, receiver: ScriptedServer) -> None:
    """Also after errors: a killed child, garbage from upstream, an invalid request."""
    system.dial(get_faults={"garbage": 0.3, "reset": 0.2, "error": 0.2}, post_faults={"garbage_before": 0.5})
    job_id = enqueue(system, receiver, "third")
    pid = system.supervisor.pid("worker.1")
    assert pid is not None
    os.killpg(pid, signal.SIGKILL)
    requests.post(f"{system.web}/v1/jobs", data=b'{"audio_url": "' + AUDIO.encode(), headers=system.key, timeout=5)
    assert requests.get(system.page_url(), timeout=5).status_code == 200
    requests.post(f"{system.web}/hooks/musicapi/{job_id}/voice?attempt=1&token=forged-token", timeout=5)
    with system.queue() as queue:
        eventually(lambda: queue.get(job_id).state in (State.SUCCEEDED, State.UNSURE, State.FAILED), within_s=60)
    system.dial(get_faults={}, post_faults={})
    logs = all_logs(system)

    lines = [json.loads(line) for line in logs.splitlines() if line.startswith("{")]  # Celery's banner is plain text
    assert all({"event", "level", "timestamp"} <= line.keys() for line in lines)
    for hidden in (
        SECRET,
        COMMON,
        PASSWORD,
        AUDIO,
        "secret",
        "must stay secret",
        "forged-token",
        str(system.stack.gateway_token()),
    ):
        assert hidden not in logs
    assert {"submitted", "request", "pending"} <= {line["event"] for line in lines}


# ── traces ────────────────────────────────────────────────────────────────────────────────────────


class Span(NamedTuple):
    """A span as the collector received it."""

    process: str
    name: str
    attributes: dict[str, str]
    trace: str


def spans(collector: ScriptedServer) -> list[Span]:
    """Return all spans that the collector received."""
    received = []
    for request in list(collector.requests):
        for process in ExportTraceServiceRequest.FromString(request.body).resource_spans:
            resource = {span_data.key: span_data.value.string_value for span_data in process.resource.attributes}
            for span_data in (span for scope in process.scope_spans for span in scope.spans):
                attributes = {attribute.key: attribute.value.string_value for attribute in span_data.attributes}
                received.append(Span(resource["service.name"], span_data.name, attributes, span_data.trace_id.hex()))
    return received


def test_traces_go_to_the_configured_endpoint(
    system: System, receiver: ScriptedServer, collector: ScriptedServer
) -> None:
    """The gateway's requests and each request to upstream for a job, by its id; the log lines name the trace."""
    job_id = enqueue(system, receiver, "traced")
    assert requests.get(system.page_url(), timeout=5).status_code == 200
    eventually(lambda: has_ended(system, job_id, "succeeded"), within_s=30)

    def spans_of_job() -> list[Span]:
        return [span for span in spans(collector) if span.attributes.get("voicequeue.job") == job_id]

    eventually(lambda: {(span.name, span.attributes["voicequeue.stage"]) for span in spans_of_job()} >= {
        ("order", "voice"), ("poll", "voice"), ("order", "music"), ("poll", "music")
    })  # fmt: skip
    eventually(lambda: any(f"/hooks/musicapi/{job_id}/voice" in str(span.attributes) for span in spans(collector)))

    assert {span.process for span in spans_of_job()} == {"voicequeue-worker"}
    assert {span.process for span in spans(collector)} == {"voicequeue-worker", "voicequeue-gateway"}
    [line] = [
        line_of_job
        for line_of_job in lines_of(system, job_id)
        if line_of_job["event"] == "queued" and "request" in line_of_job
    ]
    assert line["trace_id"] in {span.trace for span in spans(collector) if span.name == "POST /v1/jobs"}
    exported = str(spans(collector))
    for hidden in (SECRET, COMMON, PASSWORD, AUDIO, "secret", "must stay secret", "token="):
        assert hidden not in exported
