"""Namespaces: neither of two sees, changes or disturbs the other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis import Redis

from tests.store.life import NOW, accept_order, apply_transition, assert_consistent, claim_admitted
from tests.support.jobs import voice
from voicequeue import JobNotFoundError, State, VoiceQueue
from voicequeue.storage.job_store import JobStore


@pytest.fixture
def shop(valkey_url: str, prefix: str) -> Iterator[VoiceQueue]:
    """Yield a client in the namespace `shop`."""
    with VoiceQueue(valkey_url, prefix=prefix, namespace="shop") as queue:
        yield queue


def test_a_job_belongs_to_its_namespace_only(
    queue: VoiceQueue, shop: VoiceQueue, store: JobStore, valkey_url: str, prefix: str, redis: Redis
) -> None:
    """Workers process it like any other; its namespace and operators see it, no other namespace does."""
    job = shop.enqueue(voice(key="k", batch="spring"))
    store.admit(NOW)
    claim_admitted(store, job.id)
    accept_order(store, job.id)
    [pending] = store.get([job.id])
    assert pending is not None
    apply_transition(store, pending, State.SUCCEEDED, fields={"persona_id": "p", "settled": str(NOW)})

    assert (shop.get(job.id).namespace, queue.get(job.id).namespace) == ("shop", "shop")
    assert [(batch.name, batch.namespace) for batch in shop.batches()] == [("spring", "shop")]
    for name in ("", "other"):
        with VoiceQueue(valkey_url, prefix=prefix, namespace=name) as foreign:
            with pytest.raises(JobNotFoundError):
                foreign.get(job.id)
            assert list(foreign.jobs()) == []
            assert foreign.batches() == []
            assert foreign.enqueue(voice(key="k", batch="spring")).id != job.id
    assert queue.audit() == []
    assert_consistent(redis, prefix)
