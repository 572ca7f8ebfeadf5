"""What is to be archived: written with the songs, handed out once, claimed once, and never forgotten."""

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
    """A store that has songs archived, and agrees with itself afterwards."""
    yield Store(redis, prefix, limits=store.controls.settings, archives=True)
    everything_agrees(redis, prefix)


def claimed(store: Store, job: Job, now: float = LATER, holder: str = "h", *, lease: float = 60) -> ArchiveClaim:
    """The job, to be tried."""
    fetch = store.archive.claim(job.id, holder, now, lease=lease)
    assert fetch is not None
    return fetch


def late_song(store: Store, state: State) -> Job:
    """A job that was over before its song came."""
    job = make(
        store,
        brought_to(store, State.PENDING, sung()),
        State.ADMITTED,
        to_stage=Stage.MUSIC,
        fields={"persona_id": "p-1"},
    )
    charging(store, job.id)
    over = make(store, accepted(store, job.id), state, due=NOW, fields={"settled": str(NOW)})
    return make(store, over, state, fields={"clips": serialization.clips_text(CLIPS)})


# ── what is to be archived ────────────────────────────────────────────────────────────────────────


def test_songs_are_to_be_archived_from_the_move_that_stores_them_on(store: Store) -> None:
    """In the same script: no crash comes between."""
    job = song_of(store, batch="b")

    [pending] = store.archive.pending()
    assert job.archive is InArchive.PENDING
    assert (pending.job_id, pending.batch, pending.since, pending.due) == (job.id, "b", LATER, LATER)
    assert (pending.tries, pending.reason, pending.given_up_at) == (0, "", None)


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELLED])
def test_songs_that_come_late_are_archived_as_well(store: Store, state: State) -> None:
    """They were paid for."""
    job = late_song(store, state)

    assert (job.state, job.archive) == (state, InArchive.PENDING)


def test_nothing_else_is(store: Store, redis: Redis, prefix: str) -> None:
    """A voice alone, what failed, and all where there is no archive."""
    brought_to(store, State.SUCCEEDED, voice())
    brought_to(store, State.FAILED)
    song_of(Store(redis, prefix))

    assert list(store.archive.pending()) == []


def test_songs_that_came_before_there_was_an_archive_can_be_wanted(store: Store, redis: Redis, prefix: str) -> None:
    """Those of the jobs that have some."""
    before, alone = song_of(Store(redis, prefix)), brought_to(store, State.SUCCEEDED, voice())

    assert store.archive.again([before.id, alone.id, "nobody"], NOW) == [True, False, False]
    assert [each.job_id for each in store.archive.pending()] == [before.id]


# ── handing out, claiming ─────────────────────────────────────────────────────────────────────────


def test_each_is_handed_out_once_when_it_is_due(store: Store) -> None:
    """And again if nobody claims it."""
    job = song_of(store)

    assert store.archive.hand_out(LATER - 1, patience=300) == []
    assert store.archive.hand_out(LATER, patience=300) == [job.id]
    assert store.archive.hand_out(LATER + 299, patience=300) == []
    assert store.archive.hand_out(LATER + 301, patience=300) == [job.id]


def test_no_more_are_out_at_once_than_may_be(store: Store) -> None:
    """Messages do not pile up, however many songs there are."""
    jobs = [song_of(store, key=f"k{number}") for number in range(3)]

    first = store.archive.hand_out(LATER, patience=300, at_most=2)
    assert store.archive.hand_out(LATER, patience=300, at_most=2) == []
    claimed(store, one(store, first[0]))

    assert store.archive.hand_out(LATER, patience=300, at_most=2) == [({job.id for job in jobs} - set(first)).pop()]


def test_a_job_is_claimed_once(store: Store) -> None:
    """By whoever comes first, until the claim has run out; who asks twice gets the same answer."""
    job = song_of(store)
    store.archive.hand_out(LATER, patience=300)
    first = claimed(store, job)

    assert store.archive.claim(job.id, "another", LATER + 59, lease=60) is None
    assert claimed(store, job) == first
    assert claimed(store, job, LATER + 61, "another").tries == 0


def test_a_job_whose_record_is_gone_is_not_claimed(store: Store, redis: Redis) -> None:
    """Nor does it come back."""
    redis.zadd(store._space.key("archive:pending"), {"gone": 1})

    assert store.archive.claim("gone", "h", LATER, lease=60) is None
    assert list(store.archive.pending()) == []


# ── what became of it ─────────────────────────────────────────────────────────────────────────────


def test_a_file_that_lies_there_is_told_at_once(store: Store) -> None:
    """Beside upstream's link, although the rest is still to come; it is written once."""
    job = song_of(store)
    fetch = claimed(store, job)

    assert store.archive.kept(fetch, "c-1", Part.AUDIO, FILE, LATER, lease=60)
    assert store.archive.kept(fetch, "c-1", Part.AUDIO, replace(FILE, size=7), LATER, lease=60)

    [first, second] = one(store, job.id).clips
    assert (first.archived_audio, first.archived_image, second.archived_audio) == (FILE, None, None)
    assert first.audio_url == CLIPS[0].audio_url
    assert store.archive.counted(0).files == 1


def test_a_job_of_which_all_is_there_is_done(store: Store) -> None:
    """It is not tried any more, and what was noted of its tries is gone."""
    job = song_of(store)
    store.archive.later(claimed(store, job), LATER, LATER + 30, "no")
    store.archive.done(claimed(store, job, LATER + 30), LATER + 31)

    assert one(store, job.id).archive is InArchive.DONE
    assert [*store.archive.pending(), *store.archive.failed()] == []
    assert store.archive.counted(0).jobs == 1
    assert store.archive.again([job.id], LATER) == [False]


def test_a_try_that_failed_is_made_again_later(store: Store) -> None:
    """Not before; its reason is told."""
    job = song_of(store)
    assert store.archive.later(claimed(store, job), LATER, LATER + 30, "HTTP 503")

    assert store.archive.hand_out(LATER + 29, patience=300) == []
    [pending] = store.archive.pending()
    assert (pending.tries, pending.reason, pending.due) == (1, "HTTP 503", LATER + 30)
    assert claimed(store, job, LATER + 30).tries == 1


def test_what_was_given_up_is_kept_until_somebody_wants_it(store: Store) -> None:
    """Then it begins anew: days to be tried in, without a failure."""
    job = song_of(store)
    assert store.archive.give_up(claimed(store, job), LATER, "HTTP 404")

    [given_up] = store.archive.failed()
    assert (given_up.reason, given_up.given_up_at, given_up.due) == ("HTTP 404", LATER, None)
    assert store.archive.hand_out(LATER + 1e6, patience=300) == []
    assert store.archive.again([job.id], LATER + 100) == [True]
    [pending] = store.archive.pending()
    assert (pending.since, pending.tries, pending.reason) == (LATER + 100, 0, "")


def test_what_somebody_is_at_is_not_begun_twice(store: Store) -> None:
    """Wanting it again changes nothing; if they died it is due when their claim has run out."""
    job = song_of(store)
    claimed(store, job)

    assert store.archive.again([job.id], LATER + 1) == [True]
    assert store.archive.hand_out(LATER + 59, patience=300) == []
    assert store.archive.hand_out(LATER + 60, patience=300) == [job.id]


def test_who_has_lost_the_claim_writes_nothing(store: Store) -> None:
    """Whatever the try came to."""
    job = song_of(store)
    lost = claimed(store, job)
    claimed(store, job, LATER + 61, "another")

    assert not store.archive.renew(lost, LATER + 62, lease=60)
    assert not store.archive.kept(lost, "c-1", Part.AUDIO, FILE, LATER + 62, lease=60)
    assert not store.archive.done(lost, LATER + 62)
    assert not store.archive.later(lost, LATER + 62, LATER, "no")
    assert not store.archive.give_up(lost, LATER + 62, "no")
    assert one(store, job.id).archive is InArchive.PENDING


def test_a_claim_that_is_renewed_holds_on(store: Store) -> None:
    """For as long as somebody is at it."""
    job = song_of(store)
    fetch = claimed(store, job)

    assert store.archive.renew(fetch, LATER + 50, lease=60)

    assert store.archive.claim(job.id, "another", LATER + 100, lease=60) is None
    assert store.archive.claim(job.id, "another", LATER + 111, lease=60) is not None


# ── the books ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("stands", ["pending", "failed"])
def test_a_job_that_would_never_be_archived_is_found_and_mended(
    store: Store, redis: Redis, prefix: str, stands: str
) -> None:
    """Its record says where it stands."""
    job = song_of(store)
    if stands == "failed":
        store.archive.give_up(claimed(store, job), LATER, "no")
    redis.zrem(store._space.key(f"archive:{stands}"), job.id)

    [found] = audit(redis, prefix)

    assert str(found) == f"archive:{stands}: job {job.id} is missing"
    assert repair(redis, prefix, [found], LATER) == [found]
    assert audit(redis, prefix) == []


def test_a_job_that_was_archived_since_it_was_found_is_left_alone(store: Store, redis: Redis, prefix: str) -> None:
    """No move tells of it: the record is looked at again."""
    job = song_of(store)
    fetch = claimed(store, job)
    redis.zrem(store._space.key("archive:pending"), job.id)
    found = audit(redis, prefix)
    store.archive.done(fetch, LATER)

    assert repair(redis, prefix, found, LATER) == []
    assert audit(redis, prefix) == []
