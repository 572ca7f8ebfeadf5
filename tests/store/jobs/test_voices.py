"""Shared voices: one job creates a voice, the others wait for its persona and pay only for their songs."""

from __future__ import annotations

import pytest
from redis import Redis

from tests.store.life import (
    NOW,
    accept_order,
    apply_transition,
    assert_consistent,
    claim_admitted,
    claim_submit,
    enqueue_jobs,
    get_job,
    transition_of,
)
from tests.support.jobs import voice, voice_with_song
from voicequeue import Job, Stage, State, VoiceJob
from voicequeue.domain.claims import EnqueueOutcome
from voicequeue.storage.job_store import JobStore

URL = "https://recordings.example/ana.wav"


@pytest.fixture(autouse=True)
def _agreed(redis: Redis, prefix: str, store: JobStore) -> object:
    yield
    assert_consistent(redis, prefix)


def shared(count: int, **fields: object) -> list[VoiceJob]:
    """Return songs on one recording that share its voice."""
    return [voice_with_song(key=f"song-{n}", **{"reuse": True, **fields}) for n in range(count)]


def submitted(store: JobStore, job_id: str) -> Job:
    """Submit the job's voice; upstream accepts it."""
    store.admit(NOW)
    claim_admitted(store, job_id)
    return accept_order(store, job_id)


def voiced(store: JobStore, job: Job, now: float = NOW) -> Job:
    """Complete the job's voice."""
    fields: dict[str, str | None] = {"persona_id": f"persona-of-{job.id}", "voice_name": "Ana"}
    if job.spec.song is None:
        return apply_transition(store, job, State.SUCCEEDED, now, fields={**fields, "settled": str(now)})
    return apply_transition(store, job, State.ADMITTED, now, to_stage=Stage.MUSIC, fields=fields)


# ── creation ──────────────────────────────────────────────────────────────────────────────────────


def test_the_first_job_creates_the_voice_and_the_others_wait(store: JobStore) -> None:
    """This holds in one call or several, in one batch or several."""
    a, b = enqueue_jobs(store, *shared(2, batch="spring"))
    [c] = enqueue_jobs(store, voice_with_song(key="another", reuse=True, batch="summer"))

    assert [get_job(store, job_id).state for job_id in (a, b, c)] == [State.QUEUED, State.WAITING, State.WAITING]


def test_enqueueing_reports_jobs_that_do_not_pay_for_a_voice(store: JobStore) -> None:
    """They are new, and known when enqueued again."""
    specs = shared(3)
    pairs = [(spec.job_id(), spec) for spec in specs]

    assert store.enqueue(pairs, NOW) == [EnqueueOutcome.NEW, EnqueueOutcome.SHARES_VOICE, EnqueueOutcome.SHARES_VOICE]
    assert store.enqueue(pairs, NOW + 1) == [EnqueueOutcome.EXISTING] * 3


def test_jobs_share_no_voice_by_default(store: JobStore) -> None:
    """Each creates a voice of its own."""
    assert all(
        get_job(store, job_id).state is State.QUEUED
        for job_id in enqueue_jobs(store, voice_with_song(key="a"), voice_with_song(key="b"))
    )


def test_other_recordings_are_other_voices(store: JobStore) -> None:
    """Recordings differ by URL, and by content if its hash is known."""
    by_url = enqueue_jobs(
        store, voice_with_song(key="a", reuse=True), voice_with_song(key="b", reuse=True, audio_url=f"{URL}?2")
    )
    hashes = ("1" * 64, "2" * 64)
    by_content = enqueue_jobs(
        store, *(voice_with_song(key=sha256, reuse=True, audio_sha256=sha256) for sha256 in hashes)
    )

    assert all(get_job(store, job_id).state is State.QUEUED for job_id in (*by_url, *by_content))


def test_the_same_content_behind_two_urls_is_one_voice(store: JobStore) -> None:
    """The hash decides, if there is one."""
    same = {"reuse": True, "audio_sha256": "a" * 64}
    a, b = enqueue_jobs(
        store,
        voice_with_song(key="a", **same),
        voice_with_song(key="b", audio_url="https://mirror.example/x.wav", **same),
    )

    assert [get_job(store, a).state, get_job(store, b).state] == [State.QUEUED, State.WAITING]


def test_a_name_is_one_voice_within_its_batch(store: JobStore) -> None:
    """In another batch it is another voice."""
    a, b, c = enqueue_jobs(
        store,
        voice_with_song(key="a", voice="ana", batch="spring"),
        voice_with_song(key="b", voice="ana", batch="spring"),
        voice_with_song(key="c", voice="ana", batch="summer"),
    )

    assert [get_job(store, job_id).state for job_id in (a, b, c)] == [State.QUEUED, State.WAITING, State.QUEUED]


def test_a_name_denotes_one_recording(store: JobStore) -> None:
    """Another recording under the same name is rejected."""
    enqueue_jobs(store, voice_with_song(key="a", voice="ana"))
    other = voice_with_song(key="b", voice="ana", audio_url=f"{URL}?2")

    assert store.enqueue([(other.job_id(), other)], NOW) == [EnqueueOutcome.OTHER_VOICE]
    assert store.get([other.job_id()]) == [None]


def test_a_job_of_higher_priority_takes_over_a_queued_creation(store: JobStore) -> None:
    """It would otherwise wait behind a lower priority; the total cost stays the same."""
    [a] = enqueue_jobs(store, voice_with_song(key="a", reuse=True, priority="bulk"))
    b = voice_with_song(key="b", reuse=True, priority="high")

    assert store.enqueue([(b.job_id(), b)], NOW) == [EnqueueOutcome.SHARES_VOICE]
    assert [get_job(store, job_id).state for job_id in (a, b.job_id())] == [State.WAITING, State.QUEUED]
    assert store.timeline(a)[-1].reason == f"job {b.job_id()} creates the voice sooner"


def test_a_creator_with_a_slot_is_not_replaced(store: JobStore) -> None:
    """It is faster than any other job could be."""
    [a] = enqueue_jobs(store, voice_with_song(key="a", reuse=True, priority="bulk"))
    store.admit(NOW)
    [b] = enqueue_jobs(store, voice_with_song(key="b", reuse=True, priority="high"))

    assert [get_job(store, job_id).state for job_id in (a, b)] == [State.ADMITTED, State.WAITING]


@pytest.mark.parametrize("limit", [{"paused": 1}, {"max_credits": 18}])
def test_a_blocked_batch_does_not_block_a_voice(store: JobStore, limit: dict[str, int]) -> None:
    """A job that may start creates it; jobs of the blocked batch wait for it."""
    [a] = enqueue_jobs(store, voice_with_song(key="a", reuse=True, batch="held"))
    store.set_batch_limits("held", **limit)
    b, c = enqueue_jobs(
        store, voice_with_song(key="b", reuse=True, batch="held"), voice_with_song(key="c", reuse=True, batch="free")
    )

    assert [get_job(store, job_id).state for job_id in (a, b, c)] == [State.WAITING, State.WAITING, State.QUEUED]


def test_a_batch_that_is_blocked_later_does_not_block_a_voice(store: JobStore) -> None:
    """Maintenance reassigns it, page by page; jobs of a blocked batch are skipped."""
    [a] = enqueue_jobs(store, voice_with_song(key="a", reuse=True, batch="held"))
    waiting = enqueue_jobs(
        store,
        *(voice_with_song(key=f"{batch}-{n}", reuse=True, batch=batch) for batch in ("held", "free") for n in "12"),
    )
    assert store.reassign_voice_creators(NOW, at_most=10) == 0
    store.set_batch_limits("held", paused=True)

    rounds = [store.reassign_voice_creators(NOW, at_most=2) for _ in range(3)]

    assert sum(rounds) == 1
    assert get_job(store, a).state is State.WAITING
    assert sorted(get_job(store, job_id).state for job_id in waiting) == [State.QUEUED, *[State.WAITING] * 3]
    [creator] = [job_id for job_id in waiting[2:] if get_job(store, job_id).state is State.QUEUED]
    voiced(store, submitted(store, creator))
    assert {get_job(store, job_id).stage for job_id in (a, *waiting)} == {Stage.MUSIC}


def test_a_setting_makes_jobs_share_by_default(redis: Redis, prefix: str, store: JobStore) -> None:
    """A job that opts out has its own voice."""
    sharing = JobStore(redis, prefix, reuse=True)
    a, b, c = enqueue_jobs(
        sharing, voice_with_song(key="a"), voice_with_song(key="b"), voice_with_song(key="c", reuse=False)
    )

    assert [get_job(store, job_id).state for job_id in (a, b, c)] == [State.QUEUED, State.WAITING, State.QUEUED]


# ── use ───────────────────────────────────────────────────────────────────────────────────────────


def test_all_jobs_continue_in_the_transition_that_stores_the_persona(store: JobStore) -> None:
    """They are queued for their songs, with the persona; none of them pays for a voice."""
    a, b, c = enqueue_jobs(store, *shared(3))
    voiced(store, submitted(store, a), NOW + 60)

    for job in (get_job(store, b), get_job(store, c)):
        assert (job.state, job.stage) == (State.QUEUED, Stage.MUSIC)
        assert (job.persona_id, job.voice_name) == (f"persona-of-{a}", "Ana")
    assert store.timeline(b)[-1].reason == f"uses voice from job {a}"
    assert store.credits_spent() == 4


def test_a_released_song_is_claimed_with_the_persona(store: JobStore) -> None:
    """Its claim contains the persona, and costs a song."""
    a, b = enqueue_jobs(store, *shared(2))
    voiced(store, submitted(store, a))
    store.admit(NOW)

    claim = claim_admitted(store, b)

    assert (claim.stage, claim.persona_id) == (Stage.MUSIC, f"persona-of-{a}")


def test_a_waiting_job_without_a_song_succeeds(store: JobStore) -> None:
    """It has all that it requested."""
    a, b = enqueue_jobs(store, voice(key="a", reuse=True), voice(key="b", reuse=True))
    voiced(store, submitted(store, a), NOW + 60)

    job = get_job(store, b)
    assert (job.state, job.persona_id, job.settled_at) == (State.SUCCEEDED, f"persona-of-{a}", NOW + 60)


def test_an_existing_voice_is_used(store: JobStore) -> None:
    """Also one from a job that did not share: the job costs a song, or nothing."""
    [a] = enqueue_jobs(store, voice_with_song(key="a"))
    voiced(store, submitted(store, a))

    song, alone = voice_with_song(key="b", reuse=True), voice(key="c", reuse=True)
    outcomes = store.enqueue([(song.job_id(), song), (alone.job_id(), alone)], NOW + 9)

    assert outcomes == [EnqueueOutcome.SHARES_VOICE, EnqueueOutcome.SHARES_VOICE]
    assert (get_job(store, song.job_id()).state, get_job(store, song.job_id()).stage) == (State.QUEUED, Stage.MUSIC)
    assert get_job(store, alone.job_id()).state is State.SUCCEEDED


def test_an_existing_voice_is_used_by_url_if_the_hash_is_known_later(store: JobStore) -> None:
    """A preflight that computes the hash causes no second voice."""
    [a] = enqueue_jobs(store, voice(key="a"))
    voiced(store, submitted(store, a))

    [b] = enqueue_jobs(store, voice_with_song(key="b", reuse=True, audio_sha256="a" * 64))

    assert get_job(store, b).persona_id == f"persona-of-{a}"


def test_a_queued_creator_uses_a_voice_created_meanwhile(store: JobStore) -> None:
    """It was created by a job that did not share."""
    [a] = enqueue_jobs(store, voice(key="a"))
    b, c = (enqueue_jobs(store, voice_with_song(key=key, reuse=True))[0] for key in ("b", "c"))
    store.flow_control.set_limits(in_flight=1)
    creators = submitted(store, a)
    voiced(store, creators)

    assert [get_job(store, job_id).stage for job_id in (b, c)] == [Stage.MUSIC, Stage.MUSIC]
    assert store.credits_spent() == 4


def test_maintenance_releases_jobs_beyond_the_limit_of_one_script(store: JobStore) -> None:
    """No script blocks Redis for a whole catalogue."""
    jobs = enqueue_jobs(store, *shared(1_201))
    voiced(store, submitted(store, jobs[0]))
    assert store.counts_by_state()[State.WAITING] == 700

    rounds = [store.release_waiting(NOW), store.release_waiting(NOW), store.release_waiting(NOW)]

    assert rounds == [500, 200, 0]
    assert store.counts_by_state()[State.WAITING] == 0


def test_a_voice_created_while_its_creator_has_a_slot_is_not_paid_twice(store: JobStore) -> None:
    """A job that did not share created it: the claim of the second finds it."""
    a, (b, c) = enqueue_jobs(store, voice(key="a"))[0], enqueue_jobs(store, *shared(2))
    store.admit(NOW)
    claim_admitted(store, a)
    voiced(store, accept_order(store, a))
    assert get_job(store, b).state is State.ADMITTED

    assert claim_submit(store, b, Stage.VOICE, "holder", NOW, lease=9) is None

    jobs = [get_job(store, job_id) for job_id in (b, c)]
    assert [(job.state, job.stage) for job in jobs] == [(State.QUEUED, Stage.MUSIC)] * 2
    assert store.credits_spent() == 4


def test_an_existing_voice_is_used_while_another_is_created(store: JobStore) -> None:
    """Another job had paid for its own before."""
    [a] = enqueue_jobs(store, voice(key="a"))
    [b] = enqueue_jobs(store, *shared(1))
    store.admit(NOW)
    claim_admitted(store, b)
    voiced(store, submitted(store, a))
    accept_order(store, b)

    [c] = enqueue_jobs(store, voice_with_song(key="c", reuse=True))

    assert (get_job(store, c).state, get_job(store, c).persona_id) == (State.QUEUED, f"persona-of-{a}")


def test_the_creator_by_content_uses_a_voice_created_by_url(store: JobStore) -> None:
    """And so do all jobs that waited for it."""
    same = {"reuse": True, "audio_sha256": "a" * 64}
    other, first = enqueue_jobs(store, voice(key="other"), voice_with_song(key="first", **same))
    [second] = enqueue_jobs(store, voice_with_song(key="second", audio_url="https://mirror.example/x.wav", **same))
    voiced(store, submitted(store, other))
    [third] = enqueue_jobs(store, voice_with_song(key="third", **same))

    claim_submit(store, first, Stage.VOICE, "holder", NOW, lease=9)

    assert [get_job(store, job_id).stage for job_id in (first, second, third)] == [Stage.MUSIC] * 3
    assert store.credits_spent() == 4


def test_enqueueing_releases_no_waiting_jobs(store: JobStore) -> None:
    """Maintenance does: a call that enqueues hundreds would block Redis for hundreds of thousands."""
    jobs = enqueue_jobs(store, *shared(1_201))
    voiced(store, submitted(store, jobs[0]))

    late = enqueue_jobs(store, *(voice_with_song(key=f"late-{n}", reuse=True) for n in range(3)))

    assert {get_job(store, job_id).state for job_id in late} == {State.QUEUED}
    assert store.counts_by_state()[State.WAITING] == 700


def test_the_limit_of_one_script_holds_for_all_voices(store: JobStore) -> None:
    """Two voices created together share the limit."""
    urls = (URL, f"{URL}?2")
    specs = [voice_with_song(key=f"{url}-{n}", audio_url=url, reuse=True) for url in urls for n in range(400)]
    jobs = enqueue_jobs(store, *specs)
    creators = [submitted(store, jobs[place]) for place in (0, 400)]
    store.apply_transitions(
        [transition_of(job, State.ADMITTED, to_stage=Stage.MUSIC, fields={"persona_id": "p"}) for job in creators], NOW
    )

    assert store.counts_by_state()[State.WAITING] == 298
    assert [store.release_waiting(NOW), store.release_waiting(NOW)] == [298, 0]
