"""The event stream: every event once, also after a disconnect."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import requests
from fastapi import FastAPI
from redis import Redis

from tests.conftest import eventually
from tests.store.life import enqueue_jobs, job_in_state
from tests.support.jobs import numbered_voices, voice
from tests.web.conftest import SETTING, Build, Gateway, problem
from voicequeue import State, VoiceQueue
from voicequeue.auth import api_keys
from voicequeue.auth.api_keys import Scope, generate_key
from voicequeue.storage.job_store import JobStore
from workers.gateway.api import events
from workers.gateway.security.access import AccessControl
from workers.gateway.server.connections import ServerLimits

pytestmark = pytest.mark.shared_gateway


class Stream:
    """A stream of server-sent events, read block by block."""

    def __init__(self, answer: requests.Response) -> None:
        assert answer.status_code == 200, answer.text
        self.answer = answer
        self._lines = answer.iter_lines(chunk_size=1, decode_unicode=True)

    def block(self) -> dict[str, str]:
        """Return the fields of the next block; a comment has the name ''."""
        fields: dict[str, str] = {}
        for line in self._lines:
            if not line:
                return fields
            name, _, value = line.partition(":")
            fields[name] = value.strip()
        raise AssertionError("the stream ended")

    def events(self, count: int) -> list[dict[str, Any]]:
        """Return the next events with their ids."""
        events: list[dict[str, Any]] = []
        while len(events) < count:
            block = self.block()
            if block.get("event") == "job":
                events.append({"event_id": block["id"], **json.loads(block["data"])})
        return events


@contextmanager
def following(gateway: Gateway, query: str = "", last: str | None = None) -> Iterator[Stream]:
    """Open a stream; without `last`, wait until it has started."""
    headers = {} if last is None else {"Last-Event-ID": last}
    with gateway("GET", f"/v1/events{query}", headers=headers, stream=True) as answer:
        stream = Stream(answer)
        if last is None:
            stream.block()
        yield stream


def test_events_are_streamed_as_they_happen(gateway: Gateway, store: JobStore, queue: VoiceQueue) -> None:
    """Jobs enqueued together are one event; each other transition names its job."""
    with following(gateway) as stream:
        assert stream.answer.headers["Content-Type"].startswith("text/event-stream")
        ids = enqueue_jobs(store, *numbered_voices(2, batch="b"))
        queue.cancel(ids[0])
        enqueued, cancelled = stream.events(2)

    assert (enqueued["job_id"], enqueued["batch"], enqueued["reason"]) == (None, "b", "2 enqueued")
    assert (cancelled["job_id"], cancelled["state"], cancelled["stage"]) == (ids[0], "cancelled", "voice")


def test_nothing_is_missed_after_a_disconnect(gateway: Gateway, store: JobStore, queue: VoiceQueue) -> None:
    """With Last-Event-ID, every event is received once and in order."""
    ids = enqueue_jobs(store, *numbered_voices(6, batch="b"))
    with following(gateway) as stream:
        queue.cancel(ids[0])
        [first] = stream.events(1)
    for job_id in ids[1:4]:
        queue.cancel(job_id)
    with following(gateway, last=first["event_id"]) as stream:
        rest = stream.events(3)
        queue.cancel(ids[4])
        rest += stream.events(1)

    assert [event["job_id"] for event in (first, *rest)] == ids[:5]


def test_one_batch_or_one_job_may_be_followed(gateway: Gateway, store: JobStore, queue: VoiceQueue) -> None:
    """Events of other jobs are not sent."""
    [mine] = enqueue_jobs(store, voice(batch="mine"))
    [other] = enqueue_jobs(store, voice(batch="other"))
    with following(gateway, "?batch=mine") as batch, following(gateway, f"?job={mine}") as job:
        queue.cancel(other)
        queue.cancel(mine)
        events = batch.events(1) + job.events(1)

    assert [event["job_id"] for event in events] == [mine, mine]


def test_deleted_events_are_reported_as_a_gap(
    gateway: Gateway, store: JobStore, queue: VoiceQueue, redis: Redis, prefix: str
) -> None:
    """So are ids of a Redis that was emptied since."""
    job = job_in_state(store, State.QUEUED)
    queue.cancel(job.id)
    redis.xtrim(f"{{{prefix}}}:events", maxlen=1, approximate=False)

    for last in ("1-0", "99999999999999-0"):
        with following(gateway, last=last) as stream:
            assert stream.block()["event"] == "gap"


@pytest.mark.parametrize("last", ["x", "1", "-", "1-x", "9" * 30 + "-1", "-1-1"])
def test_an_invalid_event_id_is_refused(gateway: Gateway, last: str) -> None:
    """The error names the header."""
    answer = gateway("GET", "/v1/events", headers={"Last-Event-ID": last})

    assert problem(answer, 422, "invalid").keys() == {"Last-Event-ID"}


def test_a_heartbeat_is_sent_when_nothing_happens(gateway: Gateway, queue: VoiceQueue) -> None:
    """It has the id of the last event."""
    routes = events.router(
        queue,
        AccessControl(api_keys.parse_keys(SETTING)),
        events.EventBroadcaster(queue, ServerLimits()),
        heartbeat_s=0.05,
    )
    app = FastAPI()
    app.include_router(routes)
    gateway.stage.app = app

    with following(gateway) as stream:
        beats = [stream.block() for _ in range(3)]

    assert [beat[""] for beat in beats] == ["nothing new"] * 3


def test_a_stream_of_a_quiet_namespace_moves_past_the_events_of_others(
    gateway: Gateway, queue: VoiceQueue, store: JobStore
) -> None:
    """So a client that resumes misses nothing, and no gap is reported, when foreign events were deleted."""
    setting = generate_key("quiet", [Scope.READ])
    key = replace(setting[1], namespace="quiet").as_setting()
    routes = events.router(
        queue,
        AccessControl(api_keys.parse_keys(key)),
        events.EventBroadcaster(queue, ServerLimits()),
        heartbeat_s=0.05,
    )
    app = FastAPI()
    app.include_router(routes)
    gateway.stage.app = app

    headers = {"Authorization": f"Bearer {setting[0]}"}
    with gateway("GET", "/v1/events", key=None, headers=headers, stream=True) as answer:
        stream = Stream(answer)
        stream.block()
        enqueue_jobs(store, voice())
        newest = queue.last_event_id()
        eventually(lambda: stream.block().get("id") == newest)


def test_streams_beyond_the_limit_are_refused(
    build_gateway: Build, store: JobStore, queue: VoiceQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When one has ended, another is accepted."""
    monkeypatch.setattr(events, "MAX_STREAMS", 1)
    gateway = build_gateway(ServerLimits())
    with following(gateway) as stream:
        queue.cancel(enqueue_jobs(store, voice())[0])
        stream.events(1)
        problem(gateway("GET", "/v1/events"), 503, "unavailable")

    def has_room() -> bool:
        enqueue_jobs(store, voice())  # an event, which makes the server notice disconnects
        with gateway("GET", "/v1/events", stream=True) as answer:
            return answer.status_code == 200

    eventually(has_room)
