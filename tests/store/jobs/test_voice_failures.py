"""Shared voices that are not created: failed, cancelled, expired or unsure creators."""

from __future__ import annotations

import pytest
from redis import Redis

from tests.store.jobs.test_voices import ordered, shared, voiced
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


# ── when it is not ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("code", [Code.REFUSED, Code.UPSTREAM_FAILED, Code.DEADLINE, Code.ABANDONED])
def test_who_waits_fails_with_the_voice(store: Store, code: Code) -> None:
    """With its code, and a message that names the job which made it; nobody pays to fail again."""
    a, b, c = put(store, *shared(3))
    failed(store, ordered(store, a), code, NOW + 5)

    for job in (one(store, b), one(store, c)):
        assert job.state is State.FAILED
        assert job.failure is not None
        assert (job.failure.code, job.failure.stage) == (code, Stage.VOICE)
        assert job.failure.message == f"shared voice from job {a}: no"
        assert job.settled_at == NOW + 5
    assert store.failures() == {code: 3}


def test_a_song_that_fails_is_nobody_elses_trouble(store: Store) -> None:
    """The voice is there; the others sing with it."""
    a, b = put(store, *shared(2))
    failed(store, voiced(store, ordered(store, a)), Code.MODERATED)

    assert one(store, b).state is State.QUEUED


def test_the_next_makes_the_voice_where_the_first_is_cancelled_before_it_was_paid(store: Store) -> None:
    """One customer's change of mind is not another's."""
    a, b, c = put(store, *shared(3))
    make(store, one(store, a), State.CANCELLED)

    assert [one(store, each).state for each in (b, c)] == [State.QUEUED, State.WAITING]
    assert "creates the voice" in store.timeline(b)[-1].reason


def test_the_next_makes_the_voice_where_the_first_expired(store: Store) -> None:
    """That was its own limit."""
    a, b = put(store, *shared(2))
    failed(store, one(store, a), Code.EXPIRED)

    assert one(store, b).state is State.QUEUED


def test_a_voice_that_was_paid_for_is_waited_for_although_its_job_was_cancelled(store: Store) -> None:
    """Upstream goes on with it, and what comes serves the others."""
    a, b = put(store, *shared(2))
    cancelled = make(store, ordered(store, a), State.CANCELLED, due=NOW + 5)
    assert one(store, b).state is State.WAITING

    make(store, cancelled, State.CANCELLED, fields={"persona_id": "p-late"})

    assert (one(store, b).state, one(store, b).persona_id) == (State.QUEUED, "p-late")


def test_the_next_makes_the_voice_where_nothing_came_of_a_cancelled_one(store: Store) -> None:
    """It is not looked for any more."""
    a, b = put(store, *shared(2))
    cancelled = make(store, ordered(store, a), State.CANCELLED, due=NOW + 5)
    make(store, cancelled, State.CANCELLED, reason="nothing came")

    assert (one(store, b).state, one(store, b).stage) == (State.QUEUED, Stage.VOICE)


def test_a_voice_that_comes_after_its_deadline_serves_whoever_comes_then(store: Store) -> None:
    """And whoever failed with it, when they are retried."""
    a, b = put(store, *shared(2))
    late = failed(store, ordered(store, a), Code.DEADLINE)
    make(store, late, State.FAILED, fields={"persona_id": "p-late"})
    retried = make(store, one(store, b), State.QUEUED, fields={"failure": None, "settled": None})

    assert (retried.state, retried.stage, retried.persona_id) == (State.QUEUED, Stage.MUSIC, "p-late")


def test_of_those_that_are_retried_the_first_makes_the_voice_again(store: Store) -> None:
    """And the others wait for it, as they did."""
    a, b, c = put(store, *shared(3))
    failed(store, ordered(store, a), Code.UPSTREAM_FAILED)
    cleared: dict[str, str | None] = {"failure": None, "settled": None}
    states = [make(store, one(store, each), State.QUEUED, fields=cleared).state for each in (b, a, c)]

    assert states == [State.QUEUED, State.WAITING, State.WAITING]
    assert store.failures() == {}


def test_a_voice_that_is_asked_for_again_is_waited_for(store: Store) -> None:
    """A retry after the deadline pays nothing; whoever comes meanwhile makes no second one."""
    [a] = put(store, *shared(1))
    late = failed(store, ordered(store, a), Code.DEADLINE)
    make(store, late, State.PENDING, fields={"failure": None, "settled": None, "since": str(NOW)})

    [b] = put(store, sung(key="another", reuse=True))

    assert one(store, b).state is State.WAITING


def test_who_is_over_together_with_the_maker_is_not_made_to_make_the_voice(store: Store) -> None:
    """All of them expire, or are cancelled: nobody is left to pay for it."""
    jobs = [one(store, each) for each in put(store, *shared(3))]

    assert store.apply([move(job, State.CANCELLED) for job in jobs], NOW) == [True] * 3


def test_where_all_are_retried_after_the_deadline_the_paid_order_is_asked_about_first(store: Store) -> None:
    """In whatever order they are named: nobody pays for the voice a second time."""
    a, b = put(store, *shared(2))
    failed(store, ordered(store, a), Code.DEADLINE)

    store.apply([transitions.retry(one(store, each), NOW + 9) for each in (b, a)], NOW + 9)

    assert [one(store, each).state for each in (a, b)] == [State.PENDING, State.WAITING]


def test_a_paid_order_that_is_asked_about_again_takes_the_place_of_one_that_is_not_begun(store: Store) -> None:
    """Whoever failed with it was retried before it was."""
    a, b = put(store, *shared(2))
    failed(store, ordered(store, a), Code.DEADLINE)
    for each in (b, a):
        store.apply([transitions.retry(one(store, each), NOW + 9)], NOW + 9)

    assert [one(store, each).state for each in (a, b)] == [State.PENDING, State.WAITING]


def test_who_waits_can_be_cancelled_and_expire(store: Store) -> None:
    """They are jobs like any other."""
    a, b, c = put(store, *shared(2), sung(key="hurry", reuse=True, start_within_s=5))
    make(store, one(store, b), State.CANCELLED)

    assert [(job.job_id, job.state) for job in store.expired(NOW + 6)] == [(c, State.WAITING)]
    failed(store, one(store, c), Code.EXPIRED)
    assert one(store, a).state is State.QUEUED


def test_an_unsure_voice_is_waited_for(store: Store) -> None:
    """Until somebody says what became of it."""
    a, b = put(store, *shared(2))
    store.admit(NOW)
    charging(store, a)
    make(store, one(store, a), State.UNSURE)

    assert one(store, b).state is State.WAITING
    assert ids(store.get(list(store.ids(state=State.WAITING)))) == [b]


def test_a_hash_that_is_learnt_later_makes_no_other_job(store: Store) -> None:
    """A file that was ingested, and is ingested again with a preflight, adds nothing."""
    put(store, sung(key="a"))
    again = sung(key="a", audio_sha256="a" * 64)

    assert store.enqueue([(again.id(), again)], NOW) == [Outcome.KNOWN]


def test_a_voice_is_known_by_the_content_of_its_recording(store: Store) -> None:
    """Whoever makes it with the hash known makes it for every URL with that content."""
    [a] = put(store, voice(key="a", audio_sha256="a" * 64))
    voiced(store, ordered(store, a))

    [b] = put(store, sung(key="b", audio_url="https://mirror.example/x.wav", audio_sha256="a" * 64, reuse=True))

    assert one(store, b).persona_id == f"persona-of-{a}"


def test_a_name_means_no_voice_that_others_made_of_the_recording(store: Store) -> None:
    """That is for those who ask to reuse it."""
    [a] = put(store, voice(key="a"))
    voiced(store, ordered(store, a))

    [b] = put(store, sung(key="b", voice="ana", batch="b"))

    assert (one(store, b).state, one(store, b).stage) == (State.QUEUED, Stage.VOICE)
