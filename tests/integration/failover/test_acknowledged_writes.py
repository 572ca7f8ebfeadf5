"""A primary whose replica does not record what it writes: no order is sent, and no caller gets a reply that a failover
could make untrue."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from urllib.parse import unquote

import pytest
from redis import Redis

from tests.support.jobs import voice
from tests.support.sentinels import PASSWORD, FailoverGroup
from voicequeue import InvalidStateError, StoreUnavailableError, VoiceQueue
from voicequeue.domain.claims import SubmitClaim
from voicequeue.domain.stage import Stage
from voicequeue.domain.states import State
from voicequeue.storage.connection.client import connect
from voicequeue.storage.job_store import JobStore

NOW = 1_800_000_000.0


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FailoverGroup]:
    """Start a primary and its replica."""
    started = FailoverGroup(tmp_path_factory.mktemp("servers"), sentinels=0)
    try:
        started.start()
        yield started
    finally:
        started.stop()


@pytest.fixture
def url(group: FailoverGroup) -> str:
    """Return the URL of the primary, which accepts writes without its replica, after all keys were deleted."""
    url = f"redis://:{PASSWORD}@127.0.0.1:{group.ports[0]}/0"
    with connect(url) as redis:
        redis.config_set("min-replicas-to-write", 0)
        redis.flushall()
    return url


@contextmanager
def frozen_replica(group: FailoverGroup) -> Iterator[Callable[[], None]]:
    """Freeze the replica, which remains connected; yield a function that ends this early."""
    with Redis(port=group.ports[1], password=unquote(PASSWORD)) as replica:
        resume = partial(os.kill, replica.info("server")["process_id"], signal.SIGCONT)
        os.kill(replica.info("server")["process_id"], signal.SIGSTOP)
    try:
        yield resume
    finally:
        resume()


def test_a_repeated_claim_waits_for_its_replica_as_the_first_one_does(group: FailoverGroup, url: str) -> None:
    """The reply to the first one was lost, and the second writes nothing: Redis alone would not wait for it."""
    with connect(url) as redis, VoiceQueue(url) as queue:
        store = JobStore(redis, replicas_ack=1)
        job_id = queue.enqueue(voice()).id
        store.admit(NOW)
        claim = partial(store.claim_submit, [job_id], Stage.VOICE, "holder", NOW, lease_s=60)
        with frozen_replica(group):
            is_replicated = []
            for _ in range(2):
                [reply] = claim()
                assert isinstance(reply, SubmitClaim)
                is_replicated.append(reply.is_replicated)
                redis.connection_pool.disconnect()
            assert is_replicated == [False, False]

        [reply] = claim()

        assert isinstance(reply, SubmitClaim)
        assert reply.is_replicated


def test_a_claim_that_cannot_wait_for_replicas_is_not_used(url: str) -> None:
    """A user without the right to WAIT, or a Redis without this command: nothing is sent, and the worker knows of its
    claim, which would become unsure otherwise."""
    with connect(url) as admin, VoiceQueue(url) as queue:
        job_id = queue.enqueue(voice()).id
        admin.acl_setuser("impatient", enabled=True, passwords=["+pw"], keys="*", commands=["+@all", "-wait"])
        with connect(url.replace(f":{PASSWORD}@", "impatient:pw@")) as redis:
            store = JobStore(redis, replicas_ack=1)
            store.admit(NOW)

            [claim] = store.claim_submit([job_id], Stage.VOICE, "holder", NOW, lease_s=60)

            assert isinstance(claim, SubmitClaim)
            assert not claim.is_replicated


def test_a_call_that_cannot_wait_for_replicas_says_why_at_once(url: str) -> None:
    """It is not repeated: connecting replicas would not help."""
    with connect(url) as admin, connect(url) as redis:
        admin.acl_setuser("impatient", enabled=True, passwords=["+pw"], keys="*", commands=["+@all", "-wait"])
        impatient = url.replace(f":{PASSWORD}@", "impatient:pw@")
        with VoiceQueue(impatient, namespace="*", wait_for_redis_s=30, replicas_ack=1) as queue:
            redis.config_resetstat()
            for call in (partial(queue.enqueue, voice()), partial(queue.pause, reason="a test")):
                with pytest.raises(StoreUnavailableError, match="the 'wait' command"):
                    call()

        stats = redis.info("commandstats")
        assert sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("eval", "evalsha")) < 10


def test_what_replicas_have_not_recorded_is_not_acknowledged(group: FailoverGroup, url: str) -> None:
    """Neither a job nor a change; the error says what to do, and the same call again is no second job or change."""
    with VoiceQueue(url, namespace="*", replicas_ack=1) as queue:
        with frozen_replica(group):
            for call in (partial(queue.enqueue, voice(key="a")), partial(queue.pause, reason="a test")):
                with pytest.raises(StoreUnavailableError, match=r"0 of 1 replicas .* repeat the call"):
                    call()

        job = queue.enqueue(voice(key="a"))
        queue.pause(reason="a test")

        assert [listed.id for listed in queue.jobs()] == [job.id]
        assert [entry.action for entry in queue.audit_log().items] == ["pause"]


def test_a_cancellation_is_not_confirmed_before_replicas_have_it(group: FailoverGroup, url: str) -> None:
    """Neither that of the first call, nor one that an earlier call has made: a failover would revive the job."""
    with connect(url) as redis, VoiceQueue(url, replicas_ack=1) as queue:
        charging, queued = (queue.enqueue(voice(key=key)).id for key in ("charging", "queued"))
        store = JobStore(redis)
        store.admit(NOW)
        store.claim_submit([charging], Stage.VOICE, "holder", NOW, lease_s=60)
        with frozen_replica(group):
            for job_id in (charging, queued) * 2:
                with pytest.raises(StoreUnavailableError, match="0 of 1 replicas"):
                    queue.cancel(job_id)

        assert queue.cancel(charging).is_cancelling
        with pytest.raises(InvalidStateError, match="cancelled already"):
            queue.cancel(queued)


def test_a_producer_that_waits_for_redis_waits_for_its_replicas(group: FailoverGroup, url: str) -> None:
    """It gets its reply as soon as a replica has the job, and the job is reported as new."""
    with VoiceQueue(url, wait_for_redis_s=60, replicas_ack=1) as queue, frozen_replica(group) as resume:
        timer = threading.Timer(1.5, resume)
        timer.start()

        result = queue.enqueue(voice())

        assert result.is_new
        assert result.state is State.QUEUED


def test_a_number_of_replicas_is_not_negative(url: str) -> None:
    """It would be no requirement."""
    with pytest.raises(ValueError, match="replicas_ack must be 0 or more"):
        VoiceQueue(url, replicas_ack=-1)
