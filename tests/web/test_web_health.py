"""`/readyz` and `/metrics` report whether running workers consume their queues."""

from __future__ import annotations

from typing import Any

import pytest

from tests.web.conftest import Gateway
from voicequeue.storage.celery_queues import consumed_by
from voicequeue.storage.job_store import JobStore
from voicequeue.storage.monitoring.consumption import CANCELLED, CONSUMED

pytestmark = pytest.mark.shared_gateway


def send_heartbeat(store: JobStore, name: str, *, idle_s: float = 0.0, **facts: Any) -> None:
    """Send the heartbeat of a worker that consumed `poll` so long ago, and its other queues just now."""
    now = store.clock()
    consumed = {**dict.fromkeys(consumed_by("worker"), now), "poll": now - idle_s}
    store.heartbeats["worker"].record(name, now, {CONSUMED: consumed, **facts})


@pytest.mark.parametrize("fault", [{"idle_s": 61.0}, {CANCELLED: ["poll"]}], ids=["stalled", "cancelled"])
def test_a_gateway_is_ready_while_a_running_worker_consumes_each_queue(
    gateway: Gateway, store: JobStore, fault: dict[str, Any]
) -> None:
    """A worker that only seems to be alive does not count; another one does."""
    send_heartbeat(store, "w1", **fault)

    answer = gateway("GET", "/readyz", key=None)

    assert answer.status_code == 503
    assert answer.json()["detail"] == "No running worker consumes these queues: poll."
    send_heartbeat(store, "w2")
    assert gateway.get("/readyz", key=None) == {"status": "ok", "workers": 2}


def test_a_queue_that_no_worker_was_started_for_matters_once_messages_wait(
    gateway: Gateway, store: JobStore, prefix: str
) -> None:
    """Workers may share the queues among them."""
    store.heartbeats["worker"].record("w1", store.clock(), {CONSUMED: {"poll": store.clock()}})

    assert gateway("GET", "/readyz", key=None).status_code == 200
    store._redis.lpush(f"{{{prefix}}}:celery:submit", "a message")
    assert "submit" in gateway("GET", "/readyz", key=None).json()["detail"]


def test_a_gateway_says_that_redis_accepts_no_heartbeats(gateway: Gateway, store: JobStore) -> None:
    """Rather than that no worker runs."""
    store._redis.config_set("min-replicas-to-write", 1)
    try:
        answer = gateway("GET", "/readyz", key=None)
    finally:
        store._redis.config_set("min-replicas-to-write", 0)

    assert answer.status_code == 503
    assert answer.json()["detail"].startswith("Redis refuses: NOREPLICAS")


def test_metrics_name_stalled_consumers(gateway: Gateway, store: JobStore) -> None:
    """The alert counts them by queue; the time of each consumer shows what happened."""
    send_heartbeat(store, "w1", idle_s=61.0)
    send_heartbeat(store, "w2")

    lines = gateway("GET", "/metrics").text.splitlines()

    assert 'voicequeue_stalled_consumers{queue="poll"} 1.0' in lines
    assert 'voicequeue_stalled_consumers{queue="submit"} 0.0' in lines
    assert 'voicequeue_consumer_idle_seconds{kind="worker",queue="poll",worker="w2"} 0.0' in lines
    assert any('queue="poll",worker="w1"} 6' in line for line in lines)
