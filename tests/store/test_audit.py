"""The audit finds what indexes and counters say and the records do not."""

from __future__ import annotations

import pytest
from redis import Redis

from tests.jobs import voice
from tests.store.life import brought_to, put
from voicequeue import State
from voicequeue.audit import audit
from voicequeue.store import Store


@pytest.fixture
def root(store: Store, prefix: str) -> str:
    """The root of a store with a job in every state that can be reached."""
    put(store, voice(batch="b", key="queued"))
    for state in (State.PENDING, State.SUCCEEDED, State.FAILED, State.UNSURE, State.CANCELLED):
        brought_to(store, state, voice(batch="b", key=f"then-{state}"))
    return f"{{{prefix}}}:"


def test_a_sound_store_has_no_findings(redis: Redis, prefix: str, root: str) -> None:
    """Every index and every counter agrees with the records."""
    assert audit(redis, prefix) == []


def test_each_disagreement_is_named(redis: Redis, prefix: str, root: str) -> None:
    """A job that an index misses or has too much, a count and a sum that are off."""
    [failed] = map(str, redis.zrange(f"{root}state:failed", 0, -1))
    redis.zrem(f"{root}state:failed", failed)
    redis.zadd(f"{root}flight", {"ghost": 1})
    redis.hincrby(f"{root}batch:b", "succeeded", 1)
    redis.hincrby(f"{root}counters", "voice.credits", 4)

    findings = audit(redis, prefix)

    assert f"state:failed: job {failed} is missing" in findings
    assert "flight: job ghost does not belong there" in findings
    assert any(finding.startswith("batch b: counts") for finding in findings)
    assert any(finding.startswith("counters: ") for finding in findings)
    assert len(findings) == 4
