"""The submit rate: how many POSTs leave within a minute."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from redis import Redis

from tests.store.life import NOW, claim_submit, enqueue_jobs, get_job
from tests.support.jobs import numbered_voices
from voicequeue import Stage, State
from voicequeue.domain.claims import SubmitClaim, SubmitDeferred
from voicequeue.domain.gate import Limits
from voicequeue.storage.job_store import JobStore

Build = Callable[..., JobStore]


@pytest.fixture
def build(redis: Redis, prefix: str) -> Build:
    """Return a factory of stores of this test's jobs, with given limits."""
    return lambda **limits: JobStore(redis, prefix, limits=Limits(**limits))


# ── the rate ──────────────────────────────────────────────────────────────────────────────────────


def posts(store: JobStore, job_ids: list[str], times: Iterator[float]) -> list[float]:
    """Return when each job can be submitted, if all are tried at these times."""
    remaining_ids, times_submitted = list(job_ids), []
    for now in times:
        for job_id in list(remaining_ids):
            if not isinstance(claim_submit(store, job_id, Stage.VOICE, "h", now, lease=900), SubmitClaim):
                break
            remaining_ids.remove(job_id)
            times_submitted.append(now)
        if not remaining_ids:
            break
    return times_submitted


def ticks(seconds: float, start: float = NOW) -> Iterator[float]:
    """Yield times with this interval."""
    return (start + n * seconds for n in range(100_000))


@pytest.mark.parametrize("rate", [6, 60, 240])
def test_posts_are_spread_evenly_over_the_minute(build: Build, rate: int) -> None:
    """No minute has more than the rate and the allowed burst."""
    store = build(in_flight=500, initial_in_flight=500)
    job_ids = enqueue_jobs(store, *numbered_voices(rate + 10))
    store.admit(NOW)
    store.flow_control.set_limits(submit_rate=rate)

    submitted_at = posts(store, job_ids, ticks(0.25))

    burst = max(1, rate // 60)
    assert len([at for at in submitted_at if at < NOW + 60]) <= rate + burst
    apart = [later - earlier for earlier, later in zip(submitted_at[burst:], submitted_at[burst + 1 :], strict=False)]
    assert max(apart) <= 60 / rate + 0.26
    assert sum(at == NOW for at in submitted_at) == burst


def test_a_post_that_is_too_early_gets_a_retry_time(build: Build, redis: Redis, prefix: str) -> None:
    """It keeps its slot, is due then, and nothing is written."""
    store = build(submit_rate=6.0)
    first, second, *_ = enqueue_jobs(store, *numbered_voices(3))
    store.flow_control.set_limits(submit_rate=0)
    store.admit(NOW)
    store.flow_control.set_limits(submit_rate=None)
    assert isinstance(claim_submit(store, first, Stage.VOICE, "h", NOW, lease=9), SubmitClaim)

    reply = claim_submit(store, second, Stage.VOICE, "h", NOW + 4, lease=9)
    assert isinstance(reply, SubmitDeferred)
    assert reply.retry_in_s == pytest.approx(6)

    job = get_job(store, second)
    assert (job.state, job.attempt, job.version) == (State.ADMITTED, 0, 2)
    assert redis.zscore(f"{{{prefix}}}:in_flight", second) == pytest.approx(NOW + 10)
    assert isinstance(claim_submit(store, second, Stage.VOICE, "h", NOW + 10, lease=9), SubmitClaim)


def test_a_retry_takes_no_second_token(build: Build) -> None:
    """The first reply was lost."""
    store = build(submit_rate=6.0)
    first, *_ = enqueue_jobs(store, *numbered_voices(2))
    store.admit(NOW)
    claim = claim_submit(store, first, Stage.VOICE, "h", NOW, lease=9)

    assert claim_submit(store, first, Stage.VOICE, "h", NOW, lease=9) == claim


def test_the_rate_is_shared_by_all_workers(build: Build) -> None:
    """Two workers together get as much as one."""
    one_worker, other = build(submit_rate=60.0), build(submit_rate=60.0)
    one_worker.flow_control.set_limits(submit_rate=0)
    job_ids = enqueue_jobs(one_worker, *numbered_voices(10))
    one_worker.admit(NOW)
    one_worker.flow_control.set_limits(submit_rate=None)

    times: list[int] = []
    for n in range(31):
        for worker in (one_worker, other):
            if isinstance(
                claim_submit(worker, job_ids[len(times)], Stage.VOICE, "h", NOW + n / 10, lease=900), SubmitClaim
            ):
                times.append(n)

    assert times == [0, 10, 20, 30]


def test_unused_rate_does_not_accumulate(build: Build) -> None:
    """After an hour without POSTs, the burst is one second's worth."""
    store = build(submit_rate=120.0)
    store.flow_control.set_limits(submit_rate=0)
    job_ids = enqueue_jobs(store, *numbered_voices(9))
    store.admit(NOW)
    store.flow_control.set_limits(submit_rate=None)
    claim_submit(store, job_ids[0], Stage.VOICE, "h", NOW, lease=9_000)

    late = [claim_submit(store, job_id, Stage.VOICE, "h", NOW + 3_600, lease=9) for job_id in job_ids[1:]]

    assert [isinstance(claim, SubmitClaim) for claim in late] == [True, True] + [False] * 6


def test_jobs_beyond_the_rate_hold_no_slot(build: Build) -> None:
    """In the backlog other jobs can still precede them."""
    store = build(submit_rate=60.0)
    enqueue_jobs(store, *numbered_voices(90))

    admitted = store.admit(NOW).by_stage[Stage.VOICE]

    assert len(admitted) == 3
    assert store.admit(NOW).by_stage == {}
    assert isinstance(claim_submit(store, admitted[0], Stage.VOICE, "h", NOW, lease=9), SubmitClaim)
    assert len(store.admit(NOW).by_stage[Stage.VOICE]) == 1
