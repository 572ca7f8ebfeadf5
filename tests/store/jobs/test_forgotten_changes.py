"""Changes that a failover has forgotten: what they led to must not change what has happened without them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from redis import Redis

from tasks import decisions
from tests.store.life import (
    NOW,
    accept_order,
    apply_transition,
    assert_consistent,
    claim_submit,
    dump_keys,
    get_job,
    job_in_state,
    transition_of,
)
from voicequeue import Job, Stage, State
from voicequeue.domain.claims import StalledJob, SubmitClaim
from voicequeue.storage.job_store import JobStore

#: Prefix of the copies, which are what a replica has.
REPLICA = "replica:"


@contextmanager
def forgotten(redis: Redis, prefix: str) -> Iterator[None]:
    """Forget what is written meanwhile, as a failover to a replica that has not received it does."""
    names = list(dump_keys(redis, prefix))
    for name in names:
        redis.copy(name, REPLICA + name)
    yield
    redis.delete(*dump_keys(redis, prefix))
    for name in names:
        redis.rename(REPLICA + name, name)


def claimed(store: JobStore, job: Job, holder: str) -> SubmitClaim:
    """Return a claim of the job's POST."""
    claim = claim_submit(store, job.id, job.stage, holder, NOW + 1, lease=90)
    assert isinstance(claim, SubmitClaim)
    return claim


def test_a_forgotten_claim_does_not_release_that_of_another_worker(store: JobStore, redis: Redis, prefix: str) -> None:
    """Both claims have the same version. If the first worker, whose claim no replica had, queued the job again, the job
    would be sent and paid twice."""
    job = job_in_state(store, State.ADMITTED)
    with forgotten(redis, prefix):
        lost = claimed(store, job, "lost")

    current = claimed(store, job, "current")

    assert current.version == lost.version
    assert store.apply_transitions([decisions.not_sent(lost, decisions.UNREPLICATED)], NOW + 2) == [False]
    assert get_job(store, job.id).state is State.CHARGING
    assert store.apply_transitions([decisions.not_sent(current, decisions.STOPPING)], NOW + 2) == [True]
    assert_consistent(redis, prefix)


def test_a_forgotten_claim_does_not_send_an_unsure_order_again(store: JobStore, redis: Redis, prefix: str) -> None:
    """The order of the other claim may have been charged: neither a late decision nor a lost reply of the forgotten one
    says anything about it."""
    job = job_in_state(store, State.ADMITTED)
    with forgotten(redis, prefix):
        lost = claimed(store, job, "lost")
    claimed(store, job, "current")
    unsure = apply_transition(store, get_job(store, job.id), State.UNSURE)
    late = decisions.answered_late(unsure, decisions.not_sent(lost, decisions.UNREPLICATED))
    stalled = StalledJob(job.id, unsure.version, State.UNSURE, unsure.stage)

    assert late is not None
    assert store.apply_transitions([late], NOW + 2) == [False]
    assert store.apply_transitions([decisions.claim_not_received(stalled, "lost", NOW + 2)], NOW + 2) == [False]
    assert get_job(store, job.id).state is State.UNSURE
    assert store.apply_transitions([decisions.claim_not_received(stalled, "current", NOW + 2)], NOW + 2) == [True]


def test_a_transition_from_a_forgotten_stage_is_not_applied(store: JobStore, redis: Redis, prefix: str) -> None:
    """The late poll of a voice would have its song ordered again, where both stages have the same version."""
    job = job_in_state(store, State.ADMITTED)
    with forgotten(redis, prefix):
        assert store.apply_transitions([decisions.not_sent(claimed(store, job, "first"), "stopped")], NOW + 2) == [True]
        store.admit(NOW + 2, at_most=1)
        claimed(store, get_job(store, job.id), "second")
        voice = accept_order(store, job.id, due=NOW + 20)
    claimed(store, job, "voice")
    created = accept_order(store, job.id, due=NOW + 20)
    admitted = apply_transition(
        store, created, State.ADMITTED, to_stage=Stage.MUSIC, fields={"persona_id": "p1"}, due=NOW + 90
    )
    claimed(store, admitted, "song")
    song = accept_order(store, job.id, due=NOW + 20)

    assert (voice.version, voice.state, voice.stage) == (song.version, song.state, Stage.VOICE)
    late = transition_of(voice, State.ADMITTED, to_stage=Stage.MUSIC, due=NOW + 90)
    assert store.apply_transitions([late], NOW + 3) == [False]
    assert get_job(store, job.id) == song
