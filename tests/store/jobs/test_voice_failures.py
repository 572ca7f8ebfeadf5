"""Shared voices that are not created: failed, cancelled, expired or unsure creators."""

from __future__ import annotations

import pytest
from redis import Redis

from tests.store.jobs.test_voices import shared, submitted, voiced
from tests.store.life import NOW, charging, everything_agrees, failed, ids, make, move, one, put
from tests.support.jobs import sung, voice
from voicequeue import Code, Stage, State
from voicequeue.domain import transitions
from voicequeue.domain.claims import Outcome
from voicequeue.storage.job_store import Store


@pytest.fixture(autouse=True)
def _agreed(redis: Redis, prefix: str, store: Store) -> object:
    yield
    everything_agrees(redis, prefix)


# ── failures ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("code", [Code.REFUSED, Code.UPSTREAM_FAILED, Code.DEADLINE, Code.ABANDONED])
def test_waiting_jobs_fail_with_the_voice(store: Store, code: Code) -> None:
    """They get its code and a message that names its creator; none of them pays to fail again."""
    a, b, c = put(store, *shared(3))
    failed(store, submitted(store, a), code, NOW + 5)

    for job in (one(store, b), one(store, c)):
        assert job.state is State.FAILED
        assert job.failure is not None
        assert (job.failure.code, job.failure.stage) == (code, Stage.VOICE)
        assert job.failure.message == f"shared voice from job {a}: no"
        assert job.settled_at == NOW + 5
    assert store.failures() == {code: 3}


def test_a_failed_song_does_not_affect_others(store: Store) -> None:
    """The voice exists; the others use it."""
    a, b = put(store, *shared(2))
    failed(store, voiced(store, submitted(store, a)), Code.MODERATED)

    assert one(store, b).state is State.QUEUED


def test_the_next_job_creates_the_voice_if_the_first_is_cancelled_uncharged(store: Store) -> None:
    """One customer's cancellation does not affect another customer."""
    a, b, c = put(store, *shared(3))
    make(store, one(store, a), State.CANCELLED)

    assert [one(store, job_id).state for job_id in (b, c)] == [State.QUEUED, State.WAITING]
    assert "creates the voice" in store.timeline(b)[-1].reason


def test_the_next_job_creates_the_voice_if_the_first_expired(store: Store) -> None:
    """The deadline was only the first job's."""
    a, b = put(store, *shared(2))
    failed(store, one(store, a), Code.EXPIRED)

    assert one(store, b).state is State.QUEUED


def test_jobs_wait_for_the_charged_voice_of_a_cancelled_job(store: Store) -> None:
    """Upstream continues, and the others use the result."""
    a, b = put(store, *shared(2))
    cancelled = make(store, submitted(store, a), State.CANCELLED, due=NOW + 5)
    assert one(store, b).state is State.WAITING

    make(store, cancelled, State.CANCELLED, fields={"persona_id": "p-late"})

    assert (one(store, b).state, one(store, b).persona_id) == (State.QUEUED, "p-late")


def test_the_next_job_creates_the_voice_if_a_cancelled_job_delivers_none(store: Store) -> None:
    """The late result is no longer polled."""
    a, b = put(store, *shared(2))
    cancelled = make(store, submitted(store, a), State.CANCELLED, due=NOW + 5)
    make(store, cancelled, State.CANCELLED, reason="nothing came")

    assert (one(store, b).state, one(store, b).stage) == (State.QUEUED, Stage.VOICE)


def test_a_voice_that_arrives_late_is_used_by_later_jobs(store: Store) -> None:
    """And by jobs that failed with it, when they are retried."""
    a, b = put(store, *shared(2))
    late = failed(store, submitted(store, a), Code.DEADLINE)
    make(store, late, State.FAILED, fields={"persona_id": "p-late"})
    retried = make(store, one(store, b), State.QUEUED, fields={"failure": None, "settled": None})

    assert (retried.state, retried.stage, retried.persona_id) == (State.QUEUED, Stage.MUSIC, "p-late")


def test_of_retried_jobs_the_first_creates_the_voice(store: Store) -> None:
    """The others wait for it again."""
    a, b, c = put(store, *shared(3))
    failed(store, submitted(store, a), Code.UPSTREAM_FAILED)
    cleared: dict[str, str | None] = {"failure": None, "settled": None}
    states = [make(store, one(store, job_id), State.QUEUED, fields=cleared).state for job_id in (b, a, c)]

    assert states == [State.QUEUED, State.WAITING, State.WAITING]
    assert store.failures() == {}


def test_jobs_wait_for_a_voice_that_is_polled_again(store: Store) -> None:
    """A retry after the deadline pays nothing; later jobs create no second voice."""
    [a] = put(store, *shared(1))
    late = failed(store, submitted(store, a), Code.DEADLINE)
    make(store, late, State.PENDING, fields={"failure": None, "settled": None, "since": str(NOW)})

    [b] = put(store, sung(key="another", reuse=True))

    assert one(store, b).state is State.WAITING


def test_jobs_settled_with_the_creator_do_not_create_the_voice(store: Store) -> None:
    """If all expire or are cancelled in one call, none of them pays."""
    jobs = [one(store, job_id) for job_id in put(store, *shared(3))]

    assert store.apply([move(job, State.CANCELLED) for job in jobs], NOW) == [True] * 3


def test_a_retry_after_the_deadline_polls_the_charged_order_first(store: Store) -> None:
    """In any order of the ids, the voice is not paid twice."""
    a, b = put(store, *shared(2))
    failed(store, submitted(store, a), Code.DEADLINE)

    store.apply([transitions.retry(one(store, job_id), NOW + 9) for job_id in (b, a)], NOW + 9)

    assert [one(store, job_id).state for job_id in (a, b)] == [State.PENDING, State.WAITING]


def test_a_charged_order_replaces_a_queued_creator(store: Store) -> None:
    """A job that failed with it was retried before it."""
    a, b = put(store, *shared(2))
    failed(store, submitted(store, a), Code.DEADLINE)
    for job_id in (b, a):
        store.apply([transitions.retry(one(store, job_id), NOW + 9)], NOW + 9)

    assert [one(store, job_id).state for job_id in (a, b)] == [State.PENDING, State.WAITING]


def test_waiting_jobs_can_be_cancelled_and_expire(store: Store) -> None:
    """They behave like other jobs."""
    a, b, c = put(store, *shared(2), sung(key="hurry", reuse=True, start_within_s=5))
    make(store, one(store, b), State.CANCELLED)

    assert [(job.job_id, job.state) for job in store.expired(NOW + 6)] == [(c, State.WAITING)]
    failed(store, one(store, c), Code.EXPIRED)
    assert one(store, a).state is State.QUEUED


def test_jobs_wait_for_an_unsure_voice(store: Store) -> None:
    """They wait until the charge is resolved."""
    a, b = put(store, *shared(2))
    store.admit(NOW)
    charging(store, a)
    make(store, one(store, a), State.UNSURE)

    assert one(store, b).state is State.WAITING
    assert ids(store.get(list(store.ids(state=State.WAITING)))) == [b]


def test_a_hash_computed_later_creates_no_other_job(store: Store) -> None:
    """A file ingested again with a preflight adds nothing."""
    put(store, sung(key="a"))
    again = sung(key="a", audio_sha256="a" * 64)

    assert store.enqueue([(again.id(), again)], NOW) == [Outcome.KNOWN]


def test_a_voice_is_found_by_the_content_of_its_recording(store: Store) -> None:
    """A voice created with a known hash is used for every URL with that content."""
    [a] = put(store, voice(key="a", audio_sha256="a" * 64))
    voiced(store, submitted(store, a))

    [b] = put(store, sung(key="b", audio_url="https://mirror.example/x.wav", audio_sha256="a" * 64, reuse=True))

    assert one(store, b).persona_id == f"persona-of-{a}"


def test_a_named_voice_ignores_voices_of_the_same_recording(store: Store) -> None:
    """Those are for jobs with `reuse`."""
    [a] = put(store, voice(key="a"))
    voiced(store, submitted(store, a))

    [b] = put(store, sung(key="b", voice="ana", batch="b"))

    assert (one(store, b).state, one(store, b).stage) == (State.QUEUED, Stage.VOICE)
