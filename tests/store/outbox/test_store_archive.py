"""Jobs to be archived are written with their songs, handed out once, claimed once, and never lost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from redis import Redis

from tests.store.life import CLIPS, NOW, accepted, brought_to, charging, everything_agrees, make, one, song_of
from tests.support.jobs import sung, voice
from voicequeue import ArchivedFile, InArchive, Job, Stage, State
from voicequeue.domain import serialization
from voicequeue.domain.job import Part
from voicequeue.storage.archive import ArchiveClaim
from voicequeue.storage.audit.audit import audit
from voicequeue.storage.audit.repair import repair
from voicequeue.storage.job_store import Store

FILE = ArchivedFile("s3://songs/b/j/c-1.mp3", 1_000, "a" * 64)
LATER = NOW + 60


@pytest.fixture
def store(store: Store, redis: Redis, prefix: str) -> Iterator[Store]:
    """Return a store that schedules songs for archiving; check its consistency after the test."""
    yield Store(redis, prefix, limits=store.controls.settings, archives=True)
    everything_agrees(redis, prefix)


def claim_job(store: Store, job: Job, now: float = LATER, holder: str = "h", *, lease: float = 60) -> ArchiveClaim:
    """Claim the job."""
    claim = store.archive.claim(job.id, holder, now, lease=lease)
    assert claim is not None
    return claim


def late_song(store: Store, state: State) -> Job:
    """Create a job that got its songs after it had settled."""
    job = make(
        store,
        brought_to(store, State.PENDING, sung()),
        State.ADMITTED,
        to_stage=Stage.MUSIC,
        fields={"persona_id": "p-1"},
    )
    charging(store, job.id)
    settled = make(store, accepted(store, job.id), state, due=NOW, fields={"settled": str(NOW)})
    return make(store, settled, state, fields={"clips": serialization.clips_text(CLIPS)})


# ── scheduling ────────────────────────────────────────────────────────────────────────────────────


def test_the_transition_that_stores_songs_schedules_them_for_archiving(store: Store) -> None:
    """In the same script, so that no crash can come between."""
    job = song_of(store, batch="b")

    [pending] = store.archive.pending()
    assert job.archive is InArchive.PENDING
    assert (pending.job_id, pending.batch, pending.since, pending.due) == (job.id, "b", LATER, LATER)
    assert (pending.tries, pending.reason, pending.given_up_at) == (0, "", None)


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELLED])
def test_late_songs_are_archived(store: Store, state: State) -> None:
    """They were paid for."""
    job = late_song(store, state)

    assert (job.state, job.archive) == (state, InArchive.PENDING)


def test_only_songs_are_archived_and_only_if_archiving_is_enabled(store: Store, redis: Redis, prefix: str) -> None:
    """Not a voice without songs, nor a failed job."""
    brought_to(store, State.SUCCEEDED, voice())
    brought_to(store, State.FAILED)
    song_of(Store(redis, prefix))

    assert list(store.archive.pending()) == []


def test_songs_created_before_archiving_was_enabled_can_be_archived(store: Store, redis: Redis, prefix: str) -> None:
    """Jobs without songs and unknown jobs are skipped."""
    before, without_songs = song_of(Store(redis, prefix)), brought_to(store, State.SUCCEEDED, voice())

    assert store.archive.again([before.id, without_songs.id, "unknown"], NOW) == [True, False, False]
    assert [pending.job_id for pending in store.archive.pending()] == [before.id]


# ── leases and claims ─────────────────────────────────────────────────────────────────────────────


def test_a_due_job_is_handed_out_once_until_its_lease_expires(store: Store) -> None:
    """It is handed out again if no worker claims it."""
    job = song_of(store)

    assert store.archive.hand_out(LATER - 1, patience=300) == []
    assert store.archive.hand_out(LATER, patience=300) == [job.id]
    assert store.archive.hand_out(LATER + 299, patience=300) == []
    assert store.archive.hand_out(LATER + 301, patience=300) == [job.id]


def test_unclaimed_jobs_are_limited(store: Store) -> None:
    """Messages do not pile up, however many songs there are."""
    jobs = [song_of(store, key=f"k{number}") for number in range(3)]

    first = store.archive.hand_out(LATER, patience=300, at_most=2)
    assert store.archive.hand_out(LATER, patience=300, at_most=2) == []
    claim_job(store, one(store, first[0]))

    assert store.archive.hand_out(LATER, patience=300, at_most=2) == [({job.id for job in jobs} - set(first)).pop()]


def test_a_job_is_claimed_by_one_worker_until_the_claim_expires(store: Store) -> None:
    """The same holder gets the same claim again: its first reply may have been lost."""
    job = song_of(store)
    store.archive.hand_out(LATER, patience=300)
    first = claim_job(store, job)

    assert store.archive.claim(job.id, "another", LATER + 59, lease=60) is None
    assert claim_job(store, job) == first
    assert claim_job(store, job, LATER + 61, "another").tries == 0


def test_a_purged_job_is_not_claimed(store: Store, redis: Redis) -> None:
    """Its entry is removed."""
    redis.zadd(store._space.key("archive:pending"), {"gone": 1})

    assert store.archive.claim("gone", "h", LATER, lease=60) is None
    assert list(store.archive.pending()) == []


def test_a_renewed_claim_does_not_expire(store: Store) -> None:
    """The lease starts again with each renewal."""
    job = song_of(store)
    claim = claim_job(store, job)

    assert store.archive.renew(claim, LATER + 50, lease=60)

    assert store.archive.claim(job.id, "another", LATER + 100, lease=60) is None
    assert store.archive.claim(job.id, "another", LATER + 111, lease=60) is not None


def test_a_worker_that_lost_its_claim_writes_nothing(store: Store) -> None:
    """For any outcome of its attempt."""
    job = song_of(store)
    lost = claim_job(store, job)
    claim_job(store, job, LATER + 61, "another")

    assert not store.archive.renew(lost, LATER + 62, lease=60)
    assert not store.archive.kept(lost, "c-1", Part.AUDIO, FILE, LATER + 62, lease=60)
    assert not store.archive.done(lost, LATER + 62)
    assert not store.archive.later(lost, LATER + 62, LATER, "no")
    assert not store.archive.give_up(lost, LATER + 62, "no")
    assert one(store, job.id).archive is InArchive.PENDING


# ── outcomes ──────────────────────────────────────────────────────────────────────────────────────


def test_an_archived_file_is_recorded_at_once_and_only_once(store: Store) -> None:
    """Beside upstream's link, while the other files are still pending."""
    job = song_of(store)
    claim = claim_job(store, job)

    assert store.archive.kept(claim, "c-1", Part.AUDIO, FILE, LATER, lease=60)
    assert store.archive.kept(claim, "c-1", Part.AUDIO, replace(FILE, size=7), LATER, lease=60)

    [first, second] = one(store, job.id).clips
    assert (first.archived_audio, first.archived_image, second.archived_audio) == (FILE, None, None)
    assert first.audio_url == CLIPS[0].audio_url
    assert store.archive.counted(0).files == 1


def test_a_job_whose_files_are_all_archived_is_done(store: Store) -> None:
    """It is not attempted again, and the fields of its attempts are deleted."""
    job = song_of(store)
    store.archive.later(claim_job(store, job), LATER, LATER + 30, "no")
    store.archive.done(claim_job(store, job, LATER + 30), LATER + 31)

    assert one(store, job.id).archive is InArchive.DONE
    assert [*store.archive.pending(), *store.archive.failed()] == []
    assert store.archive.counted(0).jobs == 1
    assert store.archive.again([job.id], LATER) == [False]


def test_a_failed_attempt_is_repeated_at_its_time(store: Store) -> None:
    """With the reason and the number of attempts."""
    job = song_of(store)
    assert store.archive.later(claim_job(store, job), LATER, LATER + 30, "HTTP 503")

    assert store.archive.hand_out(LATER + 29, patience=300) == []
    [pending] = store.archive.pending()
    assert (pending.tries, pending.reason, pending.due) == (1, "HTTP 503", LATER + 30)
    assert claim_job(store, job, LATER + 30).tries == 1


def test_a_failed_job_is_kept_until_it_is_retried(store: Store) -> None:
    """A retry starts a new retry period without attempts."""
    job = song_of(store)
    assert store.archive.give_up(claim_job(store, job), LATER, "HTTP 404")

    [entry] = store.archive.failed()
    assert (entry.reason, entry.given_up_at, entry.due) == ("HTTP 404", LATER, None)
    assert store.archive.hand_out(LATER + 1e6, patience=300) == []
    assert store.archive.again([job.id], LATER + 100) == [True]
    [pending] = store.archive.pending()
    assert (pending.since, pending.tries, pending.reason) == (LATER + 100, 0, "")


def test_a_retry_does_not_end_a_claim(store: Store) -> None:
    """A claimed job is due again only when its claim expires."""
    job = song_of(store)
    claim_job(store, job)

    assert store.archive.again([job.id], LATER + 1) == [True]
    assert store.archive.hand_out(LATER + 59, patience=300) == []
    assert store.archive.hand_out(LATER + 60, patience=300) == [job.id]


# ── the audit ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("state", ["pending", "failed"])
def test_the_audit_finds_jobs_that_would_never_be_archived(store: Store, redis: Redis, prefix: str, state: str) -> None:
    """The repair restores the index from the job's record."""
    job = song_of(store)
    if state == "failed":
        store.archive.give_up(claim_job(store, job), LATER, "no")
    redis.zrem(store._space.key(f"archive:{state}"), job.id)

    [finding] = audit(redis, prefix)

    assert str(finding) == f"archive:{state}: job {job.id} is missing"
    assert repair(redis, prefix, [finding], LATER) == [finding]
    assert audit(redis, prefix) == []


def test_the_repair_skips_a_job_that_was_archived_after_the_audit(store: Store, redis: Redis, prefix: str) -> None:
    """Archiving does not change the job's version, so the repair reads the record again."""
    job = song_of(store)
    claim = claim_job(store, job)
    redis.zrem(store._space.key("archive:pending"), job.id)
    findings = audit(redis, prefix)
    store.archive.done(claim, LATER)

    assert repair(redis, prefix, findings, LATER) == []
    assert audit(redis, prefix) == []
