"""Claims of polls: at most one poll of a job at a time, and others that are due share its message."""

from __future__ import annotations

from redis import Redis

from tests.store.jobs.pending import DUE, both, pending
from tests.store.life import (
    NOW,
    accept_order,
    apply_transition,
    claim_admitted,
    dump_keys,
    get_job,
    job_in_state,
)
from tests.support.jobs import voice_with_song
from voicequeue import Stage, State
from voicequeue.domain.claims import PollClaim, PollReschedule
from voicequeue.storage.job_store import CLOCK_TOLERANCE_S, JobStore


def test_a_job_is_claimed_when_it_is_due_and_not_before(store: JobStore) -> None:
    """The claim contains the task to poll and its submission time."""
    [job_id] = pending(store)

    assert store.claim_poll([job_id], DUE - 1, lease_s=90) == []
    assert store.claim_poll([job_id], DUE, lease_s=90) == [
        PollClaim(job_id, get_job(store, job_id).version, State.PENDING, Stage.VOICE, f"task-voice-{job_id}", NOW, None)
    ]


def test_a_claim_says_which_stage_is_next(store: JobStore) -> None:
    """The next stage is the song, if the job has one."""
    job = job_in_state(store, State.PENDING, voice_with_song())

    [claim] = store.claim_poll([job.id], NOW, lease_s=90)

    assert claim.next_stage is Stage.MUSIC


def test_a_clock_may_be_a_little_early(store: JobStore) -> None:
    """A claim may be early by less than the clocks of two hosts differ."""
    [job_id] = pending(store)

    assert store.claim_poll([job_id], DUE - CLOCK_TOLERANCE_S * 1.5, lease_s=90) == []
    assert len(store.claim_poll([job_id], DUE - CLOCK_TOLERANCE_S / 2, lease_s=90)) == 1


def test_a_claimed_job_is_leased(store: JobStore) -> None:
    """A poll message delivered twice polls once; after a crash the job is claimed again."""
    [job_id] = pending(store)
    store.claim_poll([job_id], DUE, lease_s=90)

    assert store.claim_poll([job_id], DUE + 89, lease_s=90) == []
    assert len(store.claim_poll([job_id], DUE + 90, lease_s=90)) == 1


def test_only_jobs_pending_at_that_stage_are_claimed(store: JobStore, redis: Redis, prefix: str) -> None:
    """The jobs of a chunk may be in different states; the others stay unchanged."""
    due, cancelled, elsewhere, moved_on = pending(store, 4)
    apply_transition(store, get_job(store, cancelled), State.SUCCEEDED)
    apply_transition(store, get_job(store, elsewhere), State.ADMITTED, to_stage=Stage.MUSIC)
    apply_transition(store, get_job(store, moved_on), State.CANCELLED)
    chunk = [moved_on, due, "nosuchjob", cancelled, elsewhere]

    assert [claim.job_id for claim in store.claim_poll(chunk, DUE, lease_s=90)] == [due]
    before = dump_keys(redis, prefix)
    assert store.claim_poll(chunk, DUE, lease_s=90) == []
    assert dump_keys(redis, prefix) == before


def ids(claims: list[PollClaim]) -> list[str]:
    """Return the job ids of claims."""
    return [claim.job_id for claim in claims]


def test_other_jobs_due_soon_are_claimed_too(store: JobStore) -> None:
    """The earliest come first, up to a full message; jobs that are not pending are excluded."""
    mine, soon, now, late, overdue, elsewhere = pending(store, 6)
    dues = {soon: DUE + 4, now: DUE, late: DUE + 6, overdue: DUE - 6}
    store.reschedule_polls(PollReschedule(job_id, get_job(store, job_id).version, due) for job_id, due in dues.items())
    apply_transition(store, get_job(store, elsewhere), State.ADMITTED, to_stage=Stage.MUSIC, due=DUE)

    def claimed(*, most: int) -> list[str]:
        return ids(store.claim_poll([mine], DUE, lease_s=90, coalesce_window_s=5, at_most=most))

    assert claimed(most=3) == [mine, now, soon]
    assert claimed(most=9) == []
    assert ids(store.claim_poll([now, late], DUE + 90, lease_s=90)) == [now, late]


def test_without_jobs_all_that_is_due_is_claimed(store: JobStore) -> None:
    """Of both stages; jobs that are overdue for longer are left to maintenance."""
    now, late, overdue, song = pending(store, 4)
    dues = {now: DUE, late: DUE + 6, overdue: DUE - 6}
    store.reschedule_polls(PollReschedule(job_id, get_job(store, job_id).version, due) for job_id, due in dues.items())
    apply_transition(store, get_job(store, song), State.ADMITTED, to_stage=Stage.MUSIC, due=DUE)
    claim_admitted(store, song)
    accept_order(store, song, due=DUE)

    def claimed(**window: float) -> list[tuple[str, Stage, str]]:
        claims = store.claim_poll([], DUE, lease_s=90, at_most=9, **window)
        return sorted((claim.job_id, claim.stage, claim.task_id) for claim in claims)

    assert store.claim_poll([], DUE, lease_s=90) == []
    assert claimed(overdue_s=1) == sorted(
        [(now, Stage.VOICE, f"task-voice-{now}"), (song, Stage.MUSIC, f"task-music-{song}")]
    )
    assert claimed(overdue_s=10) == [(overdue, Stage.VOICE, f"task-voice-{overdue}")]
    assert claimed(coalesce_window_s=8) == [(late, Stage.VOICE, f"task-voice-{late}")]


def test_no_more_jobs_are_claimed_than_fill_a_message(store: JobStore) -> None:
    """The others have messages of their own."""
    job_ids = pending(store, 5)

    full = ids(store.claim_poll(job_ids[:1], DUE, lease_s=90, coalesce_window_s=5, at_most=3))
    others = [job_id for job_id in job_ids if job_id not in full]

    assert len(full) == 3
    assert ids(store.claim_poll(others[:1], DUE, lease_s=90, coalesce_window_s=5, at_most=1)) == others[:1]
    assert ids(store.claim_poll(others, DUE, lease_s=90, coalesce_window_s=5, at_most=1)) == others[1:]


def test_a_message_without_a_due_job_claims_no_others(store: JobStore) -> None:
    """It ends, and the others are left to their own messages."""
    mine, _ = pending(store, 2)
    store.claim_poll([mine], DUE, lease_s=90)

    assert store.claim_poll([mine], DUE, lease_s=90, coalesce_window_s=5, at_most=9) == []


def test_no_ids_are_no_claims(store: JobStore) -> None:
    """An empty chunk is allowed."""
    assert store.claim_poll([], NOW, lease_s=90) == []
    assert store.reschedule_polls([]) == []


def test_of_two_concurrent_polls_each_job_goes_to_one(store: JobStore, valkey_url: str, prefix: str) -> None:
    """Upstream is polled once for each job."""
    job_ids = pending(store, 100)

    def claim(own: JobStore, number: int) -> list[str]:
        chunks = [job_ids[at : at + 5] for at in range(0, 100, 5)]
        return [
            c.job_id for chunk in (chunks if number else chunks[::-1]) for c in own.claim_poll(chunk, DUE, lease_s=90)
        ]

    one_got, other_got = both(valkey_url, prefix, claim)

    assert sorted(one_got + other_got) == sorted(job_ids)
