"""Following over HTTP: every event once, also across a connection that was lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests
from fastapi import FastAPI
from redis import Redis

from tests.conftest import eventually
from tests.store.life import brought_to, put
from tests.support.jobs import numbered, voice
from tests.web.conftest import SETTING, Build, Gateway, problem
from voicequeue import State, VoiceQueue
from voicequeue.auth import api_keys
from voicequeue.storage.job_store import Store
from workers.gateway.api import events
from workers.gateway.security.access import Access
from workers.gateway.server.connections import Bounds


class Stream:
    """What comes, one block after the other."""

    def __init__(self, answer: requests.Response) -> None:
        assert answer.status_code == 200, answer.text
        self.answer = answer
        self._lines = answer.iter_lines(chunk_size=1, decode_unicode=True)

    def block(self) -> dict[str, str]:
        """The next block: its fields; comments under ''."""
        found: dict[str, str] = {}
        for line in self._lines:
            if not line:
                return found
            name, _, value = line.partition(":")
            found[name] = value.strip()
        raise AssertionError("the stream ended")

    def events(self, count: int) -> list[dict[str, Any]]:
        """The next events, with their ids."""
        found: list[dict[str, Any]] = []
        while len(found) < count:
            block = self.block()
            if block.get("event") == "job":
                found.append({"event_id": block["id"], **json.loads(block["data"])})
        return found


@contextmanager
def following(gateway: Gateway, query: str = "", last: str | None = None) -> Iterator[Stream]:
    """Follow, from the moment on when the stream has begun."""
    headers = {} if last is None else {"Last-Event-ID": last}
    with gateway("GET", f"/v1/events{query}", headers=headers, stream=True) as answer:
        stream = Stream(answer)
        if last is None:
            stream.block()
        yield stream


def test_what_happens_is_told_as_it_happens(gateway: Gateway, store: Store, queue: VoiceQueue) -> None:
    """Enqueueing once for many jobs, each move with its job."""
    with following(gateway) as stream:
        assert stream.answer.headers["Content-Type"].startswith("text/event-stream")
        ids = put(store, *numbered(2, batch="b"))
        queue.cancel(ids[0])
        enqueued, cancelled = stream.events(2)

    assert (enqueued["job_id"], enqueued["batch"], enqueued["reason"]) == (None, "b", "2 enqueued")
    assert (cancelled["job_id"], cancelled["state"], cancelled["stage"]) == (ids[0], "cancelled", "voice")


def test_nothing_is_missed_where_the_connection_was_lost(gateway: Gateway, store: Store, queue: VoiceQueue) -> None:
    """Last-Event-ID tells from where to go on: every event once, in order."""
    ids = put(store, *numbered(6, batch="b"))
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


def test_one_batch_or_one_job_may_be_followed(gateway: Gateway, store: Store, queue: VoiceQueue) -> None:
    """The others are not told of."""
    [mine] = put(store, voice(batch="mine"))
    [other] = put(store, voice(batch="other"))
    with following(gateway, "?batch=mine") as batch, following(gateway, f"?job={mine}") as job:
        queue.cancel(other)
        queue.cancel(mine)
        found = batch.events(1) + job.events(1)

    assert [event["job_id"] for event in found] == [mine, mine]


def test_events_that_are_not_kept_any_more_leave_a_gap_that_is_told(
    gateway: Gateway, store: Store, queue: VoiceQueue, redis: Redis, prefix: str
) -> None:
    """Also where the id is of a Redis that was emptied since."""
    job = brought_to(store, State.QUEUED)
    queue.cancel(job.id)
    redis.xtrim(f"{{{prefix}}}:events", maxlen=1, approximate=False)

    for last in ("1-0", "99999999999999-0"):
        with following(gateway, last=last) as stream:
            assert stream.block()["event"] == "gap"


@pytest.mark.parametrize("last", ["x", "1", "-", "1-x", "9" * 30 + "-1", "-1-1"])
def test_an_id_that_is_none_is_refused(gateway: Gateway, last: str) -> None:
    """By its header's name."""
    answer = gateway("GET", "/v1/events", headers={"Last-Event-ID": last})

    assert problem(answer, 422, "invalid").keys() == {"Last-Event-ID"}


def test_the_heart_beats_when_nothing_happens(gateway: Gateway, queue: VoiceQueue) -> None:
    """With the id up to which all was told."""
    routes = events.router(queue, Access(api_keys.parse(SETTING)), events.Tail(queue, Bounds()), heartbeat_s=0.05)
    app = FastAPI()
    app.include_router(routes)
    gateway.stage.app = app

    with following(gateway) as stream:
        beats = [stream.block() for _ in range(3)]

    assert [beat[""] for beat in beats] == ["nothing new"] * 3


def test_followers_that_leave_make_room(
    build_gateway: Build, store: Store, queue: VoiceQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many at once, the next is told to come again."""
    monkeypatch.setattr(events, "FOLLOWERS_MAX", 1)
    gateway = build_gateway()
    with following(gateway) as stream:
        queue.cancel(put(store, voice())[0])
        stream.events(1)
        problem(gateway("GET", "/v1/events"), 503, "unavailable")

    def has_room() -> bool:
        put(store, voice())  # something is told, so that it is noticed who has left
        with gateway("GET", "/v1/events", stream=True) as answer:
            return answer.status_code == 200

    eventually(has_room)
