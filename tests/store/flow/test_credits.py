"""Credits: nobody begins what cannot be paid, and what jobs in flight will cost is not promised twice."""

from __future__ import annotations

import pytest
from redis import Redis

from tests.store.life import NOW, accepted, brought_to, charging, everything_agrees, failed, make, one, put
from tests.support.jobs import sung, voice
from voicequeue import Code, Stage, State, VoiceJob
from voicequeue.domain.claims import Admitted
from voicequeue.domain.gate import Account, Limits
from voicequeue.domain.stage import PRICES
from voicequeue.storage import scripts
from voicequeue.storage.job_store import Store


def songs(count: int, **fields: object) -> list[VoiceJob]:
    """Voices with songs, 19 credits each."""
    return [sung(key=f"{fields}-{n}", **fields) for n in range(count)]


def left(store: Store, credits: int, now: float = NOW) -> None:
    """Upstream says what is left."""
    store.controls.note_balance(credits, spent_before=store.credits(), asked=now, now=now)


def count(admitted: Admitted) -> int:
    """How many were admitted."""
    return sum(map(len, admitted.by_stage.values()))


def ordered(store: Store, job_id: str) -> None:
    """Order the stage where the job stands, and let it be ready."""
    charging(store, job_id)
    job = accepted(store, job_id)
    if job.stage is Stage.VOICE and job.spec.song is not None:
        make(store, job, State.ADMITTED, to_stage=Stage.MUSIC, fields={"persona_id": "p"})
    else:
        make(store, job, State.SUCCEEDED)


def test_prices_are_the_same_in_python_and_in_lua() -> None:
    """One of them alone would promise what the other does not spend."""
    program = scripts.load("admit").source.split("-- admit: ")[0].partition("local PRICE = {")[2].partition("}")[0]

    assert {name.strip(): int(price) for name, price in (pair.split("=") for pair in program.split(","))} == PRICES


def test_without_a_word_of_upstreams_nothing_is_held_back(store: Store) -> None:
    """What is not known is no reason: upstream says no if it must."""
    put(store, *songs(9))

    assert count(store.admit(NOW)) == 9
    assert store.controls.account() == Account(None, None, committed=9 * 19)


def test_no_more_begins_than_can_be_paid_to_its_end(store: Store, redis: Redis, prefix: str) -> None:
    """Songs included, although only voices are ordered so far."""
    put(store, *songs(9))
    left(store, 3 * 19 + 18)

    assert count(store.admit(NOW)) == 3

    assert store.controls.account().committed == 3 * 19
    assert count(store.admit(NOW)) == 0
    everything_agrees(redis, prefix)


def test_the_floor_is_not_touched(store: Store, redis: Redis, prefix: str) -> None:
    """By the settings, or as somebody set it meanwhile."""
    own = Store(redis, prefix, limits=Limits(in_flight=99, first_in_flight=99, credit_floor=10))
    put(own, *(voice(key=f"{n}") for n in range(9)))
    left(own, 10 + 2 * 4 + 3)

    assert count(own.admit(NOW)) == 2
    own.controls.set_limits(credit_floor=5)
    assert count(own.admit(NOW)) == 2
    own.controls.set_limits(credit_floor=None)
    assert count(own.admit(NOW)) == 0


def test_credits_for_40_of_100_jobs_make_40(store: Store, redis: Redis, prefix: str) -> None:
    """Exactly those credits are spent, whatever is ordered when, and 60 jobs wait unharmed."""
    put(store, *songs(100))
    left(store, 40 * 19 + 18)
    store.controls.set_limits(in_flight=7)

    for _ in range(200):
        store.admit(NOW)
        account = store.controls.account()
        assert account.left is not None
        assert account.left - account.committed >= 0
        for job_id in list(store.ids(state=State.ADMITTED))[:5]:
            ordered(store, job_id)

    counts = {state: n for state, n in store.counts().items() if n}
    assert counts == {State.SUCCEEDED: 40, State.QUEUED: 60}
    assert store.credits() == 40 * 19
    assert store.controls.account().left == 18
    assert store.controls.account().committed == 0
    everything_agrees(redis, prefix)


def test_that_credits_are_short_is_news_once_and_that_there_are_enough_too(store: Store) -> None:
    """However often one looks."""
    put(store, *songs(4))
    left(store, 2 * 19)

    assert [store.admit(NOW + n).news for n in range(4)] == ["short", "", "", ""]
    left(store, 19)
    assert store.admit(NOW + 4).news == ""
    left(store, 500)
    assert [store.admit(NOW + 5).news, store.admit(NOW + 6).news] == ["enough", ""]
    put(store, *songs(30, batch="b"))
    assert store.admit(NOW + 7).news == "short"


def test_that_no_slot_is_free_says_nothing_about_credits(store: Store) -> None:
    """Short stays short while the next job cannot even be looked at."""
    put(store, *songs(4))
    store.controls.set_limits(in_flight=2)
    left(store, 19)
    assert store.admit(NOW).news == "short"
    left(store, 2 * 19)
    assert store.admit(NOW).news == ""
    left(store, 500)

    assert store.admit(NOW).news == ""

    store.controls.set_limits(in_flight=9)
    assert store.admit(NOW).news == "enough"


def test_the_gate_says_why_nothing_more_begins(store: Store) -> None:
    """With what is left, what is promised, what is not to be touched, and what the next job costs."""
    put(store, *songs(4))
    store.controls.set_limits(credit_floor=5)
    left(store, 1_030)
    store.admit(NOW, at_most=1)
    left(store, 30)
    store.admit(NOW + 1)

    [hold] = store.controls.gate(NOW + 2).holds

    assert (hold.reason, hold.since, hold.until, hold.trial) == ("out_of_credits", NOW + 1, None, False)
    for part in ("30 credits left", "19 of them reserved", "the minimum balance is 5", "costs 19"):
        assert part in hold.detail


def test_an_order_that_upstream_did_not_let_pay_is_the_reason_that_is_told(store: Store) -> None:
    """Not both at once."""
    put(store, *songs(2))
    left(store, 10)
    store.admit(NOW)
    store.controls.close("out_of_credits", "403: top up", NOW + 1)

    assert [hold.detail for hold in store.controls.gate(NOW + 1).holds] == ["403: top up"]


@pytest.mark.parametrize(
    ("state", "committed"),
    [
        (State.QUEUED, 0),
        (State.ADMITTED, 19),
        (State.CHARGING, 19),
        (State.PENDING, 15),
        (State.UNSURE, 19),
        (State.SUCCEEDED, 0),
        (State.FAILED, 0),
        (State.CANCELLED, 0),
    ],
)
def test_what_a_job_is_still_going_to_spend_follows_from_where_it_stands(
    store: Store, redis: Redis, prefix: str, state: State, committed: int
) -> None:
    """In flight, or unsure, for its order may have been charged; a stage that is paid is not promised any more."""
    brought_to(store, state, sung(batch="b"))

    assert store.controls.account().committed == committed
    everything_agrees(redis, prefix)


def test_what_is_given_back_can_begin_something_else(store: Store) -> None:
    """A job that fails or goes back to the line frees what was promised to it."""
    put(store, *songs(3))
    left(store, 19)
    store.admit(NOW)
    [job_id] = store.ids(state=State.ADMITTED)
    assert count(store.admit(NOW)) == 0

    make(store, one(store, job_id), State.CANCELLED)

    assert count(store.admit(NOW)) == 1


def test_failures_are_counted_by_their_code_while_they_last(store: Store, redis: Redis, prefix: str) -> None:
    """A retry takes one off; a failure that turns out to be another is that one."""
    jobs = [brought_to(store, State.PENDING) for _ in range(3)]
    first = failed(store, jobs[0], Code.DEADLINE)
    failed(store, jobs[1], Code.DEADLINE)
    failed(store, jobs[2], Code.UPSTREAM_FAILED)
    assert store.failures() == {"deadline": 2, "upstream_failed": 1}

    first = failed(store, first, Code.UPSTREAM_FAILED)
    assert store.failures() == {"deadline": 1, "upstream_failed": 2}
    make(store, first, State.QUEUED, fields={"failure": None, "settled": None})
    assert store.failures() == {"deadline": 1, "upstream_failed": 1}
    everything_agrees(redis, prefix)


def test_what_has_succeeded_lately_is_the_pace(store: Store) -> None:
    """By when it succeeded."""
    for at in range(5):
        job = brought_to(store, State.PENDING)
        make(store, job, State.SUCCEEDED, NOW + at)

    assert store.finished(NOW + 2) == 3
    assert store.finished(NOW + 9) == 0


def test_what_is_spent_is_counted_by_its_day(store: Store) -> None:
    """Of UTC."""
    midnight = NOW // 86_400 * 86_400
    for now in (midnight - 1, midnight, midnight + 86_399):
        [job_id] = put(store, voice(), now=now)
        store.admit(now)
        charging(store, job_id, now)
        accepted(store, job_id, now)

    assert store.controls.account(midnight + 5).spent_today == 8
    assert store.controls.account(midnight - 5).spent_today == 4
    assert store.controls.account(midnight + 86_400).spent_today == 0
