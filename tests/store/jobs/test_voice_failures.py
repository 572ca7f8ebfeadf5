"""Shared voices that are not created: failed, cancelled, expired or unsure creators."""

from __future__ import annotations

import pytest
from redis import Redis

from tests.store.jobs.test_voices import shared, submitted, voiced
from tests.store.life import (
    NOW,
    apply_transition,
    assert_consistent,
    claim_admitted,
    enqueue_jobs,
    fail_job,
    get_job,
    ids,
    transition_of,
)
from tests.support.jobs import voice, voice_with_song
from voicequeue import FailureCode, Stage, State
from voicequeue.domain import transitions
from voicequeue.domain.claims import EnqueueOutcome
from voicequeue.storage.job_store import JobStore


@pytest.fixture(autouse=True)
def _agreed(redis: Redis, prefix: str, store: JobStore) -> object:
    yield
    assert_consistent(redis, prefix)


# ── failures ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "code", [FailureCode.REFUSED, FailureCode.UPSTREAM_FAILED, FailureCode.DEADLINE, FailureCode.ABANDONED]
)
def test_waiting_jobs_fail_with_the_voice(store: JobStore, code: FailureCode) -> None:
    """They get its code and a message that names its creator; none of them pays to fail again."""
    a, b, c = enqueue_jobs(store, *shared(3))
    fail_job(store, submitted(store, a), code, NOW + 5)

    for job in (get_job(store, b), get_job(store, c)):
        assert job.state is State.FAILED
        assert job.failure is not None
        assert (job.failure.code, job.failure.stage) == (code, Stage.VOICE)
        assert job.failure.message == f"shared voice from job {a}: no"
        assert job.settled_at == NOW + 5
    assert store.failures_by_code() == {code: 3}


def test_a_failed_song_does_not_affect_others(store: JobStore) -> None:
    """The voice exists; the others use it."""
    a, b = enqueue_jobs(store, *shared(2))
    fail_job(store, voiced(store, submitted(store, a)), FailureCode.MODERATED)

    assert get_job(store, b).state is State.QUEUED


def test_the_next_job_creates_the_voice_if_the_first_is_cancelled_uncharged(store: JobStore) -> None:
    """One customer's cancellation does not affect another customer."""
    a, b, c = enqueue_jobs(store, *shared(3))
    apply_transition(store, get_job(store, a), State.CANCELLED)

    assert [get_job(store, job_id).state for job_id in (b, c)] == [State.QUEUED, State.WAITING]
    assert "creates the voice" in store.timeline(b)[-1].reason


def test_the_next_job_creates_the_voice_if_the_first_expired(store: JobStore) -> None:
    """The deadline was only the first job's."""
    a, b = enqueue_jobs(store, *shared(2))
    fail_job(store, get_job(store, a), FailureCode.EXPIRED)

    assert get_job(store, b).state is State.QUEUED


def test_jobs_wait_for_the_charged_voice_of_a_cancelled_job(store: JobStore) -> None:
    """Upstream continues, and the others use the result."""
    a, b = enqueue_jobs(store, *shared(2))
    cancelled = apply_transition(store, submitted(store, a), State.CANCELLED, due=NOW + 5)
    assert get_job(store, b).state is State.WAITING

    apply_transition(store, cancelled, State.CANCELLED, fields={"persona_id": "p-late"})

    assert (get_job(store, b).state, get_job(store, b).persona_id) == (State.QUEUED, "p-late")


def test_the_next_job_creates_the_voice_if_a_cancelled_job_delivers_none(store: JobStore) -> None:
    """The late result is no longer polled."""
    a, b = enqueue_jobs(store, *shared(2))
    cancelled = apply_transition(store, submitted(store, a), State.CANCELLED, due=NOW + 5)
    apply_transition(store, cancelled, State.CANCELLED, reason="nothing came")

    assert (get_job(store, b).state, get_job(store, b).stage) == (State.QUEUED, Stage.VOICE)


def test_a_voice_that_arrives_late_is_used_by_later_jobs(store: JobStore) -> None:
    """And by jobs that failed with it, when they are retried."""
    a, b = enqueue_jobs(store, *shared(2))
    late = fail_job(store, submitted(store, a), FailureCode.DEADLINE)
    apply_transition(store, late, State.FAILED, fields={"persona_id": "p-late"})
    retried = apply_transition(store, get_job(store, b), State.QUEUED, fields={"failure": None, "settled": None})

    assert (retried.state, retried.stage, retried.persona_id) == (State.QUEUED, Stage.MUSIC, "p-late")


def test_of_retried_jobs_the_first_creates_the_voice(store: JobStore) -> None:
    """The others wait for it again."""
    a, b, c = enqueue_jobs(store, *shared(3))
    fail_job(store, submitted(store, a), FailureCode.UPSTREAM_FAILED)
    cleared: dict[str, str | None] = {"failure": None, "settled": None}
    states = [
        apply_transition(store, get_job(store, job_id), State.QUEUED, fields=cleared).state for job_id in (b, a, c)
    ]

    assert states == [State.QUEUED, State.WAITING, State.WAITING]
    assert store.failures_by_code() == {}


def test_jobs_wait_for_a_voice_that_is_polled_again(store: JobStore) -> None:
    """A retry after the deadline pays nothing; later jobs create no second voice."""
    [a] = enqueue_jobs(store, *shared(1))
    late = fail_job(store, submitted(store, a), FailureCode.DEADLINE)
    apply_transition(store, late, State.PENDING, fields={"failure": None, "settled": None, "submitted_at": str(NOW)})

    [b] = enqueue_jobs(store, voice_with_song(key="another", reuse=True))

    assert get_job(store, b).state is State.WAITING


def test_jobs_settled_with_the_creator_do_not_create_the_voice(store: JobStore) -> None:
    """If all expire or are cancelled in one call, none of them pays."""
    jobs = [get_job(store, job_id) for job_id in enqueue_jobs(store, *shared(3))]

    assert store.apply_transitions([transition_of(job, State.CANCELLED) for job in jobs], NOW) == [True] * 3


def test_a_retry_after_the_deadline_polls_the_charged_order_first(store: JobStore) -> None:
    """In any order of the ids, the voice is not paid twice."""
    a, b = enqueue_jobs(store, *shared(2))
    fail_job(store, submitted(store, a), FailureCode.DEADLINE)

    store.apply_transitions([transitions.retry(get_job(store, job_id), NOW + 9) for job_id in (b, a)], NOW + 9)

    assert [get_job(store, job_id).state for job_id in (a, b)] == [State.PENDING, State.WAITING]


def test_a_charged_order_replaces_a_queued_creator(store: JobStore) -> None:
    """A job that failed with it was retried before it."""
    a, b = enqueue_jobs(store, *shared(2))
    fail_job(store, submitted(store, a), FailureCode.DEADLINE)
    for job_id in (b, a):
        store.apply_transitions([transitions.retry(get_job(store, job_id), NOW + 9)], NOW + 9)

    assert [get_job(store, job_id).state for job_id in (a, b)] == [State.PENDING, State.WAITING]


def test_waiting_jobs_can_be_cancelled_and_expire(store: JobStore) -> None:
    """They behave like other jobs."""
    a, b, c = enqueue_jobs(store, *shared(2), voice_with_song(key="hurry", reuse=True, start_within_s=5))
    apply_transition(store, get_job(store, b), State.CANCELLED)

    assert [(job.job_id, job.state) for job in store.lease_expired(NOW + 6)] == [(c, State.WAITING)]
    fail_job(store, get_job(store, c), FailureCode.EXPIRED)
    assert get_job(store, a).state is State.QUEUED


def test_jobs_wait_for_an_unsure_voice(store: JobStore) -> None:
    """They wait until the charge is resolved."""
    a, b = enqueue_jobs(store, *shared(2))
    store.admit(NOW)
    claim_admitted(store, a)
    apply_transition(store, get_job(store, a), State.UNSURE)

    assert get_job(store, b).state is State.WAITING
    assert ids(store.get(list(store.list_ids(state=State.WAITING)))) == [b]


def test_a_hash_computed_later_creates_no_other_job(store: JobStore) -> None:
    """A file ingested again with a preflight adds nothing."""
    enqueue_jobs(store, voice_with_song(key="a"))
    again = voice_with_song(key="a", audio_sha256="a" * 64)

    assert store.enqueue([(again.job_id(), again)], NOW) == [EnqueueOutcome.EXISTING]


def test_a_voice_is_found_by_the_content_of_its_recording(store: JobStore) -> None:
    """A voice created with a known hash is used for every URL with that content."""
    [a] = enqueue_jobs(store, voice(key="a", audio_sha256="a" * 64))
    voiced(store, submitted(store, a))

    [b] = enqueue_jobs(
        store, voice_with_song(key="b", audio_url="https://mirror.example/x.wav", audio_sha256="a" * 64, reuse=True)
    )

    assert get_job(store, b).persona_id == f"persona-of-{a}"


def test_a_named_voice_ignores_voices_of_the_same_recording(store: JobStore) -> None:
    """Those are for jobs with `reuse`."""
    [a] = enqueue_jobs(store, voice(key="a"))
    voiced(store, submitted(store, a))

    [b] = enqueue_jobs(store, voice_with_song(key="b", voice="ana", batch="b"))

    assert (get_job(store, b).state, get_job(store, b).stage) == (State.QUEUED, Stage.VOICE)
