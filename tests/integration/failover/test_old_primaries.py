"""A primary that still runs while one of its replicas has been made the primary, as in a switch by an operator."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis import Redis

from tests.support.jobs import voice
from tests.support.sentinels import PASSWORD, FailoverGroup
from voicequeue import StoreUnavailableError, VoiceQueue
from voicequeue.domain.claims import SubmitClaim
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


def _is_replicated(redis: Redis, job_id: str, *, replicas_ack: int) -> bool:
    """Claim a job; return whether its order may be sent."""
    store = JobStore(redis, replicas_ack=replicas_ack)
    store.admit(NOW)
    [claim] = store.claim_submit([job_id], Stage.VOICE, "holder", NOW, lease_s=60)
    assert isinstance(claim, SubmitClaim)
    return claim.is_replicated
