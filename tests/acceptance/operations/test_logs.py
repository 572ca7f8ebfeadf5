"""One job's story, read from the logs of all processes by its id alone."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import requests
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.acceptance.conftest import LYRICS, SECRET, Build, House
from tests.conftest import eventually
from tests.support.scripted import Scripted, answer, one_answer
from voicequeue import State

COMMON = "a secret of all processes of this house"
PASSWORD = "redis-pass-word"
AUDIO = "https://recordings.example/told.wav?signature=recording-secret"


@pytest.fixture(scope="module")
def collector() -> Iterator[Scripted]:
    """What traces are sent to."""
    with Scripted(one_answer(answer(""))) as listening:
        yield listening


@pytest.fixture(scope="module")
def house(build_for_all: Build, collector: Scripted) -> House:
    """Two workers, the gateway with webhooks, and what delivers callbacks to this machine."""
    house = build_for_all(
        workers=2,
        web=True,
        password=PASSWORD,
        VOICEQUEUE_SECRET=COMMON,
        VOICEQUEUE_CALLBACK_ALLOW="localhost",
        VOICEQUEUE_CALLBACK_FIRST_S="0.2",
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_BSP_SCHEDULE_DELAY="100",
    )
    house.stack.start_callbacks()
    with house.queue() as queue:
        eventually(lambda: queue.callback_counts().workers, within_s=30)
    return house


@pytest.fixture
def receiver() -> Iterator[Scripted]:
    """A caller's server."""
    with Scripted(one_answer(answer({}))) as listening:
        yield listening


def everything(house: House) -> str:
    """All logs of our processes."""
    ours = (
        file for file in sorted((house.home / "log").iterdir()) if not file.name.startswith(("valkey", "simulator"))
    )
    return "".join(file.read_text() for file in ours)


def story(house: House, job_id: str) -> list[dict[str, Any]]:
    """The lines in which the id stands, whatever process said them, by their time."""
    lines = [json.loads(line) for line in everything(house).splitlines() if job_id in line]
    return sorted(lines, key=lambda line: line["timestamp"])


def order(house: House, receiver: Scripted, name: str) -> str:
    """Order a voice with a song over HTTP; the job's id."""
    body = {
        "audio_url": AUDIO, "batch": "told", "key": name, "song": {"title": "A secret title", "prompt": LYRICS},
        "callback_url": f"{receiver.url.replace('127.0.0.1', 'localhost')}/hook?token=callback-secret",
    }  # fmt: skip
    answered = requests.post(
        f"{house.web}/v1/jobs", json=body, headers={**house.key, "X-Request-ID": f"r-{name}"}, timeout=5
    )
    assert (answered.status_code, answered.headers["X-Request-ID"]) == (202, f"r-{name}")
    return str(answered.json()["id"])


def is_told(house: House, job_id: str, *ends: str) -> bool:
    """Whether these ends were logged, and a callback of each."""
    events = [line["event"] for line in story(house, job_id)]
    return events.count("callback delivered") == len(ends) and set(ends) <= set(events)


def test_a_jobs_story_is_told_in_order_by_its_id(house: House, receiver: Scripted) -> None:
    """From the request that brought it to the callback: every move of its timeline, each with how long it took."""
    job_id = order(house, receiver, "first")
    eventually(lambda: is_told(house, job_id, "succeeded"), within_s=30)
    with house.queue() as queue:
        timeline = queue.timeline(job_id)
        job = queue.get(job_id)
    lines = story(house, job_id)

    moves = [line for line in lines if line["logger"] == "voicequeue.move"]
    assert [(line["event"], line["stage"]) for line in moves] == [
        (step.state, step.stage) for step in timeline if step.state is not State.QUEUED
    ]
    assert all(line["batch"] == "told" and line["job"] == job_id and line["duration"] >= 0 for line in moves)
    assert (lines[0]["event"], lines[0]["request"]) == ("queued", "r-first")
    ordered = [line for line in lines if line["event"] == "ordered"]
    assert [(line["stage"], line["task_id"], line["outcome"]) for line in ordered] == [
        (stage, task_id, "pending") for stage, task_id in job.task_ids.items()
    ]
    assert all(0 < line["duration"] < 30 for line in ordered)
    assert {line["stage"] for line in lines if line["event"] == "webhook"} == {"voice", "music"}
    [delivered] = [line for line in lines if line["event"] == "callback delivered"]
    assert (delivered["callback"], delivered["type"]) == (job.callback_id, "job.succeeded")
    assert [line["event"] for line in lines if line["event"] in ("queued", "succeeded", "callback delivered")] == [
        "queued", "succeeded", "callback delivered"
    ]  # fmt: skip
    assert len({line["pid"] for line in lines}) >= 3


def test_a_job_that_fails_and_is_retried_is_told_as_well(house: House, receiver: Scripted) -> None:
    """The failure as a warning with its reason, the retry, and the end."""
    house.dial(fail_match="told.wav")
    job_id = order(house, receiver, "second")
    eventually(lambda: is_told(house, job_id, "failed"), within_s=30)
    house.dial(fail_match=None)
    answered = requests.post(f"{house.web}/v1/jobs/{job_id}/retry", headers=house.key, timeout=5)
    assert answered.status_code == 200, answered.text
    eventually(lambda: is_told(house, job_id, "failed", "succeeded"), within_s=30)

    lines = story(house, job_id)

    moves = [line["event"] for line in lines if line["logger"] == "voicequeue.move"]
    assert (moves.count("failed"), moves[-1], moves.index("failed") < moves.index("queued")) == (1, "succeeded", True)
    [failed] = [line for line in lines if line["event"] == "failed"]
    assert (failed["level"], failed["reason"]) == ("warning", "upstream_failed")
    assert {line["path"] for line in lines if line["event"] == "request"} >= {f"/v1/jobs/{job_id}/retry"}


def test_no_line_tells_a_secret_and_every_line_is_json(house: House, receiver: Scripted) -> None:
    """Also where things go wrong: a child is killed, upstream's answers are garbage, somebody's request is."""
    house.dial(get_faults={"garbage": 0.3, "reset": 0.2, "error": 0.2}, post_faults={"garbage_before": 0.5})
    job_id = order(house, receiver, "third")
    pid = house.supervisor.pid("worker.1")
    assert pid is not None
    os.killpg(pid, signal.SIGKILL)
    requests.post(f"{house.web}/v1/jobs", data=b'{"audio_url": "' + AUDIO.encode(), headers=house.key, timeout=5)
    assert requests.get(house.link(), timeout=5).status_code == 200
    requests.post(f"{house.web}/hooks/musicapi/{job_id}/voice?attempt=1&token=forged-token", timeout=5)
    with house.queue() as queue:
        eventually(lambda: queue.get(job_id).state in (State.SUCCEEDED, State.UNSURE, State.FAILED), within_s=60)
    house.dial(get_faults={}, post_faults={})
    told = everything(house)

    lines = [json.loads(line) for line in told.splitlines() if line.startswith("{")]  # Celery greets in plain text
    assert all({"event", "level", "timestamp"} <= line.keys() for line in lines)
    for hidden in (
        SECRET,
        COMMON,
        PASSWORD,
        AUDIO,
        "secret",
        "nobody may see",
        "forged-token",
        str(house.stack.web_key()),
    ):
        assert hidden not in told
    assert {"ordered", "request", "pending"} <= {line["event"] for line in lines}


# ── traces ────────────────────────────────────────────────────────────────────────────────────────


class Span(NamedTuple):
    """A piece of work as the collector was told of it."""

    process: str
    name: str
    about: dict[str, str]
    trace: str


def spans(collector: Scripted) -> list[Span]:
    """All that came there."""
    found = []
    for request in list(collector.requests):
        for process in ExportTraceServiceRequest.FromString(request.body).resource_spans:
            known = {each.key: each.value.string_value for each in process.resource.attributes}
            for each in (span for scope in process.scope_spans for span in scope.spans):
                about = {attribute.key: attribute.value.string_value for attribute in each.attributes}
                found.append(Span(known["service.name"], each.name, about, each.trace_id.hex()))
    return found


def test_traces_go_where_the_environment_says(house: House, receiver: Scripted, collector: Scripted) -> None:
    """Of the gateway's requests and of each call about a job, by its id; its lines in the log name the trace."""
    job_id = order(house, receiver, "traced")
    assert requests.get(house.link(), timeout=5).status_code == 200
    eventually(lambda: is_told(house, job_id, "succeeded"), within_s=30)

    def about() -> list[Span]:
        return [span for span in spans(collector) if span.about.get("voicequeue.job") == job_id]

    eventually(lambda: {(span.name, span.about["voicequeue.stage"]) for span in about()} >= {
        ("order", "voice"), ("poll", "voice"), ("order", "music"), ("poll", "music")
    })  # fmt: skip
    eventually(lambda: any(f"/hooks/musicapi/{job_id}/voice" in str(span.about) for span in spans(collector)))

    assert {span.process for span in about()} == {"voicequeue-worker"}
    assert {span.process for span in spans(collector)} == {"voicequeue-worker", "voicequeue-gateway"}
    [line] = [each for each in story(house, job_id) if each["event"] == "queued" and "request" in each]
    assert line["trace_id"] in {span.trace for span in spans(collector) if span.name == "POST /v1/jobs"}
    told = str(spans(collector))
    for hidden in (SECRET, COMMON, PASSWORD, AUDIO, "secret", "nobody may see", "token="):
        assert hidden not in told
