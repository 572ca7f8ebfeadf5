"""Jobs to be archived are written with their songs, handed out once, claimed once, and never lost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from redis import Redis

from tests.store.life import (
    CLIPS,
    NOW,
    accept_order,
    apply_transition,
    assert_consistent,
    claim_admitted,
    get_job,
    job_in_state,
    job_with_song,
)
from tests.support.jobs import voice, voice_with_song
from voicequeue import ArchivedFile, ArchiveState, Job, Stage, State
from voicequeue.domain import serialization
from voicequeue.domain.states import ClipPart
from voicequeue.storage.archive import ArchiveClaim
from voicequeue.storage.audit.audit import audit
from voicequeue.storage.audit.repair import repair
from voicequeue.storage.job_store import JobStore

FILE = ArchivedFile("s3://songs/b/j/c-1.mp3", 1_000, "a" * 64)
LATER = NOW + 60


@pytest.fixture
def store(store: JobStore, redis: Redis, prefix: str) -> Iterator[JobStore]:
    """Return a store that schedules songs for archiving; check its consistency after the test."""
    yield JobStore(redis, prefix, limits=store.flow_control.settings, archives=True)
    assert_consistent(redis, prefix)


def claim_job(store: JobStore, job: Job, now: float = LATER, holder: str = "h", *, lease: float = 60) -> ArchiveClaim:
    """Claim the job."""
    claim = store.archive.claim(job.id, holder, now, lease_s=lease)
    assert claim is not None
    return claim


def late_song(store: JobStore, state: State) -> Job:
    """Create a job that got its songs after it had settled."""
    job = apply_transition(
        store,
        job_in_state(store, State.PENDING, voice_with_song()),
        State.ADMITTED,
        to_stage=Stage.MUSIC,
        fields={"persona_id": "p-1"},
    )
    claim_admitted(store, job.id)
    settled = apply_transition(store, accept_order(store, job.id), state, due=NOW, fields={"settled": str(NOW)})
    return apply_transition(store, settled, state, fields={"clips": serialization.clips_text(CLIPS)})


# ── scheduling ────────────────────────────────────────────────────────────────────────────────────


def test_the_transition_that_stores_songs_schedules_them_for_archiving(store: JobStore) -> None:
    """In the same script, so that no crash can come between."""
    job = job_with_song(store, batch="b")

    [pending] = store.archive.pending()
    assert job.archive is ArchiveState.PENDING
    assert (pending.job_id, pending.batch, pending.since, pending.due_at) == (job.id, "b", LATER, LATER)
    assert (pending.attempts, pending.last_error, pending.failed_at) == (0, "", None)


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELLED])
def test_late_songs_are_archived(store: JobStore, state: State) -> None:
    """They were paid for."""
    job = late_song(store, state)

    assert (job.state, job.archive) == (state, ArchiveState.PENDING)


def test_only_songs_are_archived_and_only_if_archiving_is_enabled(store: JobStore, redis: Redis, prefix: str) -> None:
    """Not a voice without songs, nor a failed job."""
    job_in_state(store, State.SUCCEEDED, voice())
    job_in_state(store, State.FAILED)
    job_with_song(JobStore(redis, prefix))

    assert list(store.archive.pending()) == []


def test_songs_created_before_archiving_was_enabled_can_be_archived(store: JobStore, redis: Redis, prefix: str) -> None:
    """Jobs without songs and unknown jobs are skipped."""
    before, without_songs = job_with_song(JobStore(redis, prefix)), job_in_state(store, State.SUCCEEDED, voice())

    assert store.archive.retry([before.id, without_songs.id, "unknown"], NOW) == [True, False, False]
    assert [pending.job_id for pending in store.archive.pending()] == [before.id]


# ── leases and claims ─────────────────────────────────────────────────────────────────────────────


def test_a_due_job_is_handed_out_once_until_its_lease_expires(store: JobStore) -> None:
    """It is handed out again if no worker claims it."""
    job = job_with_song(store)

    assert store.archive.lease(LATER - 1, lease_s=300) == []
    assert store.archive.lease(LATER, lease_s=300) == [job.id]
    assert store.archive.lease(LATER + 299, lease_s=300) == []
    assert store.archive.lease(LATER + 301, lease_s=300) == [job.id]


def test_unclaimed_jobs_are_limited(store: JobStore) -> None:
    """Messages do not pile up, however many songs there are."""
    jobs = [job_with_song(store, key=f"k{number}") for number in range(3)]

    first = store.archive.lease(LATER, lease_s=300, limit=2)
    assert store.archive.lease(LATER, lease_s=300, limit=2) == []
    claim_job(store, get_job(store, first[0]))

    assert store.archive.lease(LATER, lease_s=300, limit=2) == [({job.id for job in jobs} - set(first)).pop()]


def test_a_job_is_claimed_by_one_worker_until_the_claim_expires(store: JobStore) -> None:
    """The same holder gets the same claim again: its first reply may have been lost."""
    job = job_with_song(store)
    store.archive.lease(LATER, lease_s=300)
    first = claim_job(store, job)

    assert store.archive.claim(job.id, "another", LATER + 59, lease_s=60) is None
    assert claim_job(store, job) == first
    assert claim_job(store, job, LATER + 61, "another").attempts == 0


def test_a_purged_job_is_not_claimed(store: JobStore, redis: Redis) -> None:
    """Its entry is removed."""
    redis.zadd(store._space.key("archive:pending"), {"gone": 1})

    assert store.archive.claim("gone", "h", LATER, lease_s=60) is None
    assert list(store.archive.pending()) == []


def test_a_renewed_claim_does_not_expire(store: JobStore) -> None:
    """The lease starts again with each renewal."""
    job = job_with_song(store)
    claim = claim_job(store, job)

    assert store.archive.renew(claim, LATER + 50, lease_s=60)

    assert store.archive.claim(job.id, "another", LATER + 100, lease_s=60) is None
    assert store.archive.claim(job.id, "another", LATER + 111, lease_s=60) is not None


def test_a_worker_that_lost_its_claim_writes_nothing(store: JobStore) -> None:
    """For any outcome of its attempt."""
    job = job_with_song(store)
    lost = claim_job(store, job)
    claim_job(store, job, LATER + 61, "another")

    assert not store.archive.renew(lost, LATER + 62, lease_s=60)
    assert not store.archive.record_file(lost, "c-1", ClipPart.AUDIO, FILE, LATER + 62, lease_s=60)
    assert not store.archive.mark_done(lost, LATER + 62)
    assert not store.archive.schedule_retry(lost, LATER + 62, LATER, "no")
    assert not store.archive.mark_failed(lost, LATER + 62, "no")
    assert get_job(store, job.id).archive is ArchiveState.PENDING


# ── outcomes ──────────────────────────────────────────────────────────────────────────────────────


def test_an_archived_file_is_recorded_at_once_and_only_once(store: JobStore) -> None:
    """Beside upstream's link, while the other files are still pending."""
    job = job_with_song(store)
    claim = claim_job(store, job)

    assert store.archive.record_file(claim, "c-1", ClipPart.AUDIO, FILE, LATER, lease_s=60)
    assert store.archive.record_file(claim, "c-1", ClipPart.AUDIO, replace(FILE, size=7), LATER, lease_s=60)

    [first, second] = get_job(store, job.id).clips
    assert (first.archived_audio, first.archived_image, second.archived_audio) == (FILE, None, None)
    assert first.audio_url == CLIPS[0].audio_url
    assert store.archive.counts(0).files == 1


def test_a_job_whose_files_are_all_archived_is_done(store: JobStore) -> None:
    """It is not attempted again, and the fields of its attempts are deleted."""
    job = job_with_song(store)
    store.archive.schedule_retry(claim_job(store, job), LATER, LATER + 30, "no")
    store.archive.mark_done(claim_job(store, job, LATER + 30), LATER + 31)

    assert get_job(store, job.id).archive is ArchiveState.DONE
    assert [*store.archive.pending(), *store.archive.failed()] == []
    assert store.archive.counts(0).jobs == 1
    assert store.archive.retry([job.id], LATER) == [False]


def test_a_failed_attempt_is_repeated_at_its_time(store: JobStore) -> None:
    """With the reason and the number of attempts."""
    job = job_with_song(store)
    assert store.archive.schedule_retry(claim_job(store, job), LATER, LATER + 30, "HTTP 503")

    assert store.archive.lease(LATER + 29, lease_s=300) == []
    [pending] = store.archive.pending()
    assert (pending.attempts, pending.last_error, pending.due_at) == (1, "HTTP 503", LATER + 30)
    assert claim_job(store, job, LATER + 30).attempts == 1


def test_a_failed_job_is_kept_until_it_is_retried(store: JobStore) -> None:
    """A retry starts a new retry period without attempts."""
    job = job_with_song(store)
    assert store.archive.mark_failed(claim_job(store, job), LATER, "HTTP 404")

    [entry] = store.archive.failed()
    assert (entry.last_error, entry.failed_at, entry.due_at) == ("HTTP 404", LATER, None)
    assert store.archive.lease(LATER + 1e6, lease_s=300) == []
    assert store.archive.retry([job.id], LATER + 100) == [True]
    [pending] = store.archive.pending()
    assert (pending.since, pending.attempts, pending.last_error) == (LATER + 100, 0, "")


def test_a_retry_does_not_end_a_claim(store: JobStore) -> None:
    """A claimed job is due again only when its claim expires."""
    job = job_with_song(store)
    claim_job(store, job)

    assert store.archive.retry([job.id], LATER + 1) == [True]
    assert store.archive.lease(LATER + 59, lease_s=300) == []
    assert store.archive.lease(LATER + 60, lease_s=300) == [job.id]


# ── the audit ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("state", ["pending", "failed"])
def test_the_audit_finds_jobs_that_would_never_be_archived(
    store: JobStore, redis: Redis, prefix: str, state: str
) -> None:
    """The repair restores the index from the job's record."""
    job = job_with_song(store)
    if state == "failed":
        store.archive.mark_failed(claim_job(store, job), LATER, "no")
    redis.zrem(store._space.key(f"archive:{state}"), job.id)

    [finding] = audit(redis, prefix)

    assert str(finding) == f"archive:{state}: job {job.id} is missing"
    assert repair(redis, prefix, [finding], LATER) == [finding]
    assert audit(redis, prefix) == []


def test_the_repair_skips_a_job_that_was_archived_after_the_audit(store: JobStore, redis: Redis, prefix: str) -> None:
    """Archiving does not change the job's version, so the repair reads the record again."""
    job = job_with_song(store)
    claim = claim_job(store, job)
    redis.zrem(store._space.key("archive:pending"), job.id)
    findings = audit(redis, prefix)
    store.archive.mark_done(claim, LATER)

    assert repair(redis, prefix, findings, LATER) == []
    assert audit(redis, prefix) == []
