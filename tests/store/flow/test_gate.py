"""The gate: several holds at once, each with its own end, and the trials that end them."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from redis import Redis

from tests.store.life import NOW, accepted, brought_to, charge, charging, everything_agrees, make, one, put
from tests.support.jobs import numbered, sung
from voicequeue import Hold, Stage, State
from voicequeue.domain.claims import Admitted
from voicequeue.domain.gate import Effect, Limits, Reason
from voicequeue.storage.flow_control import TROUBLE_MAX_S, Trouble
from voicequeue.storage.job_store import Store

#: Reasons that end with a trial.
TRIED = ["out_of_credits", "unauthorized", "upstream_down"]
OF_TRIED = pytest.mark.parametrize("reason", TRIED)


def held(store: Store, now: float) -> list[str]:
    """Return the reasons of the current holds."""
    return [hold.reason for hold in store.controls.gate(now).holds]


def admitted(store: Store, now: float) -> int:
    """Return how many jobs are admitted now."""
    return sum(map(len, store.admit(now).by_stage.values()))


# ── holds ─────────────────────────────────────────────────────────────────────────────────────────


def test_each_hold_has_its_own_end(store: Store) -> None:
    """One hold does not affect another."""
    put(store, *numbered(3))
    assert store.controls.close("cooldown", "429", NOW, NOW + 5)
    assert store.controls.close("unauthorized", "403", NOW, NOW + 60)
    assert store.controls.pause(NOW, by="Ana")

    assert held(store, NOW + 1) == ["cooldown", "paused", "unauthorized"]
    assert held(store, NOW + 5) == ["paused", "unauthorized"]
    assert admitted(store, NOW + 5) == 0
    store.controls.resume(NOW + 6)
    assert held(store, NOW + 7) == ["unauthorized"]


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
    store: Store, first: float | None, second: float | None, stands: float | None
) -> None:
    """It keeps its start and has the latest detail; a shorter one ends nothing."""
    assert store.controls.close("unauthorized", "first", NOW, first)

    assert not store.controls.close("unauthorized", "second", NOW + 1, second)

    assert store.controls.gate(NOW + 2).holds == (Hold("unauthorized", "second", NOW, stands),)


def test_a_hold_after_an_ended_one_is_new(store: Store) -> None:
    """This also holds while there is another hold."""
    store.controls.pause(NOW)
    assert store.controls.close("cooldown", "429", NOW, NOW + 5)

    assert store.controls.close("cooldown", "429", NOW + 6, NOW + 11)

    assert store.controls.gate(NOW + 7).closed_for("cooldown") == Hold("cooldown", "429", NOW + 6, NOW + 11)


def test_a_cooldown_passes_by_itself_and_without_a_trial(store: Store) -> None:
    """All held jobs may start at once."""
    put(store, *numbered(9))
    store.controls.close("cooldown", "429", NOW, NOW + 5)

    assert admitted(store, NOW + 4.999) == 0
    assert admitted(store, NOW + 5) == 9


# ── trials ────────────────────────────────────────────────────────────────────────────────────────


@OF_TRIED
def test_a_trial_admits_one_job(store: Store, reason: str) -> None:
    """The next job waits for its outcome."""
    put(store, *numbered(9))
    store.controls.close(reason, "no", NOW, NOW + 60)
    assert store.controls.gate(NOW + 60).holds == (Hold(reason, "no", NOW, NOW + 60, trial=True),)

    assert [admitted(store, NOW + 60), admitted(store, NOW + 61)] == [1, 0]
    [job_id] = store.ids(state=State.ADMITTED)
    charging(store, job_id, NOW + 62)
    assert admitted(store, NOW + 63) == 0


@OF_TRIED
def test_an_accepted_order_opens_the_gate(store: Store, redis: Redis, prefix: str, reason: str) -> None:
    """All other jobs continue at once."""
    put(store, *numbered(9))
    store.controls.close(reason, "no", NOW, NOW + 60)
    admitted(store, NOW + 60)
    [job_id] = store.ids(state=State.ADMITTED)
    charging(store, job_id, NOW + 60)

    accepted(store, job_id, NOW + 61)

    assert store.controls.gate(NOW + 61).open
    assert admitted(store, NOW + 61) == 8
    everything_agrees(redis, prefix)


@OF_TRIED
def test_after_a_refused_trial_the_next_job_is_tried(store: Store, reason: str) -> None:
    """A refusal of one job does not concern the others."""
    put(store, *numbered(3))
    store.controls.close(reason, "no", NOW, NOW + 60)
    admitted(store, NOW + 60)
    [job_id] = store.ids(state=State.ADMITTED)
    charging(store, job_id, NOW + 60)

    make(store, one(store, job_id), State.FAILED, NOW + 61)

    assert held(store, NOW + 61) == [reason]
    assert admitted(store, NOW + 61) == 1


def test_a_failed_trial_closes_the_gate_again(store: Store) -> None:
    """The caller of the trial learns that it is new."""
    put(store, *numbered(3))
    store.controls.close("unauthorized", "401", NOW)
    store.controls.resume(NOW + 9)
    admitted(store, NOW + 10)
    [job_id] = store.ids(state=State.ADMITTED)
    charging(store, job_id, NOW + 10)

    assert store.controls.close("unauthorized", "401 still", NOW + 11)
    assert not store.controls.close("unauthorized", "401 still", NOW + 11)
    make(store, one(store, job_id), State.QUEUED, NOW + 11)

    assert store.controls.gate(NOW + 12).holds == (Hold("unauthorized", "401 still", NOW),)
    assert admitted(store, NOW + 1e6) == 0


@OF_TRIED
def test_of_admitted_jobs_one_is_submitted_in_a_trial(store: Store, reason: str) -> None:
    """The others return to the backlog, in order."""
    job_ids = put(store, *numbered(4))
    admitted(store, NOW)
    store.controls.close(reason, "no", NOW, NOW + 60)

    first, *others = [charge(store, job_id, Stage.VOICE, "h", NOW + 60, lease=9) for job_id in job_ids]

    assert first is not None
    assert others == [None, None, None]
    assert list(store.ids(state=State.QUEUED)) == job_ids[1:]


def test_a_trial_waits_for_other_holds(store: Store) -> None:
    """During a pause or a cooldown no trial starts, and an earlier order does not end the hold."""
    job = brought_to(store, State.CHARGING)
    put(store, *numbered(3))
    store.controls.close("unauthorized", "403", NOW, NOW + 60)
    store.controls.pause(NOW)

    accepted(store, job.id, NOW + 61)
    assert held(store, NOW + 61) == ["paused", "unauthorized"]
    assert admitted(store, NOW + 61) == 0

    store.controls.resume(NOW + 62)
    assert admitted(store, NOW + 62) == 1


def test_an_earlier_order_does_not_open_the_gate(store: Store) -> None:
    """It was submitted before the hold."""
    job = brought_to(store, State.CHARGING)
    store.controls.close("out_of_credits", "403", NOW)

    accepted(store, job.id, NOW + 1)

    assert held(store, NOW + 2) == ["out_of_credits"]


@pytest.mark.parametrize(("credits", "tried"), [(3, False), (13, False), (14, True), (500, True)])
def test_an_account_that_can_pay_again_is_tried(
    store: Store, redis: Redis, prefix: str, credits: int, tried: bool
) -> None:
    """Credits for one voice above the minimum balance suffice for a trial."""
    own = Store(redis, prefix, limits=Limits(in_flight=99, first_in_flight=99, credit_floor=10))
    put(own, *numbered(3))
    own.controls.close("out_of_credits", "403", NOW)

    own.controls.note_balance(credits, spent_before=0, asked=NOW + 60, now=NOW + 60)

    assert [hold.trial for hold in own.controls.gate(NOW + 60).holds] == [tried]
    assert admitted(own, NOW + 60) == int(tried)


# ── resume ────────────────────────────────────────────────────────────────────────────────────────


@OF_TRIED
def test_resume_starts_a_trial(store: Store, reason: str) -> None:
    """It starts at once, however long the hold would last."""
    put(store, *numbered(3))
    store.controls.close(reason, "no", NOW, NOW + 3_600)

    assert store.controls.resume(NOW + 1)

    assert [hold.trial for hold in store.controls.gate(NOW + 1).holds] == [True]
    assert admitted(store, NOW + 1) == 1


def test_resume_ends_every_pause(store: Store) -> None:
    """Of all stages and of each; a second call changes nothing."""
    store.controls.pause(NOW)
    for stage in Stage:
        store.controls.pause(NOW, stage=stage)
    assert held(store, NOW) == ["paused", "paused.music", "paused.voice"]

    assert store.controls.resume(NOW + 1)

    assert store.controls.gate(NOW + 1).open
    assert not store.controls.resume(NOW + 2)


def test_resuming_a_stage_ends_no_other_hold(store: Store) -> None:
    """Neither the pause of the other stage, nor the general one, nor a hold for lack of credits."""
    store.controls.pause(NOW)
    for stage in Stage:
        store.controls.pause(NOW, stage=stage)
    store.controls.close("out_of_credits", "403", NOW)

    assert store.controls.resume(NOW + 1, stage=Stage.VOICE)

    assert held(store, NOW + 1) == ["out_of_credits", "paused", "paused.music"]
    assert not store.controls.gate(NOW + 1).holds[0].trial
    assert not store.controls.resume(NOW + 1, stage=Stage.VOICE)


def test_resume_ends_a_cooldown(store: Store) -> None:
    """The operator overrides upstream's wait; another refusal costs nothing."""
    put(store, *numbered(3))
    store.controls.close("cooldown", "429", NOW, NOW + 300)

    assert store.controls.resume(NOW + 1)

    assert store.controls.gate(NOW + 1).open
    assert admitted(store, NOW + 1) == 3
    assert not store.controls.resume(NOW + 2)


def test_a_pause_reports_whether_it_is_new(store: Store) -> None:
    """Of all stages, or of one."""
    for stage in (None, *Stage):
        assert store.controls.pause(NOW, stage=stage, by="Ana")
        assert not store.controls.pause(NOW, stage=stage, by="Bea")

    assert {hold.detail for hold in store.controls.gate(NOW).holds} == {"Bea"}


# ── upstream failures ───────────────────────────────────────────────────────────────────────────────────────


class Silence(NamedTuple):
    """Requests that upstream does not answer."""

    store: Store

    def at(self, now: float, subject: str = "") -> bool:
        """Record one failed request; return whether it closed the gate."""
        [effect] = self.store.controls.trouble([Trouble(subject, Reason.UPSTREAM_DOWN, "HTTP 502")], now, wait=5)
        return effect is Effect.CLOSED


@pytest.fixture
def trouble(store: Store) -> Silence:
    """Return a sequence of failed requests."""
    return Silence(store)


def test_failures_for_one_task_close_nothing(store: Store, trouble: Silence) -> None:
    """One task or the balance may fail any number of times, until another request fails."""
    assert not any(trouble.at(NOW + n, "job-1") for n in range(50))
    store.controls.recovered()
    assert not any(trouble.at(NOW + n, "balance") for n in range(50))

    assert trouble.at(NOW + 50, "job-1")


def test_five_consecutive_failures_close_the_gate(store: Store, trouble: Silence) -> None:
    """Only the fifth is reported as new."""
    assert [trouble.at(NOW + n) for n in range(7)] == [False, False, False, False, True, False, False]

    assert store.controls.gate(NOW + 7).holds == (Hold("upstream_down", "HTTP 502", NOW + 4, NOW + 9),)


def test_a_response_resets_the_count(store: Store, trouble: Silence) -> None:
    """So does an accepted order, of any worker."""
    job = brought_to(store, State.CHARGING)
    for _ in range(4):
        trouble.at(NOW)
    store.controls.recovered()
    for _ in range(4):
        assert not trouble.at(NOW)
    accepted(store, job.id)
    for _ in range(4):
        assert not trouble.at(NOW)

    assert store.controls.gate(NOW).open


def test_each_failed_trial_doubles_the_hold(store: Store, trouble: Silence) -> None:
    """Up to a minute; a failed trial is not reported as new."""
    for _ in range(5):
        trouble.at(NOW)
    now, waits = NOW, []
    for _ in range(7):
        hold = store.controls.gate(now).holds[0]
        assert hold.until is not None
        waits.append(hold.until - now)
        now = hold.until
        assert not trouble.at(now)

    assert waits == [5, 10, 20, 40, TROUBLE_MAX_S, TROUBLE_MAX_S, TROUBLE_MAX_S]


def test_earlier_requests_do_not_extend_the_hold(store: Store, trouble: Silence) -> None:
    """They carry no new information."""
    for _ in range(5):
        trouble.at(NOW)

    for n in range(20):
        assert not trouble.at(NOW + n / 5)

    [hold] = store.controls.gate(NOW + 4).holds
    assert hold.until == NOW + 5


def test_after_a_recovery_five_failures_close_the_gate_again(store: Store, trouble: Silence) -> None:
    """The hold is as short as the first one."""
    put(store, *numbered(2))
    for _ in range(5):
        trouble.at(NOW)
    trouble.at(NOW + 5)
    admitted(store, NOW + 15)
    [job_id] = store.ids(state=State.ADMITTED)
    charging(store, job_id, NOW + 15)
    accepted(store, job_id, NOW + 15)
    assert store.controls.gate(NOW + 15).open

    assert [trouble.at(NOW + 16) for _ in range(5)] == [False] * 4 + [True]
    assert store.controls.gate(NOW + 16).holds[0].until == NOW + 21


# ── polls ─────────────────────────────────────────────────────────────────────────────────────────


def test_polls_continue_while_the_gate_is_closed(store: Store) -> None:
    """Only submission is held."""
    job = brought_to(store, State.PENDING, sung())
    store.controls.pause(NOW)

    [claim] = store.claim([job.id], Stage.VOICE, NOW + 30, lease=9)

    assert claim.job_id == job.id
    assert store.admit(NOW + 30) == Admitted({})
