"""The event stream and namespaces: events of other namespaces are never sent, also if a filter names them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from fastapi import FastAPI

from tests.support.jobs import voice
from tests.web.conftest import Build, Gateway, problem
from tests.web.test_web_events import Stream
from voicequeue import VoiceQueue
from voicequeue.auth.api_keys import Scope, generate_key
from voicequeue.client.queue import in_namespace
from workers.gateway.api import events
from workers.gateway.security.access import AccessControl
from workers.gateway.server.connections import ServerLimits

pytestmark = pytest.mark.shared_gateway

#: By namespace, a key that may read.
KEYS = {namespace: generate_key("reader", [Scope.READ], namespace) for namespace in ("", "shop", "other", "*")}


@contextmanager
def stream_of(gateway: Gateway, queue: VoiceQueue, namespace: str, query: str) -> Iterator[Stream]:
    """Open a stream of all events so far with a key of this namespace; a heartbeat follows at once."""
    app = FastAPI()
    broadcaster = events.EventBroadcaster(queue, ServerLimits())
    secret, key = KEYS[namespace]
    app.include_router(events.router(queue, AccessControl([key]), broadcaster, heartbeat_s=0.05))
    gateway.stage.app = app
    headers = {"Authorization": f"Bearer {secret}", "Last-Event-ID": "1-0"}
    with gateway("GET", f"/v1/events{query}", key=None, headers=headers, stream=True) as answer:
        yield Stream(answer)


def job_ids(gateway: Gateway, queue: VoiceQueue, namespace: str, query: str = "") -> set[str]:
    """Return the jobs whose events are sent until a heartbeat has the id of the newest event."""
    newest, ids = queue.last_event_id(), set()
    with stream_of(gateway, queue, namespace, query) as stream:
        while True:
            block = stream.block()
            if block.get("event") == "job":
                ids.add(block["data"].partition('"job_id": "')[2][:16])
            elif block.get("id") == newest:
                return ids


@pytest.fixture
def cancelled(queue: VoiceQueue) -> dict[str, str]:
    """Cancel a job of the batch `spring` in each namespace, and return their ids."""
    ids = {}
    for namespace in ("", "other", "shop"):
        client = in_namespace(queue, namespace)
        ids[namespace] = client.enqueue(voice(key="same", batch="spring")).id
        client.cancel(ids[namespace])
    return ids


@pytest.mark.parametrize("namespace", ["", "shop", "other"])
def test_a_filter_by_a_foreign_batch_or_job_selects_nothing(
    gateway: Gateway, queue: VoiceQueue, cancelled: dict[str, str], namespace: str
) -> None:
    """The name of an own batch denotes it only, also where another namespace has one of the same name."""
    foreign = next(name for name in ("other", "shop") if name != namespace)

    in_namespace(queue, foreign).cancel(in_namespace(queue, foreign).enqueue(voice(batch="summer")).id)

    for query in (f"?job={cancelled[foreign]}", "?batch=summer", f"?job={cancelled[foreign]}&batch=spring"):
        assert job_ids(gateway, queue, namespace, query) == set(), query
    for query in ("", "?batch=spring", f"?job={cancelled[namespace]}"):
        assert job_ids(gateway, queue, namespace, query) - {""} == {cancelled[namespace]}, query


def test_an_operators_batch_is_that_of_the_namespace_that_it_names(
    gateway: Gateway, queue: VoiceQueue, cancelled: dict[str, str]
) -> None:
    """Without `?namespace=` the batch is that of the default namespace, as in lists."""
    for query, namespaces in (
        ("", {"", "shop", "other"}),
        ("?batch=spring", {""}),
        ("?namespace=shop", {"shop"}),
        ("?namespace=shop&batch=spring", {"shop"}),
        ("?namespace=", {""}),
    ):
        assert job_ids(gateway, queue, "*", query) - {""} == {cancelled[name] for name in namespaces}, query


def test_a_key_of_one_namespace_cannot_stream_another(build_gateway: Build) -> None:
    """Nor all of them."""
    secret, key = KEYS["shop"]
    gateway = build_gateway(api_keys=key.as_setting())

    for namespace in ("other", "*", ""):
        headers = {"Authorization": f"Bearer {secret}"}
        problem(gateway("GET", f"/v1/events?namespace={namespace}", key=None, headers=headers), 403, "forbidden")
