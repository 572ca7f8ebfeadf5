"""Voices that several jobs share: one makes it, the others wait for its persona and pay for their songs alone."""

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
    """Songs on one recording that share its voice."""
    return [sung(key=f"song-{n}", **{"reuse": True, **fields}) for n in range(count)]


def ordered(store: Store, job_id: str) -> Job:
    """The job's voice is ordered, and paid."""
    store.admit(NOW)
    charging(store, job_id)
    return accepted(store, job_id)


def voiced(store: Store, job: Job, now: float = NOW) -> Job:
    """The persona has come."""
    fields: dict[str, str | None] = {"persona_id": f"persona-of-{job.id}", "voice_name": "Ana"}
    if job.spec.song is None:
        return make(store, job, State.SUCCEEDED, now, fields={**fields, "settled": str(now)})
    return make(store, job, State.ADMITTED, now, to_stage=Stage.MUSIC, fields=fields)


# ── who makes it ──────────────────────────────────────────────────────────────────────────────────


def test_the_first_makes_the_voice_and_the_others_wait(store: Store) -> None:
    """However they come: in one call or another, in one batch or several."""
    a, b = put(store, *shared(2, batch="spring"))
    [c] = put(store, sung(key="another", reuse=True, batch="summer"))

    assert [one(store, job_id).state for job_id in (a, b, c)] == [State.QUEUED, State.WAITING, State.WAITING]


def test_enqueueing_says_who_does_not_pay_for_a_voice(store: Store) -> None:
    """New, but cheaper; and known as ever when it comes again."""
    specs = shared(3)
    pairs = [(spec.id(), spec) for spec in specs]

    assert store.enqueue(pairs, NOW) == [Outcome.NEW, Outcome.SHARES, Outcome.SHARES]
    assert store.enqueue(pairs, NOW + 1) == [Outcome.KNOWN] * 3


def test_jobs_that_do_not_ask_for_it_share_nothing(store: Store) -> None:
    """Each makes a voice of its own, as ever."""
    assert all(one(store, job_id).state is State.QUEUED for job_id in put(store, sung(key="a"), sung(key="b")))


def test_other_recordings_are_other_voices(store: Store) -> None:
    """By URL, and by content where that is known."""
    by_url = put(store, sung(key="a", reuse=True), sung(key="b", reuse=True, audio_url=f"{URL}?2"))
    hashes = ("1" * 64, "2" * 64)
    by_content = put(store, *(sung(key=each, reuse=True, audio_sha256=each) for each in hashes))

    assert all(one(store, job_id).state is State.QUEUED for job_id in (*by_url, *by_content))


def test_the_same_content_behind_two_urls_is_one_voice(store: Store) -> None:
    """The hash decides where there is one."""
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

    assert [one(store, each).state for each in (a, b, c)] == [State.QUEUED, State.WAITING, State.QUEUED]


def test_a_name_stands_for_one_recording(store: Store) -> None:
    """Another one under the same name is told, and not enqueued."""
    put(store, sung(key="a", voice="ana"))
    other = sung(key="b", voice="ana", audio_url=f"{URL}?2")

    assert store.enqueue([(other.id(), other)], NOW) == [Outcome.OTHER_VOICE]
    assert store.get([other.id()]) == [None]


def test_who_comes_with_a_higher_priority_makes_the_voice_that_another_has_not_begun(store: Store) -> None:
    """It would else wait behind the whole backlog of a lower one; what both cost together stays the same."""
    [a] = put(store, sung(key="a", reuse=True, priority="bulk"))
    b = sung(key="b", reuse=True, priority="high")

    assert store.enqueue([(b.id(), b)], NOW) == [Outcome.SHARES]
    assert [one(store, each).state for each in (a, b.id())] == [State.WAITING, State.QUEUED]
    assert store.timeline(a)[-1].reason == f"job {b.id()} creates the voice sooner"


def test_a_voice_whose_maker_has_a_slot_is_left_to_it(store: Store) -> None:
    """It comes sooner than any other could make it."""
    [a] = put(store, sung(key="a", reuse=True, priority="bulk"))
    store.admit(NOW)
    [b] = put(store, sung(key="b", reuse=True, priority="high"))

    assert [one(store, each).state for each in (a, b)] == [State.ADMITTED, State.WAITING]


@pytest.mark.parametrize("limit", [{"paused": 1}, {"max_credits": 18}])
def test_a_batch_that_may_begin_nothing_keeps_no_voice_from_another(store: Store, limit: dict[str, int]) -> None:
    """Whoever may begin makes it; those of the same batch wait with it."""
    [a] = put(store, sung(key="a", reuse=True, batch="held"))
    store.limit_batch("held", **limit)
    b, c = put(store, sung(key="b", reuse=True, batch="held"), sung(key="c", reuse=True, batch="free"))

    assert [one(store, each).state for each in (a, b, c)] == [State.WAITING, State.WAITING, State.QUEUED]


def test_a_batch_that_is_held_later_keeps_no_voice_from_those_who_wait(store: Store) -> None:
    """The pulse finds them, page after page; whose own batch is held is passed over."""
    [a] = put(store, sung(key="a", reuse=True, batch="held"))
    waiting = put(
        store, *(sung(key=f"{batch}-{n}", reuse=True, batch=batch) for batch in ("held", "free") for n in "12")
    )
    assert store.hasten(NOW, at_most=10) == 0
    store.limit_batch("held", paused=True)

    rounds = [store.hasten(NOW, at_most=2) for _ in range(3)]

    assert sum(rounds) == 1
    assert one(store, a).state is State.WAITING
    assert sorted(one(store, each).state for each in waiting) == [State.QUEUED, *[State.WAITING] * 3]
    [maker] = [each for each in waiting[2:] if one(store, each).state is State.QUEUED]
    voiced(store, ordered(store, maker))
    assert {one(store, each).stage for each in (a, *waiting)} == {Stage.MUSIC}


def test_a_setting_makes_jobs_share_that_do_not_say(redis: Redis, prefix: str, store: Store) -> None:
    """And a job that says no has its own voice."""
    sharing = Store(redis, prefix, reuse=True)
    a, b, c = put(sharing, sung(key="a"), sung(key="b"), sung(key="c", reuse=False))

    assert [one(store, each).state for each in (a, b, c)] == [State.QUEUED, State.WAITING, State.QUEUED]


# ── when it is there ──────────────────────────────────────────────────────────────────────────────


def test_all_go_on_in_the_move_that_stores_the_persona(store: Store) -> None:
    """Queued for their songs, with the persona; nobody else pays for a voice."""
    a, b, c = put(store, *shared(3))
    voiced(store, ordered(store, a), NOW + 60)

    for job in (one(store, b), one(store, c)):
        assert (job.state, job.stage) == (State.QUEUED, Stage.MUSIC)
        assert (job.persona_id, job.voice_name) == (f"persona-of-{a}", "Ana")
    assert store.timeline(b)[-1].reason == f"uses voice from job {a}"
    assert store.credits() == 4


def test_a_song_that_waited_is_charged_with_the_persona_it_was_given(store: Store) -> None:
    """Its claim names it, and costs a song."""
    a, b = put(store, *shared(2))
    voiced(store, ordered(store, a))
    store.admit(NOW)

    claim = charging(store, b)

    assert (claim.stage, claim.persona_id) == (Stage.MUSIC, f"persona-of-{a}")


def test_a_voice_alone_that_was_waited_for_is_there(store: Store) -> None:
    """A job without a song has then all that it asked for."""
    a, b = put(store, voice(key="a", reuse=True), voice(key="b", reuse=True))
    voiced(store, ordered(store, a), NOW + 60)

    job = one(store, b)
    assert (job.state, job.persona_id, job.settled_at) == (State.SUCCEEDED, f"persona-of-{a}", NOW + 60)


def test_a_voice_made_before_is_taken(store: Store) -> None:
    """Also one whose job did not ask to share: it costs a song, or nothing."""
    [a] = put(store, sung(key="a"))
    voiced(store, ordered(store, a))

    song, alone = sung(key="b", reuse=True), voice(key="c", reuse=True)
    outcomes = store.enqueue([(song.id(), song), (alone.id(), alone)], NOW + 9)

    assert outcomes == [Outcome.SHARES, Outcome.SHARES]
    assert (one(store, song.id()).state, one(store, song.id()).stage) == (State.QUEUED, Stage.MUSIC)
    assert one(store, alone.id()).state is State.SUCCEEDED


def test_a_voice_made_before_is_known_by_its_url_when_its_content_is_looked_at_later(store: Store) -> None:
    """A preflight that tells the hash makes no second voice of it."""
    [a] = put(store, voice(key="a"))
    voiced(store, ordered(store, a))

    [b] = put(store, sung(key="b", reuse=True, audio_sha256="a" * 64))

    assert one(store, b).persona_id == f"persona-of-{a}"


def test_who_is_about_to_make_a_voice_that_has_come_meanwhile_takes_it(store: Store) -> None:
    """One made by a job that did not ask to share, while the other was still in the backlog."""
    [a] = put(store, voice(key="a"))
    b, c = (put(store, sung(key=key, reuse=True))[0] for key in ("b", "c"))
    store.controls.set_limits(in_flight=1)
    made = ordered(store, a)
    voiced(store, made)

    assert [one(store, each).stage for each in (b, c)] == [Stage.MUSIC, Stage.MUSIC]
    assert store.credits() == 4


def test_more_than_one_script_lets_go_are_let_go_by_the_pulse(store: Store) -> None:
    """No script holds Redis up for a whole catalogue."""
    jobs = put(store, *shared(1_201))
    voiced(store, ordered(store, jobs[0]))
    assert store.counts()[State.WAITING] == 700

    rounds = [store.release(NOW), store.release(NOW), store.release(NOW)]

    assert rounds == [500, 200, 0]
    assert store.counts()[State.WAITING] == 0


def test_a_voice_that_came_while_its_maker_had_a_slot_is_not_paid_for_again(store: Store) -> None:
    """Made by a job that did not ask to share: the claim that was to pay for a second one finds it."""
    a, (b, c) = put(store, voice(key="a"))[0], put(store, *shared(2))
    store.admit(NOW)
    charging(store, a)
    voiced(store, accepted(store, a))
    assert one(store, b).state is State.ADMITTED

    assert charge(store, b, Stage.VOICE, "holder", NOW, lease=9) is None

    assert [(one(store, each).state, one(store, each).stage) for each in (b, c)] == [(State.QUEUED, Stage.MUSIC)] * 2
    assert store.credits() == 4


def test_a_voice_that_is_there_is_sung_with_although_another_is_being_made(store: Store) -> None:
    """By the job that had paid for its own already when this one came."""
    [a] = put(store, voice(key="a"))
    [b] = put(store, *shared(1))
    store.admit(NOW)
    charging(store, b)
    voiced(store, ordered(store, a))
    accepted(store, b)

    [c] = put(store, sung(key="c", reuse=True))

    assert (one(store, c).state, one(store, c).persona_id) == (State.QUEUED, f"persona-of-{a}")


def test_the_maker_of_a_content_whose_url_was_made_meanwhile_takes_that_voice(store: Store) -> None:
    """And so does everybody who waited for it."""
    same = {"reuse": True, "audio_sha256": "a" * 64}
    other, first = put(store, voice(key="other"), sung(key="first", **same))
    [second] = put(store, sung(key="second", audio_url="https://mirror.example/x.wav", **same))
    voiced(store, ordered(store, other))
    [third] = put(store, sung(key="third", **same))

    charge(store, first, Stage.VOICE, "holder", NOW, lease=9)

    assert [one(store, each).stage for each in (first, second, third)] == [Stage.MUSIC] * 3
    assert store.credits() == 4


def test_who_comes_while_many_are_let_go_does_not_let_go_more_of_them(store: Store) -> None:
    """That is the pulse's: a call that enqueues hundreds would hold Redis up for hundreds of thousands."""
    jobs = put(store, *shared(1_201))
    voiced(store, ordered(store, jobs[0]))

    late = put(store, *(sung(key=f"late-{n}", reuse=True) for n in range(3)))

    assert {one(store, each).state for each in late} == {State.QUEUED}
    assert store.counts()[State.WAITING] == 700


def test_one_script_lets_go_no_more_than_that_for_however_many_voices(store: Store) -> None:
    """Two voices that come together are bounded as one is."""
    urls = (URL, f"{URL}?2")
    specs = [sung(key=f"{url}-{n}", audio_url=url, reuse=True) for url in urls for n in range(400)]
    jobs = put(store, *specs)
    made = [ordered(store, jobs[place]) for place in (0, 400)]
    store.apply([move(job, State.ADMITTED, to_stage=Stage.MUSIC, fields={"persona_id": "p"}) for job in made], NOW)

    assert store.counts()[State.WAITING] == 298
    assert [store.release(NOW), store.release(NOW)] == [298, 0]
