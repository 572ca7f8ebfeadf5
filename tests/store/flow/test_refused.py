"""Orders that upstream refuses in words which may be meant for all: it shows when others are sent."""

from __future__ import annotations

from itertools import pairwise

import pytest
from redis import Redis

from tests.store.life import (
    MOST_S,
    NOW,
    PAUSE_S,
    accepted,
    brought_to,
    charging,
    everything_agrees,
    make,
    move,
    one,
    put,
    refused,
    slowed,
)
from tests.support.jobs import numbered, sung, voice
from voicequeue import Code, Priority, Stage, State
from voicequeue.domain import serialization
from voicequeue.domain.gate import Effect, Reason, Refusal
from voicequeue.storage.job_store import Store

#: Reasons that end with a trial.
OF_TRIED = pytest.mark.parametrize("reason", [Reason.OUT_OF_CREDITS, Reason.UNAUTHORIZED, Reason.UPSTREAM_DOWN])
OF_ANY = pytest.mark.parametrize(
    "reason", [Reason.OUT_OF_CREDITS, Reason.UNAUTHORIZED, Reason.UPSTREAM_DOWN, Reason.COOLDOWN]
)


def next_of(store: Store, now: float) -> list[str]:
    """The jobs that are admitted now, and begin to be sent."""
    job_ids = [job_id for stage in store.admit(now).by_stage.values() for job_id in stage]
    return [job_id for job_id in job_ids if charging(store, job_id, now)]


def rich(store: Store) -> None:
    """The account can pay, as upstream has just said."""
    store.controls.note_balance(10_000, spent_before=store.credits(), asked=NOW, now=NOW)


def holds(store: Store, now: float) -> list[tuple[str, float | None, bool]]:
    """What holds charges back: the reason, until when, and whether it is on trial."""
    return [(hold.reason, hold.until, hold.trial) for hold in store.controls.gate(now).holds]


# ── of one job, or of all ─────────────────────────────────────────────────────────────────────────


@OF_TRIED
def test_after_the_first_refusal_another_job_is_tried_at_once(
    store: Store, redis: Redis, prefix: str, reason: Reason
) -> None:
    """It is the one that goes behind: upstream takes the other, and all go on."""
    first, *others = put(store, *numbered(4))
    store.admit(NOW, at_most=1)
    charging(store, first)

    assert refused(store, first, reason, words="This persona is not for you.") is Effect.ON_TRIAL
    [hold] = store.controls.gate(NOW).holds
    assert (hold.reason, hold.trial) == (reason, True)
    assert hold.detail == f"This persona is not for you. (job {first})"

    assert next_of(store, NOW) == others[:1]
    assert next_of(store, NOW) == []
    accepted(store, others[0])
    assert store.controls.gate(NOW).open
    assert next_of(store, NOW) == others[1:]
    everything_agrees(redis, prefix)


@OF_TRIED
def test_what_upstream_says_of_two_jobs_holds_for_all(store: Store, reason: Reason) -> None:
    """Nothing is charged for a while, then one is tried; each trial that fails makes it twice as long."""
    job_ids = put(store, *numbered(9))
    now, waits, effects = NOW, list[float | None](), list[Effect | None]()
    for _ in range(7):
        [job_id] = next_of(store, now) if waits else [put(store, voice(key="x"))[0]]
        if not waits:
            make(store, one(store, job_id), State.ADMITTED)
            charging(store, job_id)
        effects.append(refused(store, job_id, reason, now))
        [hold] = store.controls.gate(now).holds
        assert hold.until is not None
        waits.append(hold.until - now)
        now = hold.until

    assert waits == [0, 5, 10, 20, 40, MOST_S, MOST_S]
    assert effects == [Effect.ON_TRIAL, Effect.CLOSED, *[Effect.NONE] * 5]
    assert {one(store, job_id).state for job_id in job_ids} == {State.QUEUED}


def test_a_wrong_key_holds_until_an_operator_resumes_or_upstream_knows_it(store: Store) -> None:
    """The second job that meets it says so; that upstream tells the balance to whom it knows opens it for a trial."""
    put(store, *numbered(5))
    for effect in (Effect.ON_TRIAL, Effect.CLOSED):
        [job_id] = next_of(store, NOW) if effect is Effect.CLOSED else [_sent(store)]
        assert refused(store, job_id, Reason.UNAUTHORIZED, most_s=None) is effect

    assert holds(store, NOW + 1e6) == [("unauthorized", None, False)]
    assert next_of(store, NOW + 1e6) == []
    rich(store)
    [job_id] = next_of(store, NOW + 60)
    assert refused(store, job_id, Reason.UNAUTHORIZED, NOW + 60, most_s=None) is Effect.CLOSED
    store.controls.resume(NOW + 61)
    [job_id] = next_of(store, NOW + 61)
    accepted(store, job_id, NOW + 61)
    assert store.controls.gate(NOW + 61).open


def _sent(store: Store, key: str = "sent", now: float = NOW) -> str:
    """One more order is on its way."""
    [job_id] = put(store, voice(key=key))
    make(store, one(store, job_id), State.ADMITTED, now)
    charging(store, job_id, now)
    return job_id


@OF_TRIED
def test_orders_that_are_answered_together_are_judged_together(store: Store, reason: Reason) -> None:
    """Two refusals beside one order that upstream takes at that moment close nothing."""
    poisons = [_sent(store, key) for key in ("a", "b")]
    good = _sent(store, "c")
    refusal = Refusal(reason, "no", PAUSE_S, MOST_S, MOST_S)
    taken = {serialization.task_field(Stage.VOICE): "t", "since": str(NOW)}
    moves = [move(one(store, job_id), State.QUEUED, refused=refusal) for job_id in poisons]
    moves.append(move(one(store, good), State.PENDING, fields=taken, credits=4))

    assert store.write(moves, NOW) == [Effect.NONE] * 3

    assert store.controls.gate(NOW).open


# ── a job of its own ──────────────────────────────────────────────────────────────────────────────


@OF_ANY
def test_a_job_that_is_refused_while_others_are_taken_fails_with_upstreams_words(
    store: Store, redis: Redis, prefix: str, reason: Reason
) -> None:
    """After a few times, each later than the last; from the second on the others hear nothing of it."""
    rich(store)
    store.controls.set_limits(in_flight=100)
    [poison] = put(store, voice(key="poison"))
    put(store, *(voice(key=f"{n}") for n in range(60)))
    now, tries = NOW, list[float]()
    while one(store, poison).state is not State.FAILED:
        assert now < NOW + 3_600
        for job_id in next_of(store, now):
            if job_id == poison:
                tries.append(now)
                refused(store, job_id, reason, now, words="The persona is gone.", rest_s=20.0, tries=3)
                assert store.controls.gate(now).open or len(tries) == 1
            else:
                accepted(store, job_id, now)
        if one(store, poison).state is State.QUEUED and len(tries) > 1:
            [told] = store.controls.refused()
            assert (told.job_id, told.message, told.times) == (poison, "The persona is gone.", len(tries))
        put(store, voice(key=f"more-{now}"), now=now)
        now += 1

    failure = one(store, poison).failure
    assert failure is not None
    assert (failure.code, failure.message) == (Code.REFUSED, "The persona is gone.")
    waits = [later - earlier for earlier, later in pairwise(tries)]
    assert len(tries) == 4
    assert waits == sorted(waits)
    assert waits[0] >= PAUSE_S
    assert store.controls.refused() == []
    everything_agrees(redis, prefix)


@OF_ANY
def test_a_job_that_is_refused_alone_waits_and_fails_never(store: Store, reason: Reason) -> None:
    """Nothing tells whether it is meant; but who comes then does not wait for it."""
    [lone] = put(store, sung())
    now = NOW
    for _ in range(40):
        while not next_of(store, now):
            now += 1
        refused(store, lone, reason, now)
    assert one(store, lone).state is State.QUEUED

    [other] = put(store, voice(key="other"), now=now)
    now += PAUSE_S if reason is Reason.COOLDOWN else 0
    assert next_of(store, now) == [other]


def test_a_job_that_was_refused_while_others_were_taken_fails_in_time_though_no_others_come(store: Store) -> None:
    """An empty queue ends as well."""
    lone, other = put(store, voice(key="lone"), voice(key="other"))
    now = NOW
    store.admit(now)
    for job_id in (lone, other):
        charging(store, job_id)
    refused(store, lone)
    accepted(store, other)
    while one(store, lone).state is not State.FAILED:
        now += 1
        assert now < NOW + 1_800
        for job_id in next_of(store, now):
            refused(store, job_id, now=now)

    assert store.controls.gate(now).open


@pytest.mark.parametrize("left", [None, 14])
def test_a_job_that_cannot_be_paid_while_cheaper_ones_are_does_not_fail(store: Store, left: int | None) -> None:
    """Unless the account has what it costs, as far as is known, the words are true."""
    store.controls.set_limits(in_flight=100)
    song = brought_to(store, State.PENDING, sung())
    make(store, song, State.ADMITTED, to_stage=Stage.MUSIC, fields={"persona_id": "p"})
    now = NOW

    def balance(credits: int | None) -> None:
        if credits is not None:
            store.controls.note_balance(credits, spent_before=store.credits(), asked=now, now=now)

    for n in range(12):
        if one(store, song.id).state is State.QUEUED:
            make(store, one(store, song.id), State.ADMITTED, now)
        balance(left and 99)  # as we count it: it would not be sent otherwise
        charging(store, song.id, now)
        balance(left)
        refused(store, song.id, Reason.OUT_OF_CREDITS, now)
        balance(left and 99)
        accepted(store, _sent(store, f"voice-{n}", now), now)
        balance(left)
        now += 60

    assert one(store, song.id).state is State.QUEUED


def test_a_job_that_upstream_takes_at_last_is_forgiven(store: Store, redis: Redis, prefix: str) -> None:
    """Nothing is left of the refusals; its song is judged anew."""
    first, other = put(store, sung(key="first"), voice(key="other"))
    next_of(store, NOW)
    refused(store, first)
    accepted(store, other)
    assert next_of(store, NOW + PAUSE_S) == [first]
    refused(store, first, now=NOW + PAUSE_S)
    assert [job.job_id for job in store.controls.refused()] == [first]
    assert next_of(store, NOW + 60) == [first]
    accepted(store, first, NOW + 60)

    assert store.controls.refused() == []
    assert redis.hget(f"{{{prefix}}}:job:{first}", "refused") is None
    everything_agrees(redis, prefix)


@OF_TRIED
def test_a_trial_for_a_job_that_is_cancelled_is_over(store: Store, reason: Reason) -> None:
    """Nothing speaks for it any more."""
    [lone] = put(store, voice())
    next_of(store, NOW)
    refused(store, lone, reason)
    assert not store.controls.gate(NOW).open

    make(store, one(store, lone), State.CANCELLED)

    assert store.controls.gate(NOW).open


# ── who is tried ──────────────────────────────────────────────────────────────────────────────────


def test_no_trial_takes_a_job_twice_while_there_are_others(store: Store) -> None:
    """Of whatever priority, batch and stage; the next one is from the other end of the backlog."""
    urgent = put(store, *(voice(key=f"u{n}", priority=Priority.HIGH) for n in range(10)))
    [late] = put(store, voice(key="late", batch="other", priority=Priority.BULK), now=NOW + 1)
    now, tried = NOW + 2, [_sent(store)]
    refused(store, tried[0], now=now)
    for _ in range(2):
        [job_id] = next_of(store, now)
        tried.append(job_id)
        refused(store, job_id, now=now)
        now += 10

    assert tried[1:] == [urgent[0], late]


def test_many_alike_that_are_refused_keep_others_from_nothing(store: Store) -> None:
    """Fifty songs of a persona that is gone, before ten voices in the same line: these are taken within a minute."""
    store.controls.set_limits(in_flight=10)
    poisons = set(put(store, *(voice(key=f"p{n}") for n in range(50))))
    good = put(store, *(voice(key=f"g{n}") for n in range(10)), now=NOW + 1)
    now = NOW + 2
    while any(one(store, job_id).state is not State.SUCCEEDED for job_id in good):
        now += 0.5
        assert now < NOW + 62
        for job_id in next_of(store, now):
            if job_id in poisons:
                refused(store, job_id, now=now)
            else:
                make(store, accepted(store, job_id, now), State.SUCCEEDED, now)


def test_a_job_that_rests_leaves_its_slot_and_its_place_to_others(store: Store) -> None:
    """With one slot alone; and it is looked at again when its time has come, not before."""
    store.controls.set_limits(in_flight=1)
    poison, *others = put(store, *numbered(4))
    assert next_of(store, NOW) == [poison]
    refused(store, poison)

    served = []
    for n in range(3):
        [job_id] = next_of(store, NOW + n)
        make(store, accepted(store, job_id, NOW + n), State.SUCCEEDED, NOW + n)
        served.append(job_id)
    assert served == others
    assert next_of(store, NOW + PAUSE_S - 0.1) == []
    assert next_of(store, NOW + PAUSE_S) == [poison]


def test_a_job_that_comes_later_is_tried_soon_however_long_refused_ones_hold_the_gate(store: Store) -> None:
    """Two jobs that are always refused, and no other: the gate is closed for ever longer. A new one opens it."""
    poison, now, closed_at = put(store, *numbered(2)), NOW, NOW
    for _ in range(8):
        for job_id in next_of(store, now):
            refused(store, job_id, now=now)
            closed_at = now
        [hold] = store.controls.gate(now).holds
        now += 1 if hold.trial else (hold.until or now) - now
    [(_, until, _)] = holds(store, closed_at)
    assert until is not None
    assert until >= closed_at + 2 * PAUSE_S

    [healthy] = put(store, voice(key="healthy"), now=closed_at + 1)

    assert next_of(store, closed_at + PAUSE_S - 0.1) == []
    assert next_of(store, closed_at + PAUSE_S) == [healthy]
    accepted(store, healthy, closed_at + PAUSE_S)
    assert store.controls.gate(closed_at + PAUSE_S).open
    assert all(one(store, job_id).state is State.QUEUED for job_id in poison)


# ── slow down ─────────────────────────────────────────────────────────────────────────────────────


def test_one_job_that_is_told_to_slow_down_holds_the_others_up_once_and_shortly(store: Store) -> None:
    """Whatever wait upstream asks for, and without lowering the limit; it waits itself for as long."""
    store.controls.set_limits(in_flight=20)
    before = store.controls.flow()
    poison = _sent(store)

    assert slowed(store, poison, wait_s=300.0) is Effect.CLOSED
    assert holds(store, NOW) == [("cooldown", NOW + PAUSE_S, False)]
    assert store.controls.flow() == before

    now = NOW + PAUSE_S
    for _ in range(4):
        accepted(store, _sent(store, f"{now}", now), now)
        now += 300
        assert next_of(store, now) == [poison]
        assert slowed(store, poison, now, wait_s=300.0) is Effect.NONE
        assert store.controls.gate(now).open
        assert store.controls.flow() == before


def test_a_wait_that_upstream_asks_two_jobs_for_holds_for_all(store: Store) -> None:
    """For a minute at most, since it may be meant for those two alone; and fewer jobs are in flight."""
    first, second = _sent(store, "a"), _sent(store, "b")
    slowed(store, first, wait_s=30.0)
    slowed(store, second, wait_s=30.0)
    assert holds(store, NOW) == [("cooldown", NOW + 30, False)]

    slowed(store, _sent(store, "c", NOW + 31), NOW + 31, wait_s=300.0)

    assert holds(store, NOW + 31) == [("cooldown", NOW + 31 + 60, False)]
    assert store.controls.flow().limit == 1


def test_to_resume_tries_jobs_that_rest(store: Store) -> None:
    """At once."""
    poison = _sent(store)
    slowed(store, poison, wait_s=300.0)

    assert store.controls.resume(NOW + 1)

    assert next_of(store, NOW + 1) == [poison]
