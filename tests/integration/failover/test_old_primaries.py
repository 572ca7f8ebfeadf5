"""A primary that still runs while one of its replicas has been made the primary, as in a switch by an operator."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest
from redis import Redis

from tasks import decisions
from tests.support.jobs import voice
from tests.support.sentinels import PASSWORD, FailoverGroup, failover_group
from voicequeue import StoreUnavailableError, VoiceQueue
from voicequeue.domain.claims import SubmitClaim
from voicequeue.domain.gate import HoldEffect
from voicequeue.domain.serialization import task_field
from voicequeue.domain.stage import Stage
from voicequeue.storage.connection.client import connect
from voicequeue.storage.job_store import JobStore

NOW = 1_800_000_000.0


def test_an_old_primary_sends_nothing_if_all_replicas_must_record_it(tmp_path: Path) -> None:
    """Another replica follows it for a moment longer, and records what the new primary never gets. As many replicas
    as there are must record an order before it is sent, and a job before it is accepted: the new primary is one of
    them."""
    group = FailoverGroup(tmp_path, servers=3, sentinels=0)
    try:
        group.start()
        url = f"redis://:{PASSWORD}@127.0.0.1:{group.ports[0]}/0"
        with VoiceQueue(url, replicas_ack=2) as queue, connect(url) as redis, group.client(group.ports[1]) as replica:
            job_id = queue.enqueue(voice()).id
            replica.slaveof()

            assert _is_replicated(redis, job_id, replicas_ack=1)  # although the new primary does not know it
            assert not _is_replicated(redis, job_id, replicas_ack=2)
            with pytest.raises(StoreUnavailableError, match="1 of 2 replicas have recorded it"):
                queue.enqueue(voice(key="other"))
    finally:
        group.stop()


def test_the_answer_to_an_order_is_written_to_the_new_primary(tmp_path: Path) -> None:
    """The old one still accepts it, and forgets it when it becomes a replica. The job would become unsure, although no
    worker died."""
    with failover_group(tmp_path) as group, connect(group.url, wait_s=60) as redis:
        claim = _claim(redis, group.url)
        answer = decisions.accepted(claim, "task-1", NOW, 5.0)
        old, new = group.primary(), group.fail_over("switched")
        with group.client(old) as before, group.client(new) as after:
            assert before.role()[0] == "master"

            effects = JobStore(redis, replicas_ack=1).apply_with_effects([answer], NOW, within_s=20.0)

            assert effects == [HoldEffect.NONE]
            assert after.hget(f"{{voicequeue}}:job:{claim.job_id}", task_field(Stage.VOICE)) == "task-1"


def test_an_answer_waits_for_a_replica_and_is_applied_once(tmp_path: Path) -> None:
    """It is written again meanwhile, and the worker learns that it was applied."""
    group = FailoverGroup(tmp_path, sentinels=0)
    try:
        group.start()
        url = f"redis://:{PASSWORD}@127.0.0.1:{group.ports[0]}/0"
        with connect(url) as redis, group.client(group.ports[1]) as replica:
            claim = _claim(redis, url)
            process = int(replica.info("server")["process_id"])
            os.kill(process, signal.SIGSTOP)
            threading.Timer(2.5, os.kill, (process, signal.SIGCONT)).start()

            answer = decisions.accepted(claim, "task-1", NOW, 5.0)
            effects = JobStore(redis, replicas_ack=1).apply_with_effects([answer], NOW, within_s=20.0)

            assert effects == [HoldEffect.NONE]
            version, state = replica.hmget(f"{{voicequeue}}:job:{claim.job_id}", "version", "state")
            assert (version, state) == (str(claim.version + 1), "pending")
    finally:
        group.stop()


def _claim(redis: Redis, url: str) -> SubmitClaim:
    """Enqueue a job and claim it for its order."""
    with VoiceQueue(url, replicas_ack=1) as queue:
        job_id = queue.enqueue(voice()).id
    store = JobStore(redis, replicas_ack=1)
    store.admit(NOW)
    [claim] = store.claim_submit([job_id], Stage.VOICE, "holder", NOW, lease_s=60)
    assert isinstance(claim, SubmitClaim)
    assert claim.is_replicated
    return claim


def _is_replicated(redis: Redis, job_id: str, *, replicas_ack: int) -> bool:
    """Claim a job; return whether its order may be sent."""
    store = JobStore(redis, replicas_ack=replicas_ack)
    store.admit(NOW)
    [claim] = store.claim_submit([job_id], Stage.VOICE, "holder", NOW, lease_s=60)
    assert isinstance(claim, SubmitClaim)
    return claim.is_replicated
