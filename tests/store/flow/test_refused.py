"""Refusals that may concern every order: whether they do shows when other orders are sent."""

from __future__ import annotations

from itertools import pairwise

import pytest
from redis import Redis

from tests.store.life import (
    MOST_S,
    NOW,
    PAUSE_S,
    accept_order,
    apply_transition,
    assert_consistent,
    claim_admitted,
    enqueue_jobs,
    get_job,
    job_in_state,
    rate_limit_order,
    refuse_order,
    transition_of,
)
from tests.support.jobs import numbered_voices, voice, voice_with_song
from voicequeue import FailureCode, Priority, Stage, State
from voicequeue.domain import serialization
from voicequeue.domain.gate import HoldEffect, HoldReason, Refusal
from voicequeue.storage.job_store import JobStore

#: Reasons that end with a trial.
OF_TRIED = pytest.mark.parametrize(
    "reason", [HoldReason.OUT_OF_CREDITS, HoldReason.UNAUTHORIZED, HoldReason.UPSTREAM_DOWN]
)
OF_ANY = pytest.mark.parametrize(
    "reason", [HoldReason.OUT_OF_CREDITS, HoldReason.UNAUTHORIZED, HoldReason.UPSTREAM_DOWN, HoldReason.COOLDOWN]
)


def next_of(store: JobStore, now: float) -> list[str]:
    """Admit and claim jobs, and return them."""
    job_ids = [job_id for stage in store.admit(now).by_stage.values() for job_id in stage]
    return [job_id for job_id in job_ids if claim_admitted(store, job_id, now)]


def rich(store: JobStore) -> None:
    """Record a balance that can pay for every job."""
    store.flow_control.record_balance(10_000, spent_before=store.credits_spent(), requested_at=NOW, now=NOW)


def holds(store: JobStore, now: float) -> list[tuple[str, float | None, bool]]:
    """Return the holds: reason, end, and whether it is a trial."""
    return [(hold.reason, hold.until, hold.is_on_trial) for hold in store.flow_control.gate(now).holds]


# ── scope of a refusal ────────────────────────────────────────────────────────────────────────────


@OF_TRIED
def test_after_the_first_refusal_another_job_is_tried_at_once(
    store: JobStore, redis: Redis, prefix: str, reason: HoldReason
) -> None:
    """The refused job goes behind it: upstream accepts the other, and all continue."""
    first, *others = enqueue_jobs(store, *numbered_voices(4))
    store.admit(NOW, at_most=1)
    claim_admitted(store, first)

    assert refuse_order(store, first, reason, words="This persona is not for you.") is HoldEffect.ON_TRIAL
    [hold] = store.flow_control.gate(NOW).holds
    assert (hold.reason, hold.is_on_trial) == (reason, True)
    assert hold.detail == f"This persona is not for you. (job {first})"

    assert next_of(store, NOW) == others[:1]
    assert next_of(store, NOW) == []
    accept_order(store, others[0])
    assert store.flow_control.gate(NOW).is_open
    assert next_of(store, NOW) == others[1:]
    assert_consistent(redis, prefix)


@OF_TRIED
def test_a_refusal_of_two_jobs_concerns_all(store: JobStore, reason: HoldReason) -> None:
    """Submission is held for a while, then one job is tried; each failed trial doubles the hold."""
    job_ids = enqueue_jobs(store, *numbered_voices(9))
    now, waits, effects = NOW, list[float | None](), list[HoldEffect | None]()
    for _ in range(7):
        [job_id] = next_of(store, now) if waits else [enqueue_jobs(store, voice(key="x"))[0]]
        if not waits:
            apply_transition(store, get_job(store, job_id), State.ADMITTED)
            claim_admitted(store, job_id)
        effects.append(refuse_order(store, job_id, reason, now))
        [hold] = store.flow_control.gate(now).holds
        assert hold.until is not None
        waits.append(hold.until - now)
        now = hold.until

    assert waits == [0, 5, 10, 20, 40, MOST_S, MOST_S]
    assert effects == [HoldEffect.ON_TRIAL, HoldEffect.CLOSED, *[HoldEffect.NONE] * 5]
    assert {get_job(store, job_id).state for job_id in job_ids} == {State.QUEUED}


def test_an_invalid_key_holds_until_it_is_resumed_or_accepted(store: JobStore) -> None:
    """The second refused job causes the hold; a balance report starts a trial."""
    enqueue_jobs(store, *numbered_voices(5))
    for effect in (HoldEffect.ON_TRIAL, HoldEffect.CLOSED):
        [job_id] = next_of(store, NOW) if effect is HoldEffect.CLOSED else [_submit_one(store)]
        assert refuse_order(store, job_id, HoldReason.UNAUTHORIZED, max_hold_s=None) is effect

    assert holds(store, NOW + 1e6) == [("unauthorized", None, False)]
    assert next_of(store, NOW + 1e6) == []
    rich(store)
    [job_id] = next_of(store, NOW + 60)
    assert refuse_order(store, job_id, HoldReason.UNAUTHORIZED, NOW + 60, max_hold_s=None) is HoldEffect.CLOSED
    store.flow_control.resume(NOW + 61)
    [job_id] = next_of(store, NOW + 61)
    accept_order(store, job_id, NOW + 61)
    assert store.flow_control.gate(NOW + 61).is_open


def _submit_one(store: JobStore, key: str = "sent", now: float = NOW) -> str:
    """Submit one more order."""
    [job_id] = enqueue_jobs(store, voice(key=key))
    apply_transition(store, get_job(store, job_id), State.ADMITTED, now)
    claim_admitted(store, job_id, now)
    return job_id


@OF_TRIED
def test_concurrent_responses_are_evaluated_together(store: JobStore, reason: HoldReason) -> None:
    """Two refusals with an accepted order at the same moment close nothing."""
    poisons = [_submit_one(store, key) for key in ("a", "b")]
    good = _submit_one(store, "c")
    refusal = Refusal(reason, "no", PAUSE_S, MOST_S, MOST_S)
    fields = {serialization.task_field(Stage.VOICE): "t", "submitted_at": str(NOW)}
    moves = [transition_of(get_job(store, job_id), State.QUEUED, refused=refusal) for job_id in poisons]
    moves.append(transition_of(get_job(store, good), State.PENDING, fields=fields, credits=4))

    assert store.apply_with_effects(moves, NOW) == [HoldEffect.NONE] * 3

    assert store.flow_control.gate(NOW).is_open


# ── refusals of one job ───────────────────────────────────────────────────────────────────────────


@OF_ANY
def test_a_job_refused_while_others_are_accepted_fails(
    store: JobStore, redis: Redis, prefix: str, reason: HoldReason
) -> None:
    """It fails after a few attempts with growing rests; from the second on others are not affected."""
    rich(store)
    store.flow_control.set_limits(in_flight=100)
    [poison] = enqueue_jobs(store, voice(key="poison"))
    enqueue_jobs(store, *(voice(key=f"{n}") for n in range(60)))
    now, tries = NOW, list[float]()
    while get_job(store, poison).state is not State.FAILED:
        assert now < NOW + 3_600
        for job_id in next_of(store, now):
            if job_id == poison:
                tries.append(now)
                refuse_order(store, job_id, reason, now, words="The persona is gone.", max_rest_s=20.0, max_attempts=3)
                assert store.flow_control.gate(now).is_open or len(tries) == 1
            else:
                accept_order(store, job_id, now)
        if get_job(store, poison).state is State.QUEUED and len(tries) > 1:
            [refused_job] = store.flow_control.refused_jobs()
            assert (refused_job.job_id, refused_job.message, refused_job.refusals) == (
                poison,
                "The persona is gone.",
                len(tries),
            )
        enqueue_jobs(store, voice(key=f"more-{now}"), now=now)
        now += 1

    failure = get_job(store, poison).failure
    assert failure is not None
    assert (failure.code, failure.message) == (FailureCode.REFUSED, "The persona is gone.")
    waits = [later - earlier for earlier, later in pairwise(tries)]
    assert len(tries) == 4
    assert waits == sorted(waits)
    assert waits[0] >= PAUSE_S
    assert store.flow_control.refused_jobs() == []
    assert_consistent(redis, prefix)


@OF_ANY
def test_a_job_that_is_refused_alone_never_fails(store: JobStore, reason: HoldReason) -> None:
    """Nothing shows whom the refusal concerns; later jobs do not wait for it."""
    [lone] = enqueue_jobs(store, voice_with_song())
    now = NOW
    for _ in range(12):
        while not next_of(store, now):
            now += 1
        refuse_order(store, lone, reason, now)
    assert get_job(store, lone).state is State.QUEUED

    [other] = enqueue_jobs(store, voice(key="other"), now=now)
    now += PAUSE_S if reason is HoldReason.COOLDOWN else 0
    assert next_of(store, now) == [other]


def test_a_job_refused_while_others_were_accepted_fails_without_others(store: JobStore) -> None:
    """The last job of a queue settles, too."""
    lone, other = enqueue_jobs(store, voice(key="lone"), voice(key="other"))
    now = NOW
    store.admit(now)
    for job_id in (lone, other):
        claim_admitted(store, job_id)
    refuse_order(store, lone)
    accept_order(store, other)
    while get_job(store, lone).state is not State.FAILED:
        now += 1
        assert now < NOW + 1_800
        for job_id in next_of(store, now):
            refuse_order(store, job_id, now=now)

    assert store.flow_control.gate(now).is_open


@pytest.mark.parametrize("reported_balance", [None, 14])
def test_a_job_that_cannot_be_paid_while_cheaper_ones_are_does_not_fail(
    store: JobStore, reported_balance: int | None
) -> None:
    """Unless the balance is known to suffice, the refusal is right."""
    store.flow_control.set_limits(in_flight=100)
    song = job_in_state(store, State.PENDING, voice_with_song())
    apply_transition(store, song, State.ADMITTED, to_stage=Stage.MUSIC, fields={"persona_id": "p"})
    now = NOW

    def balance(credits: int | None) -> None:
        if credits is not None:
            store.flow_control.record_balance(credits, spent_before=store.credits_spent(), requested_at=now, now=now)

    for n in range(12):
        if get_job(store, song.id).state is State.QUEUED:
            apply_transition(store, get_job(store, song.id), State.ADMITTED, now)
        balance(reported_balance and 99)  # as we count it: it would not be sent otherwise
        claim_admitted(store, song.id, now)
        balance(reported_balance)
        refuse_order(store, song.id, HoldReason.OUT_OF_CREDITS, now)
        balance(reported_balance and 99)
        accept_order(store, _submit_one(store, f"voice-{n}", now), now)
        balance(reported_balance)
        now += 60

    assert get_job(store, song.id).state is State.QUEUED


def test_an_accepted_job_has_no_refusals(store: JobStore, redis: Redis, prefix: str) -> None:
    """Its refusals are deleted; its song starts without any."""
    first, other = enqueue_jobs(store, voice_with_song(key="first"), voice(key="other"))
    next_of(store, NOW)
    refuse_order(store, first)
    accept_order(store, other)
    assert next_of(store, NOW + PAUSE_S) == [first]
    refuse_order(store, first, now=NOW + PAUSE_S)
    assert [job.job_id for job in store.flow_control.refused_jobs()] == [first]
    assert next_of(store, NOW + 60) == [first]
    accept_order(store, first, NOW + 60)

    assert store.flow_control.refused_jobs() == []
    assert redis.hget(f"{{{prefix}}}:job:{first}", "refused") is None
    assert_consistent(redis, prefix)


@OF_TRIED
def test_a_trial_ends_when_its_job_is_cancelled(store: JobStore, reason: HoldReason) -> None:
    """No other job supports it."""
    [lone] = enqueue_jobs(store, voice())
    next_of(store, NOW)
    refuse_order(store, lone, reason)
    assert not store.flow_control.gate(NOW).is_open

    apply_transition(store, get_job(store, lone), State.CANCELLED)

    assert store.flow_control.gate(NOW).is_open


# ── trials ────────────────────────────────────────────────────────────────────────────────────────


def test_no_trial_takes_a_job_twice_while_there_are_others(store: JobStore) -> None:
    """This holds for every priority, batch and stage; the next trial starts at the other end of the backlog."""
    urgent = enqueue_jobs(store, *(voice(key=f"u{n}", priority=Priority.HIGH) for n in range(10)))
    [late] = enqueue_jobs(store, voice(key="late", batch="other", priority=Priority.BULK), now=NOW + 1)
    now, tried = NOW + 2, [_submit_one(store)]
    refuse_order(store, tried[0], now=now)
    for _ in range(2):
        [job_id] = next_of(store, now)
        tried.append(job_id)
        refuse_order(store, job_id, now=now)
        now += 10

    assert tried[1:] == [urgent[0], late]


def test_many_similar_refused_jobs_do_not_block_others(store: JobStore) -> None:
    """Fifty songs with a deleted persona precede ten voices: the voices are accepted within a minute."""
    store.flow_control.set_limits(in_flight=10)
    poisons = set(enqueue_jobs(store, *(voice(key=f"p{n}") for n in range(50))))
    good = enqueue_jobs(store, *(voice(key=f"g{n}") for n in range(10)), now=NOW + 1)
    now = NOW + 2
    while any(get_job(store, job_id).state is not State.SUCCEEDED for job_id in good):
        now += 0.5
        assert now < NOW + 62
        for job_id in next_of(store, now):
            if job_id in poisons:
                refuse_order(store, job_id, now=now)
            else:
                apply_transition(store, accept_order(store, job_id, now), State.SUCCEEDED, now)


def test_a_resting_job_holds_no_slot(store: JobStore) -> None:
    """With one slot, it is tried again when its rest is over, and not before."""
    store.flow_control.set_limits(in_flight=1)
    poison, *others = enqueue_jobs(store, *numbered_voices(4))
    assert next_of(store, NOW) == [poison]
    refuse_order(store, poison)

    served = []
    for n in range(3):
        [job_id] = next_of(store, NOW + n)
        apply_transition(store, accept_order(store, job_id, NOW + n), State.SUCCEEDED, NOW + n)
        served.append(job_id)
    assert served == others
    assert next_of(store, NOW + PAUSE_S - 0.1) == []
    assert next_of(store, NOW + PAUSE_S) == [poison]


def test_a_later_job_is_tried_soon_while_refused_jobs_hold_the_gate(store: JobStore) -> None:
    """Two jobs are always refused, so that the hold grows; a new job ends it."""
    poison, now, closed_at = enqueue_jobs(store, *numbered_voices(2)), NOW, NOW
    for _ in range(8):
        for job_id in next_of(store, now):
            refuse_order(store, job_id, now=now)
            closed_at = now
        [hold] = store.flow_control.gate(now).holds
        now += 1 if hold.is_on_trial else (hold.until or now) - now
    [(_, until, _)] = holds(store, closed_at)
    assert until is not None
    assert until >= closed_at + 2 * PAUSE_S

    [healthy] = enqueue_jobs(store, voice(key="healthy"), now=closed_at + 1)

    assert next_of(store, closed_at + PAUSE_S - 0.1) == []
    assert next_of(store, closed_at + PAUSE_S) == [healthy]
    accept_order(store, healthy, closed_at + PAUSE_S)
    assert store.flow_control.gate(closed_at + PAUSE_S).is_open
    assert all(get_job(store, job_id).state is State.QUEUED for job_id in poison)


# ── rate limiting ─────────────────────────────────────────────────────────────────────────────────


def test_one_rate_limited_job_delays_others_once_and_briefly(store: JobStore) -> None:
    """Regardless of the wait that upstream asks for, and with the same limit; the job itself waits."""
    store.flow_control.set_limits(in_flight=20)
    before = store.flow_control.in_flight_limit()
    poison = _submit_one(store)

    assert rate_limit_order(store, poison, wait_s=300.0) is HoldEffect.CLOSED
    assert holds(store, NOW) == [("cooldown", NOW + PAUSE_S, False)]
    assert store.flow_control.in_flight_limit() == before

    now = NOW + PAUSE_S
    for _ in range(4):
        accept_order(store, _submit_one(store, f"{now}", now), now)
        now += 300
        assert next_of(store, now) == [poison]
        assert rate_limit_order(store, poison, now, wait_s=300.0) is HoldEffect.NONE
        assert store.flow_control.gate(now).is_open
        assert store.flow_control.in_flight_limit() == before


def test_rate_limiting_of_two_jobs_holds_all(store: JobStore) -> None:
    """For a minute at most, because it may concern only those two; and the limit decreases."""
    first, second = _submit_one(store, "a"), _submit_one(store, "b")
    rate_limit_order(store, first, wait_s=30.0)
    rate_limit_order(store, second, wait_s=30.0)
    assert holds(store, NOW) == [("cooldown", NOW + 30, False)]

    rate_limit_order(store, _submit_one(store, "c", NOW + 31), NOW + 31, wait_s=300.0)

    assert holds(store, NOW + 31) == [("cooldown", NOW + 31 + 60, False)]
    assert store.flow_control.in_flight_limit().limit == 1


def test_resume_tries_resting_jobs(store: JobStore) -> None:
    """It ends their rest at once."""
    poison = _submit_one(store)
    rate_limit_order(store, poison, wait_s=300.0)

    assert store.flow_control.resume(NOW + 1)

    assert next_of(store, NOW + 1) == [poison]
