"""The gate: several holds at once, each with its own end, and the trials that end them."""

from __future__ import annotations

from typing import NamedTuple

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
    job_in_state,
)
from tests.support.jobs import numbered_voices, voice_with_song
from voicequeue import Hold, Stage, State
from voicequeue.domain.claims import Admitted
from voicequeue.domain.gate import HoldEffect, HoldReason, Limits
from voicequeue.storage.flow_control import UPSTREAM_HOLD_MAX_S, UpstreamFailure
from voicequeue.storage.job_store import JobStore

#: Reasons that end with a trial.
TRIED = ["out_of_credits", "unauthorized", "upstream_down"]
OF_TRIED = pytest.mark.parametrize("reason", TRIED)


def hold_reasons(store: JobStore, now: float) -> list[str]:
    """Return the reasons of the current holds."""
    return [hold.reason for hold in store.flow_control.gate(now).holds]


def admitted(store: JobStore, now: float) -> int:
    """Return how many jobs are admitted now."""
    return sum(map(len, store.admit(now).by_stage.values()))


# ── holds ─────────────────────────────────────────────────────────────────────────────────────────


def test_each_hold_has_its_own_end(store: JobStore) -> None:
    """One hold does not affect another."""
    enqueue_jobs(store, *numbered_voices(3))
    assert store.flow_control.add_hold("cooldown", "429", NOW, NOW + 5)
    assert store.flow_control.add_hold("unauthorized", "403", NOW, NOW + 60)
    assert store.flow_control.pause(NOW, reason="Ana")

    assert hold_reasons(store, NOW + 1) == ["cooldown", "paused", "unauthorized"]
    assert hold_reasons(store, NOW + 5) == ["paused", "unauthorized"]
    assert admitted(store, NOW + 5) == 0
    store.flow_control.resume(NOW + 6)
    assert hold_reasons(store, NOW + 7) == ["unauthorized"]


@pytest.mark.parametrize(
    ("first", "second", "stands"),
    [
        (NOW + 60, NOW + 5, NOW + 60),
        (NOW + 5, NOW + 60, NOW + 60),
        (NOW + 60, None, None),
        (None, NOW + 60, None),
        (None, None, None),
    ],
)
def test_of_one_reason_the_longer_hold_stays(
    store: JobStore, first: float | None, second: float | None, stands: float | None
) -> None:
    """It keeps its start and has the latest detail; a shorter one ends nothing."""
    assert store.flow_control.add_hold("unauthorized", "first", NOW, first)

    assert not store.flow_control.add_hold("unauthorized", "second", NOW + 1, second)

    assert store.flow_control.gate(NOW + 2).holds == (Hold("unauthorized", "second", NOW, stands),)


def test_a_hold_after_an_ended_one_is_new(store: JobStore) -> None:
    """This also holds while there is another hold."""
    store.flow_control.pause(NOW)
    assert store.flow_control.add_hold("cooldown", "429", NOW, NOW + 5)

    assert store.flow_control.add_hold("cooldown", "429", NOW + 6, NOW + 11)

    assert store.flow_control.gate(NOW + 7).hold_for("cooldown") == Hold("cooldown", "429", NOW + 6, NOW + 11)


def test_a_cooldown_passes_by_itself_and_without_a_trial(store: JobStore) -> None:
    """All held jobs may start at once."""
    enqueue_jobs(store, *numbered_voices(9))
    store.flow_control.add_hold("cooldown", "429", NOW, NOW + 5)

    assert admitted(store, NOW + 4.999) == 0
    assert admitted(store, NOW + 5) == 9


# ── trials ────────────────────────────────────────────────────────────────────────────────────────


@OF_TRIED
def test_a_trial_admits_one_job(store: JobStore, reason: str) -> None:
    """The next job waits for its outcome."""
    enqueue_jobs(store, *numbered_voices(9))
    store.flow_control.add_hold(reason, "no", NOW, NOW + 60)
    assert store.flow_control.gate(NOW + 60).holds == (Hold(reason, "no", NOW, NOW + 60, is_on_trial=True),)

    assert [admitted(store, NOW + 60), admitted(store, NOW + 61)] == [1, 0]
    [job_id] = store.list_ids(state=State.ADMITTED)
    claim_admitted(store, job_id, NOW + 62)
    assert admitted(store, NOW + 63) == 0


@OF_TRIED
def test_an_accepted_order_opens_the_gate(store: JobStore, redis: Redis, prefix: str, reason: str) -> None:
    """All other jobs continue at once."""
    enqueue_jobs(store, *numbered_voices(9))
    store.flow_control.add_hold(reason, "no", NOW, NOW + 60)
    admitted(store, NOW + 60)
    [job_id] = store.list_ids(state=State.ADMITTED)
    claim_admitted(store, job_id, NOW + 60)

    accept_order(store, job_id, NOW + 61)

    assert store.flow_control.gate(NOW + 61).is_open
    assert admitted(store, NOW + 61) == 8
    assert_consistent(redis, prefix)


@OF_TRIED
def test_after_a_refused_trial_the_next_job_is_tried(store: JobStore, reason: str) -> None:
    """A refusal of one job does not concern the others."""
    enqueue_jobs(store, *numbered_voices(3))
    store.flow_control.add_hold(reason, "no", NOW, NOW + 60)
    admitted(store, NOW + 60)
    [job_id] = store.list_ids(state=State.ADMITTED)
    claim_admitted(store, job_id, NOW + 60)

    apply_transition(store, get_job(store, job_id), State.FAILED, NOW + 61)

    assert hold_reasons(store, NOW + 61) == [reason]
    assert admitted(store, NOW + 61) == 1


def test_a_failed_trial_closes_the_gate_again(store: JobStore) -> None:
    """The caller of the trial learns that it is new."""
    enqueue_jobs(store, *numbered_voices(3))
    store.flow_control.add_hold("unauthorized", "401", NOW)
    store.flow_control.resume(NOW + 9)
    admitted(store, NOW + 10)
    [job_id] = store.list_ids(state=State.ADMITTED)
    claim_admitted(store, job_id, NOW + 10)

    assert store.flow_control.add_hold("unauthorized", "401 still", NOW + 11)
    assert not store.flow_control.add_hold("unauthorized", "401 still", NOW + 11)
    apply_transition(store, get_job(store, job_id), State.QUEUED, NOW + 11)

    assert store.flow_control.gate(NOW + 12).holds == (Hold("unauthorized", "401 still", NOW),)
    assert admitted(store, NOW + 1e6) == 0


@OF_TRIED
def test_of_admitted_jobs_one_is_submitted_in_a_trial(store: JobStore, reason: str) -> None:
    """The others return to the backlog, in order."""
    job_ids = enqueue_jobs(store, *numbered_voices(4))
    admitted(store, NOW)
    store.flow_control.add_hold(reason, "no", NOW, NOW + 60)

    first, *others = [claim_submit(store, job_id, Stage.VOICE, "h", NOW + 60, lease=9) for job_id in job_ids]

    assert first is not None
    assert others == [None, None, None]
    assert list(store.list_ids(state=State.QUEUED)) == job_ids[1:]


def test_a_trial_waits_for_other_holds(store: JobStore) -> None:
    """During a pause or a cooldown no trial starts, and an earlier order does not end the hold."""
    job = job_in_state(store, State.CHARGING)
    enqueue_jobs(store, *numbered_voices(3))
    store.flow_control.add_hold("unauthorized", "403", NOW, NOW + 60)
    store.flow_control.pause(NOW)

    accept_order(store, job.id, NOW + 61)
    assert hold_reasons(store, NOW + 61) == ["paused", "unauthorized"]
    assert admitted(store, NOW + 61) == 0

    store.flow_control.resume(NOW + 62)
    assert admitted(store, NOW + 62) == 1


def test_an_earlier_order_does_not_open_the_gate(store: JobStore) -> None:
    """It was submitted before the hold."""
    job = job_in_state(store, State.CHARGING)
    store.flow_control.add_hold("out_of_credits", "403", NOW)

    accept_order(store, job.id, NOW + 1)

    assert hold_reasons(store, NOW + 2) == ["out_of_credits"]


@pytest.mark.parametrize(("credits", "tried"), [(3, False), (13, False), (14, True), (500, True)])
def test_an_account_that_can_pay_again_is_tried(
    store: JobStore, redis: Redis, prefix: str, credits: int, tried: bool
) -> None:
    """Credits for one voice above the minimum balance suffice for a trial."""
    own = JobStore(redis, prefix, limits=Limits(in_flight=99, initial_in_flight=99, min_balance=10))
    enqueue_jobs(own, *numbered_voices(3))
    own.flow_control.add_hold("out_of_credits", "403", NOW)

    own.flow_control.record_balance(credits, spent_before=0, requested_at=NOW + 60, now=NOW + 60)

    assert [hold.is_on_trial for hold in own.flow_control.gate(NOW + 60).holds] == [tried]
    assert admitted(own, NOW + 60) == int(tried)


# ── resume ────────────────────────────────────────────────────────────────────────────────────────


@OF_TRIED
def test_resume_starts_a_trial(store: JobStore, reason: str) -> None:
    """It starts at once, however long the hold would last."""
    enqueue_jobs(store, *numbered_voices(3))
    store.flow_control.add_hold(reason, "no", NOW, NOW + 3_600)

    assert store.flow_control.resume(NOW + 1)

    assert [hold.is_on_trial for hold in store.flow_control.gate(NOW + 1).holds] == [True]
    assert admitted(store, NOW + 1) == 1


def test_resume_ends_every_pause(store: JobStore) -> None:
    """Of all stages and of each; a second call changes nothing."""
    store.flow_control.pause(NOW)
    for stage in Stage:
        store.flow_control.pause(NOW, stage=stage)
    assert hold_reasons(store, NOW) == ["paused", "paused.music", "paused.voice"]

    assert store.flow_control.resume(NOW + 1)

    assert store.flow_control.gate(NOW + 1).is_open
    assert not store.flow_control.resume(NOW + 2)


def test_resuming_a_stage_ends_no_other_hold(store: JobStore) -> None:
    """Neither the pause of the other stage, nor the general one, nor a hold for lack of credits."""
    store.flow_control.pause(NOW)
    for stage in Stage:
        store.flow_control.pause(NOW, stage=stage)
    store.flow_control.add_hold("out_of_credits", "403", NOW)

    assert store.flow_control.resume(NOW + 1, stage=Stage.VOICE)

    assert hold_reasons(store, NOW + 1) == ["out_of_credits", "paused", "paused.music"]
    assert not store.flow_control.gate(NOW + 1).holds[0].is_on_trial
    assert not store.flow_control.resume(NOW + 1, stage=Stage.VOICE)


def test_resume_ends_a_cooldown(store: JobStore) -> None:
    """The operator overrides upstream's wait; another refusal costs nothing."""
    enqueue_jobs(store, *numbered_voices(3))
    store.flow_control.add_hold("cooldown", "429", NOW, NOW + 300)

    assert store.flow_control.resume(NOW + 1)

    assert store.flow_control.gate(NOW + 1).is_open
    assert admitted(store, NOW + 1) == 3
    assert not store.flow_control.resume(NOW + 2)


def test_a_pause_reports_whether_it_is_new(store: JobStore) -> None:
    """Of all stages, or of one."""
    for stage in (None, *Stage):
        assert store.flow_control.pause(NOW, stage=stage, reason="Ana")
        assert not store.flow_control.pause(NOW, stage=stage, reason="Bea")

    assert {hold.detail for hold in store.flow_control.gate(NOW).holds} == {"Bea"}


# ── upstream failures ───────────────────────────────────────────────────────────────────────────────────────


class Silence(NamedTuple):
    """Requests that upstream does not answer."""

    store: JobStore

    def at(self, now: float, subject: str = "") -> bool:
        """Record one failed request; return whether it closed the gate."""
        [effect] = self.store.flow_control.record_failures(
            [UpstreamFailure(subject, HoldReason.UPSTREAM_DOWN, "HTTP 502")], now, initial_hold_s=5
        )
        return effect is HoldEffect.CLOSED


@pytest.fixture
def trouble(store: JobStore) -> Silence:
    """Return a sequence of failed requests."""
    return Silence(store)


def test_failures_for_one_task_close_nothing(store: JobStore, trouble: Silence) -> None:
    """One task or the balance may fail any number of times, until another request fails."""
    assert not any(trouble.at(NOW + n, "job-1") for n in range(50))
    store.flow_control.clear_failures()
    assert not any(trouble.at(NOW + n, "balance") for n in range(50))

    assert trouble.at(NOW + 50, "job-1")


def test_five_consecutive_failures_close_the_gate(store: JobStore, trouble: Silence) -> None:
    """Only the fifth is reported as new."""
    assert [trouble.at(NOW + n) for n in range(7)] == [False, False, False, False, True, False, False]

    assert store.flow_control.gate(NOW + 7).holds == (Hold("upstream_down", "HTTP 502", NOW + 4, NOW + 9),)


def test_a_response_resets_the_count(store: JobStore, trouble: Silence) -> None:
    """So does an accepted order, of any worker."""
    job = job_in_state(store, State.CHARGING)
    for _ in range(4):
        trouble.at(NOW)
    store.flow_control.clear_failures()
    for _ in range(4):
        assert not trouble.at(NOW)
    accept_order(store, job.id)
    for _ in range(4):
        assert not trouble.at(NOW)

    assert store.flow_control.gate(NOW).is_open


def test_each_failed_trial_doubles_the_hold(store: JobStore, trouble: Silence) -> None:
    """Up to a minute; a failed trial is not reported as new."""
    for _ in range(5):
        trouble.at(NOW)
    now, waits = NOW, []
    for _ in range(7):
        hold = store.flow_control.gate(now).holds[0]
        assert hold.until is not None
        waits.append(hold.until - now)
        now = hold.until
        assert not trouble.at(now)

    assert waits == [5, 10, 20, 40, UPSTREAM_HOLD_MAX_S, UPSTREAM_HOLD_MAX_S, UPSTREAM_HOLD_MAX_S]


def test_earlier_requests_do_not_extend_the_hold(store: JobStore, trouble: Silence) -> None:
    """They carry no new information."""
    for _ in range(5):
        trouble.at(NOW)

    for n in range(20):
        assert not trouble.at(NOW + n / 5)

    [hold] = store.flow_control.gate(NOW + 4).holds
    assert hold.until == NOW + 5


def test_after_a_recovery_five_failures_close_the_gate_again(store: JobStore, trouble: Silence) -> None:
    """The hold is as short as the first one."""
    enqueue_jobs(store, *numbered_voices(2))
    for _ in range(5):
        trouble.at(NOW)
    trouble.at(NOW + 5)
    admitted(store, NOW + 15)
    [job_id] = store.list_ids(state=State.ADMITTED)
    claim_admitted(store, job_id, NOW + 15)
    accept_order(store, job_id, NOW + 15)
    assert store.flow_control.gate(NOW + 15).is_open

    assert [trouble.at(NOW + 16) for _ in range(5)] == [False] * 4 + [True]
    assert store.flow_control.gate(NOW + 16).holds[0].until == NOW + 21


# ── polls ─────────────────────────────────────────────────────────────────────────────────────────


def test_polls_continue_while_the_gate_is_closed(store: JobStore) -> None:
    """Only submission is held."""
    job = job_in_state(store, State.PENDING, voice_with_song())
    store.flow_control.pause(NOW)

    [claim] = store.claim_poll([job.id], NOW + 30, lease_s=9)

    assert claim.job_id == job.id
    assert store.admit(NOW + 30) == Admitted({})
