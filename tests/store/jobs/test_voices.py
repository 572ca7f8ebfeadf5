"""Shared voices: one job creates a voice, the others wait for its persona and pay only for their songs."""

from __future__ import annotations

import pytest
from redis import Redis

from tests.store.life import NOW, accepted, charge, charging, everything_agrees, make, move, one, put
from tests.support.jobs import sung, voice
from voicequeue import Job, Stage, State, VoiceJob
from voicequeue.domain.claims import Outcome
from voicequeue.storage.job_store import Store

URL = "https://recordings.example/ana.wav"


@pytest.fixture(autouse=True)
def _agreed(redis: Redis, prefix: str, store: Store) -> object:
    yield
    everything_agrees(redis, prefix)


def shared(count: int, **fields: object) -> list[VoiceJob]:
    """Return songs on one recording that share its voice."""
    return [sung(key=f"song-{n}", **{"reuse": True, **fields}) for n in range(count)]


def submitted(store: Store, job_id: str) -> Job:
    """Submit the job's voice; upstream accepts it."""
    store.admit(NOW)
    charging(store, job_id)
    return accepted(store, job_id)


def voiced(store: Store, job: Job, now: float = NOW) -> Job:
    """Complete the job's voice."""
    fields: dict[str, str | None] = {"persona_id": f"persona-of-{job.id}", "voice_name": "Ana"}
    if job.spec.song is None:
        return make(store, job, State.SUCCEEDED, now, fields={**fields, "settled": str(now)})
    return make(store, job, State.ADMITTED, now, to_stage=Stage.MUSIC, fields=fields)


# ── creation ──────────────────────────────────────────────────────────────────────────────────────


def test_the_first_job_creates_the_voice_and_the_others_wait(store: Store) -> None:
    """This holds in one call or several, in one batch or several."""
    a, b = put(store, *shared(2, batch="spring"))
    [c] = put(store, sung(key="another", reuse=True, batch="summer"))

    assert [one(store, job_id).state for job_id in (a, b, c)] == [State.QUEUED, State.WAITING, State.WAITING]


def test_enqueueing_reports_jobs_that_do_not_pay_for_a_voice(store: Store) -> None:
    """They are new, and known when enqueued again."""
    specs = shared(3)
    pairs = [(spec.id(), spec) for spec in specs]

    assert store.enqueue(pairs, NOW) == [Outcome.NEW, Outcome.SHARES, Outcome.SHARES]
    assert store.enqueue(pairs, NOW + 1) == [Outcome.KNOWN] * 3


def test_jobs_share_no_voice_by_default(store: Store) -> None:
    """Each creates a voice of its own."""
    assert all(one(store, job_id).state is State.QUEUED for job_id in put(store, sung(key="a"), sung(key="b")))


def test_other_recordings_are_other_voices(store: Store) -> None:
    """Recordings differ by URL, and by content if its hash is known."""
    by_url = put(store, sung(key="a", reuse=True), sung(key="b", reuse=True, audio_url=f"{URL}?2"))
    hashes = ("1" * 64, "2" * 64)
    by_content = put(store, *(sung(key=sha256, reuse=True, audio_sha256=sha256) for sha256 in hashes))

    assert all(one(store, job_id).state is State.QUEUED for job_id in (*by_url, *by_content))


def test_the_same_content_behind_two_urls_is_one_voice(store: Store) -> None:
    """The hash decides, if there is one."""
    same = {"reuse": True, "audio_sha256": "a" * 64}
    a, b = put(store, sung(key="a", **same), sung(key="b", audio_url="https://mirror.example/x.wav", **same))

    assert [one(store, a).state, one(store, b).state] == [State.QUEUED, State.WAITING]


def test_a_name_is_one_voice_within_its_batch(store: Store) -> None:
    """In another batch it is another voice."""
    a, b, c = put(
        store,
        sung(key="a", voice="ana", batch="spring"),
        sung(key="b", voice="ana", batch="spring"),
        sung(key="c", voice="ana", batch="summer"),
    )

    assert [one(store, job_id).state for job_id in (a, b, c)] == [State.QUEUED, State.WAITING, State.QUEUED]


def test_a_name_denotes_one_recording(store: Store) -> None:
    """Another recording under the same name is rejected."""
    put(store, sung(key="a", voice="ana"))
    other = sung(key="b", voice="ana", audio_url=f"{URL}?2")

    assert store.enqueue([(other.id(), other)], NOW) == [Outcome.OTHER_VOICE]
    assert store.get([other.id()]) == [None]


def test_a_job_of_higher_priority_takes_over_a_queued_creation(store: Store) -> None:
    """It would otherwise wait behind a lower priority; the total cost stays the same."""
    [a] = put(store, sung(key="a", reuse=True, priority="bulk"))
    b = sung(key="b", reuse=True, priority="high")

    assert store.enqueue([(b.id(), b)], NOW) == [Outcome.SHARES]
    assert [one(store, job_id).state for job_id in (a, b.id())] == [State.WAITING, State.QUEUED]
    assert store.timeline(a)[-1].reason == f"job {b.id()} creates the voice sooner"


def test_a_creator_with_a_slot_is_not_replaced(store: Store) -> None:
    """It is faster than any other job could be."""
    [a] = put(store, sung(key="a", reuse=True, priority="bulk"))
    store.admit(NOW)
    [b] = put(store, sung(key="b", reuse=True, priority="high"))

    assert [one(store, job_id).state for job_id in (a, b)] == [State.ADMITTED, State.WAITING]


@pytest.mark.parametrize("limit", [{"paused": 1}, {"max_credits": 18}])
def test_a_blocked_batch_does_not_block_a_voice(store: Store, limit: dict[str, int]) -> None:
    """A job that may start creates it; jobs of the blocked batch wait for it."""
    [a] = put(store, sung(key="a", reuse=True, batch="held"))
    store.limit_batch("held", **limit)
    b, c = put(store, sung(key="b", reuse=True, batch="held"), sung(key="c", reuse=True, batch="free"))

    assert [one(store, job_id).state for job_id in (a, b, c)] == [State.WAITING, State.WAITING, State.QUEUED]


def test_a_batch_that_is_blocked_later_does_not_block_a_voice(store: Store) -> None:
    """Maintenance reassigns it, page by page; jobs of a blocked batch are skipped."""
    [a] = put(store, sung(key="a", reuse=True, batch="held"))
    waiting = put(
        store, *(sung(key=f"{batch}-{n}", reuse=True, batch=batch) for batch in ("held", "free") for n in "12")
    )
    assert store.hasten(NOW, at_most=10) == 0
    store.limit_batch("held", paused=True)

    rounds = [store.hasten(NOW, at_most=2) for _ in range(3)]

    assert sum(rounds) == 1
    assert one(store, a).state is State.WAITING
    assert sorted(one(store, job_id).state for job_id in waiting) == [State.QUEUED, *[State.WAITING] * 3]
    [maker] = [job_id for job_id in waiting[2:] if one(store, job_id).state is State.QUEUED]
    voiced(store, submitted(store, maker))
    assert {one(store, job_id).stage for job_id in (a, *waiting)} == {Stage.MUSIC}


def test_a_setting_makes_jobs_share_by_default(redis: Redis, prefix: str, store: Store) -> None:
    """A job that opts out has its own voice."""
    sharing = Store(redis, prefix, reuse=True)
    a, b, c = put(sharing, sung(key="a"), sung(key="b"), sung(key="c", reuse=False))

    assert [one(store, job_id).state for job_id in (a, b, c)] == [State.QUEUED, State.WAITING, State.QUEUED]


# ── use ───────────────────────────────────────────────────────────────────────────────────────────


def test_all_jobs_continue_in_the_transition_that_stores_the_persona(store: Store) -> None:
    """They are queued for their songs, with the persona; none of them pays for a voice."""
    a, b, c = put(store, *shared(3))
    voiced(store, submitted(store, a), NOW + 60)

    for job in (one(store, b), one(store, c)):
        assert (job.state, job.stage) == (State.QUEUED, Stage.MUSIC)
        assert (job.persona_id, job.voice_name) == (f"persona-of-{a}", "Ana")
    assert store.timeline(b)[-1].reason == f"uses voice from job {a}"
    assert store.credits() == 4


def test_a_released_song_is_claimed_with_the_persona(store: Store) -> None:
    """Its claim contains the persona, and costs a song."""
    a, b = put(store, *shared(2))
    voiced(store, submitted(store, a))
    store.admit(NOW)

    claim = charging(store, b)

    assert (claim.stage, claim.persona_id) == (Stage.MUSIC, f"persona-of-{a}")


def test_a_waiting_job_without_a_song_succeeds(store: Store) -> None:
    """It has all that it requested."""
    a, b = put(store, voice(key="a", reuse=True), voice(key="b", reuse=True))
    voiced(store, submitted(store, a), NOW + 60)

    job = one(store, b)
    assert (job.state, job.persona_id, job.settled_at) == (State.SUCCEEDED, f"persona-of-{a}", NOW + 60)


def test_an_existing_voice_is_used(store: Store) -> None:
    """Also one from a job that did not share: the job costs a song, or nothing."""
    [a] = put(store, sung(key="a"))
    voiced(store, submitted(store, a))

    song, alone = sung(key="b", reuse=True), voice(key="c", reuse=True)
    outcomes = store.enqueue([(song.id(), song), (alone.id(), alone)], NOW + 9)

    assert outcomes == [Outcome.SHARES, Outcome.SHARES]
    assert (one(store, song.id()).state, one(store, song.id()).stage) == (State.QUEUED, Stage.MUSIC)
    assert one(store, alone.id()).state is State.SUCCEEDED


def test_an_existing_voice_is_used_by_url_if_the_hash_is_known_later(store: Store) -> None:
    """A preflight that computes the hash causes no second voice."""
    [a] = put(store, voice(key="a"))
    voiced(store, submitted(store, a))

    [b] = put(store, sung(key="b", reuse=True, audio_sha256="a" * 64))

    assert one(store, b).persona_id == f"persona-of-{a}"


def test_a_queued_creator_uses_a_voice_created_meanwhile(store: Store) -> None:
    """It was created by a job that did not share."""
    [a] = put(store, voice(key="a"))
    b, c = (put(store, sung(key=key, reuse=True))[0] for key in ("b", "c"))
    store.controls.set_limits(in_flight=1)
    creators = submitted(store, a)
    voiced(store, creators)

    assert [one(store, job_id).stage for job_id in (b, c)] == [Stage.MUSIC, Stage.MUSIC]
    assert store.credits() == 4


def test_maintenance_releases_jobs_beyond_the_limit_of_one_script(store: Store) -> None:
    """No script blocks Redis for a whole catalogue."""
    jobs = put(store, *shared(1_201))
    voiced(store, submitted(store, jobs[0]))
    assert store.counts()[State.WAITING] == 700

    rounds = [store.release(NOW), store.release(NOW), store.release(NOW)]

    assert rounds == [500, 200, 0]
    assert store.counts()[State.WAITING] == 0


def test_a_voice_created_while_its_creator_has_a_slot_is_not_paid_twice(store: Store) -> None:
    """A job that did not share created it: the claim of the second finds it."""
    a, (b, c) = put(store, voice(key="a"))[0], put(store, *shared(2))
    store.admit(NOW)
    charging(store, a)
    voiced(store, accepted(store, a))
    assert one(store, b).state is State.ADMITTED

    assert charge(store, b, Stage.VOICE, "holder", NOW, lease=9) is None

    jobs = [one(store, job_id) for job_id in (b, c)]
    assert [(job.state, job.stage) for job in jobs] == [(State.QUEUED, Stage.MUSIC)] * 2
    assert store.credits() == 4


def test_an_existing_voice_is_used_while_another_is_created(store: Store) -> None:
    """Another job had paid for its own before."""
    [a] = put(store, voice(key="a"))
    [b] = put(store, *shared(1))
    store.admit(NOW)
    charging(store, b)
    voiced(store, submitted(store, a))
    accepted(store, b)

    [c] = put(store, sung(key="c", reuse=True))

    assert (one(store, c).state, one(store, c).persona_id) == (State.QUEUED, f"persona-of-{a}")


def test_the_creator_by_content_uses_a_voice_created_by_url(store: Store) -> None:
    """And so do all jobs that waited for it."""
    same = {"reuse": True, "audio_sha256": "a" * 64}
    other, first = put(store, voice(key="other"), sung(key="first", **same))
    [second] = put(store, sung(key="second", audio_url="https://mirror.example/x.wav", **same))
    voiced(store, submitted(store, other))
    [third] = put(store, sung(key="third", **same))

    charge(store, first, Stage.VOICE, "holder", NOW, lease=9)

    assert [one(store, job_id).stage for job_id in (first, second, third)] == [Stage.MUSIC] * 3
    assert store.credits() == 4


def test_enqueueing_releases_no_waiting_jobs(store: Store) -> None:
    """Maintenance does: a call that enqueues hundreds would block Redis for hundreds of thousands."""
    jobs = put(store, *shared(1_201))
    voiced(store, submitted(store, jobs[0]))

    late = put(store, *(sung(key=f"late-{n}", reuse=True) for n in range(3)))

    assert {one(store, job_id).state for job_id in late} == {State.QUEUED}
    assert store.counts()[State.WAITING] == 700


def test_the_limit_of_one_script_holds_for_all_voices(store: Store) -> None:
    """Two voices created together share the limit."""
    urls = (URL, f"{URL}?2")
    specs = [sung(key=f"{url}-{n}", audio_url=url, reuse=True) for url in urls for n in range(400)]
    jobs = put(store, *specs)
    creators = [submitted(store, jobs[place]) for place in (0, 400)]
    store.apply([move(job, State.ADMITTED, to_stage=Stage.MUSIC, fields={"persona_id": "p"}) for job in creators], NOW)

    assert store.counts()[State.WAITING] == 298
    assert [store.release(NOW), store.release(NOW)] == [298, 0]
