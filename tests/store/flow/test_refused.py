"""Refusals that may concern every order: whether they do shows when other orders are sent."""

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
    """Admit and claim jobs, and return them."""
    job_ids = [job_id for stage in store.admit(now).by_stage.values() for job_id in stage]
    return [job_id for job_id in job_ids if charging(store, job_id, now)]


def rich(store: Store) -> None:
    """Record a balance that can pay for every job."""
    store.controls.note_balance(10_000, spent_before=store.credits(), asked=NOW, now=NOW)


def holds(store: Store, now: float) -> list[tuple[str, float | None, bool]]:
    """Return the holds: reason, end, and whether it is a trial."""
    return [(hold.reason, hold.until, hold.trial) for hold in store.controls.gate(now).holds]


# ── scope of a refusal ────────────────────────────────────────────────────────────────────────────


@OF_TRIED
def test_after_the_first_refusal_another_job_is_tried_at_once(
    store: Store, redis: Redis, prefix: str, reason: Reason
) -> None:
    """The refused job goes behind it: upstream accepts the other, and all continue."""
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
def test_a_refusal_of_two_jobs_concerns_all(store: Store, reason: Reason) -> None:
    """Submission is held for a while, then one job is tried; each failed trial doubles the hold."""
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


def test_an_invalid_key_holds_until_it_is_resumed_or_accepted(store: Store) -> None:
    """The second refused job causes the hold; a balance report starts a trial."""
    put(store, *numbered(5))
    for effect in (Effect.ON_TRIAL, Effect.CLOSED):
        [job_id] = next_of(store, NOW) if effect is Effect.CLOSED else [_submit_one(store)]
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


def _submit_one(store: Store, key: str = "sent", now: float = NOW) -> str:
    """Submit one more order."""
    [job_id] = put(store, voice(key=key))
    make(store, one(store, job_id), State.ADMITTED, now)
    charging(store, job_id, now)
    return job_id


@OF_TRIED
def test_concurrent_responses_are_evaluated_together(store: Store, reason: Reason) -> None:
    """Two refusals with an accepted order at the same moment close nothing."""
    poisons = [_submit_one(store, key) for key in ("a", "b")]
    good = _submit_one(store, "c")
    refusal = Refusal(reason, "no", PAUSE_S, MOST_S, MOST_S)
    fields = {serialization.task_field(Stage.VOICE): "t", "since": str(NOW)}
    moves = [move(one(store, job_id), State.QUEUED, refused=refusal) for job_id in poisons]
    moves.append(move(one(store, good), State.PENDING, fields=fields, credits=4))

    assert store.write(moves, NOW) == [Effect.NONE] * 3

    assert store.controls.gate(NOW).open


# ── refusals of one job ───────────────────────────────────────────────────────────────────────────


@OF_ANY
def test_a_job_refused_while_others_are_accepted_fails(store: Store, redis: Redis, prefix: str, reason: Reason) -> None:
    """It fails after a few attempts with growing rests; from the second on others are not affected."""
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
            [refused_job] = store.controls.refused()
            assert (refused_job.job_id, refused_job.message, refused_job.times) == (
                poison,
                "The persona is gone.",
                len(tries),
            )
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
def test_a_job_that_is_refused_alone_never_fails(store: Store, reason: Reason) -> None:
    """Nothing shows whom the refusal concerns; later jobs do not wait for it."""
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


def test_a_job_refused_while_others_were_accepted_fails_without_others(store: Store) -> None:
    """The last job of a queue settles, too."""
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
    """Unless the balance is known to suffice, the refusal is right."""
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
        accepted(store, _submit_one(store, f"voice-{n}", now), now)
        balance(left)
        now += 60

    assert one(store, song.id).state is State.QUEUED


def test_an_accepted_job_has_no_refusals(store: Store, redis: Redis, prefix: str) -> None:
    """Its refusals are deleted; its song starts without any."""
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
def test_a_trial_ends_when_its_job_is_cancelled(store: Store, reason: Reason) -> None:
    """No other job supports it."""
    [lone] = put(store, voice())
    next_of(store, NOW)
    refused(store, lone, reason)
    assert not store.controls.gate(NOW).open

    make(store, one(store, lone), State.CANCELLED)

    assert store.controls.gate(NOW).open


# ── trials ────────────────────────────────────────────────────────────────────────────────────────


def test_no_trial_takes_a_job_twice_while_there_are_others(store: Store) -> None:
    """This holds for every priority, batch and stage; the next trial starts at the other end of the backlog."""
    urgent = put(store, *(voice(key=f"u{n}", priority=Priority.HIGH) for n in range(10)))
    [late] = put(store, voice(key="late", batch="other", priority=Priority.BULK), now=NOW + 1)
    now, tried = NOW + 2, [_submit_one(store)]
    refused(store, tried[0], now=now)
    for _ in range(2):
        [job_id] = next_of(store, now)
        tried.append(job_id)
        refused(store, job_id, now=now)
        now += 10

    assert tried[1:] == [urgent[0], late]


def test_many_similar_refused_jobs_do_not_block_others(store: Store) -> None:
    """Fifty songs with a deleted persona precede ten voices: the voices are accepted within a minute."""
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


def test_a_resting_job_holds_no_slot(store: Store) -> None:
    """With one slot, it is tried again when its rest is over, and not before."""
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


def test_a_later_job_is_tried_soon_while_refused_jobs_hold_the_gate(store: Store) -> None:
    """Two jobs are always refused, so that the hold grows; a new job ends it."""
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


# ── rate limiting ─────────────────────────────────────────────────────────────────────────────────


def test_one_rate_limited_job_delays_others_once_and_briefly(store: Store) -> None:
    """Regardless of the wait that upstream asks for, and with the same limit; the job itself waits."""
    store.controls.set_limits(in_flight=20)
    before = store.controls.flow()
    poison = _submit_one(store)

    assert slowed(store, poison, wait_s=300.0) is Effect.CLOSED
    assert holds(store, NOW) == [("cooldown", NOW + PAUSE_S, False)]
    assert store.controls.flow() == before

    now = NOW + PAUSE_S
    for _ in range(4):
        accepted(store, _submit_one(store, f"{now}", now), now)
        now += 300
        assert next_of(store, now) == [poison]
        assert slowed(store, poison, now, wait_s=300.0) is Effect.NONE
        assert store.controls.gate(now).open
        assert store.controls.flow() == before


def test_rate_limiting_of_two_jobs_holds_all(store: Store) -> None:
    """For a minute at most, because it may concern only those two; and the limit decreases."""
    first, second = _submit_one(store, "a"), _submit_one(store, "b")
    slowed(store, first, wait_s=30.0)
    slowed(store, second, wait_s=30.0)
    assert holds(store, NOW) == [("cooldown", NOW + 30, False)]

    slowed(store, _submit_one(store, "c", NOW + 31), NOW + 31, wait_s=300.0)

    assert holds(store, NOW + 31) == [("cooldown", NOW + 31 + 60, False)]
    assert store.controls.flow().limit == 1


def test_resume_tries_resting_jobs(store: Store) -> None:
    """It ends their rest at once."""
    poison = _submit_one(store)
    slowed(store, poison, wait_s=300.0)

    assert store.controls.resume(NOW + 1)

    assert next_of(store, NOW + 1) == [poison]
