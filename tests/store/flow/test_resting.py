"""Jobs that rest until their recording is checked again: they hold no slot, and keep no other job from its turn."""

from __future__ import annotations

import pytest
from redis import Redis

from tests.store.life import NOW, assert_consistent, claim_admitted, enqueue_jobs, get_job, transition_of
from tests.support.jobs import numbered_voices, voice
from voicequeue import State
from voicequeue.domain.recording_check import Recheck, recheck_text
from voicequeue.storage.audit.audit import audit
from voicequeue.storage.job_store import JobStore


def rest(store: JobStore, job_ids: list[str], until: float, *, keeps_place: bool = False) -> None:
    """Admit all jobs, and let these rest."""
    store.admit(NOW, at_most=10_000)
    fields = {"recheck": recheck_text(Recheck(NOW, NOW, 1))}
    fields |= {} if keeps_place else {"requeued_at": f"{until:.6f}"}
    jobs = [get_job(store, job_id) for job_id in job_ids]
    moves = [transition_of(job, State.QUEUED, rests_until=until, fields=fields) for job in jobs]
    assert all(store.apply_transitions(moves, NOW))


def admitted(store: JobStore, now: float) -> list[str]:
    """Admit jobs and return them."""
    return [job_id for job_ids in store.admit(now, at_most=10_000).by_stage.values() for job_id in job_ids]


def test_a_resting_job_is_admitted_when_its_time_has_come(store: JobStore, redis: Redis, prefix: str) -> None:
    """Not before; then the store remembers nothing of it once it is claimed."""
    [job_id] = enqueue_jobs(store, voice())
    rest(store, [job_id], NOW + 30)
    assert admitted(store, NOW + 29) == []
    assert audit(redis, prefix) == []
    assert_consistent(redis, prefix)
    assert admitted(store, NOW + 30) == [job_id]
    claim_admitted(store, job_id, NOW + 30)
    assert redis.hget(f"{{{prefix}}}:job:{job_id}", "recheck") is None
    assert redis.exists(f"{{{prefix}}}:resting") == 0
    assert_consistent(redis, prefix)


@pytest.mark.endurance
def test_jobs_that_rest_are_passed_over_in_bounded_time(store: JobStore, redis: Redis, prefix: str) -> None:
    """However many there are, new jobs of their lane precede those behind it, and other lanes all of them."""
    dead = enqueue_jobs(store, *numbered_voices(1_500, batch="b"))
    rest(store, dead, NOW + 600)
    [same_lane] = enqueue_jobs(store, voice(batch="b", key="same"), now=NOW + 1)
    [other_lane] = enqueue_jobs(store, voice(batch="c", key="other"), now=NOW + 1)
    assert sorted(admitted(store, NOW + 2)) == sorted([same_lane, other_lane])
    assert len(admitted(store, NOW + 601)) == 1_500
    assert_consistent(redis, prefix)


def test_a_cancelled_job_rests_no_longer(store: JobStore, redis: Redis, prefix: str) -> None:
    """Its entry leaves with it."""
    [job_id] = enqueue_jobs(store, voice())
    rest(store, [job_id], NOW + 30, keeps_place=True)
    job = get_job(store, job_id)
    assert store.apply_transitions([transition_of(job, State.CANCELLED, fields={"settled": f"{NOW:.6f}"})], NOW)
    assert_consistent(redis, prefix)
    assert audit(redis, prefix) == []


def test_a_clock_that_was_set_back_does_not_prolong_a_rest(store: JobStore) -> None:
    """A time that no rest reaches was written before."""
    [job_id] = enqueue_jobs(store, voice())
    rest(store, [job_id], NOW + 600)
    assert admitted(store, NOW - 86_400) == [job_id]
