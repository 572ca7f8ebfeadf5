"""The gate: several reasons at once, each for its time; and the trials that open it again."""

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
    """The reasons that hold then."""
    return [hold.reason for hold in store.controls.gate(now).holds]


def admitted(store: Store, now: float) -> int:
    """How many jobs are admitted now."""
    return sum(map(len, store.admit(now).by_stage.values()))


# ── reasons ───────────────────────────────────────────────────────────────────────────────────────


def test_reasons_hold_each_for_its_own_time(store: Store) -> None:
    """What holds for one is no matter of the others."""
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
def test_of_one_reason_the_longer_stands(
    store: Store, first: float | None, second: float | None, stands: float | None
) -> None:
    """Since it held first, with the words that came last; a late and short one opens nothing."""
    assert store.controls.close("unauthorized", "first", NOW, first)

    assert not store.controls.close("unauthorized", "second", NOW + 1, second)

    assert store.controls.gate(NOW + 2).holds == (Hold("unauthorized", "second", NOW, stands),)


def test_what_was_over_and_begins_anew_is_new(store: Store) -> None:
    """Also while something else holds: whoever tells it must tell it again."""
    store.controls.pause(NOW)
    assert store.controls.close("cooldown", "429", NOW, NOW + 5)

    assert store.controls.close("cooldown", "429", NOW + 6, NOW + 11)

    assert store.controls.gate(NOW + 7).closed_for("cooldown") == Hold("cooldown", "429", NOW + 6, NOW + 11)


def test_a_cooldown_passes_by_itself_and_without_a_trial(store: Store) -> None:
    """All that was held back may begin at once."""
    put(store, *numbered(9))
    store.controls.close("cooldown", "429", NOW, NOW + 5)

    assert admitted(store, NOW + 4.999) == 0
    assert admitted(store, NOW + 5) == 9


# ── trials ────────────────────────────────────────────────────────────────────────────────────────


@OF_TRIED
def test_when_its_time_is_over_one_job_is_tried(store: Store, reason: str) -> None:
    """And the next one not before it is known what became of that."""
    put(store, *numbered(9))
    store.controls.close(reason, "no", NOW, NOW + 60)
    assert store.controls.gate(NOW + 60).holds == (Hold(reason, "no", NOW, NOW + 60, trial=True),)

    assert [admitted(store, NOW + 60), admitted(store, NOW + 61)] == [1, 0]
    [job_id] = store.ids(state=State.ADMITTED)
    charging(store, job_id, NOW + 62)
    assert admitted(store, NOW + 63) == 0


@OF_TRIED
def test_a_job_that_upstream_takes_opens_the_gate(store: Store, redis: Redis, prefix: str, reason: str) -> None:
    """For all the others at once."""
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
def test_a_job_that_upstream_refuses_leaves_the_next_to_be_tried(store: Store, reason: str) -> None:
    """Its own trouble is no answer about everybody's."""
    put(store, *numbered(3))
    store.controls.close(reason, "no", NOW, NOW + 60)
    admitted(store, NOW + 60)
    [job_id] = store.ids(state=State.ADMITTED)
    charging(store, job_id, NOW + 60)

    make(store, one(store, job_id), State.FAILED, NOW + 61)

    assert held(store, NOW + 61) == [reason]
    assert admitted(store, NOW + 61) == 1


def test_a_failed_trial_closes_the_gate_again(store: Store) -> None:
    """Which is news to whoever has let it be tried."""
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
def test_of_jobs_that_were_admitted_before_one_is_charged_on_trial(store: Store, reason: str) -> None:
    """The others go back to the line, in their order."""
    job_ids = put(store, *numbered(4))
    admitted(store, NOW)
    store.controls.close(reason, "no", NOW, NOW + 60)

    first, *others = [charge(store, job_id, Stage.VOICE, "h", NOW + 60, lease=9) for job_id in job_ids]

    assert first is not None
    assert others == [None, None, None]
    assert list(store.ids(state=State.QUEUED)) == job_ids[1:]


def test_a_trial_waits_for_what_else_holds(store: Store) -> None:
    """While it is paused, or cools down, nobody is tried; nor does an order that was under way open it."""
    job = brought_to(store, State.CHARGING)
    put(store, *numbered(3))
    store.controls.close("unauthorized", "403", NOW, NOW + 60)
    store.controls.pause(NOW)

    accepted(store, job.id, NOW + 61)
    assert held(store, NOW + 61) == ["paused", "unauthorized"]
    assert admitted(store, NOW + 61) == 0

    store.controls.resume(NOW + 62)
    assert admitted(store, NOW + 62) == 1


def test_an_order_that_was_under_way_does_not_open_what_is_closed(store: Store) -> None:
    """It left before."""
    job = brought_to(store, State.CHARGING)
    store.controls.close("out_of_credits", "403", NOW)

    accepted(store, job.id, NOW + 1)

    assert held(store, NOW + 2) == ["out_of_credits"]


@pytest.mark.parametrize(("credits", "tried"), [(3, False), (13, False), (14, True), (500, True)])
def test_an_account_that_can_pay_again_is_tried(
    store: Store, redis: Redis, prefix: str, credits: int, tried: bool
) -> None:
    """A voice above the floor is enough to try; any less is not worth asking."""
    own = Store(redis, prefix, limits=Limits(in_flight=99, first_in_flight=99, credit_floor=10))
    put(own, *numbered(3))
    own.controls.close("out_of_credits", "403", NOW)

    own.controls.note_balance(credits, spent_before=0, asked=NOW + 60, now=NOW + 60)

    assert [hold.trial for hold in own.controls.gate(NOW + 60).holds] == [tried]
    assert admitted(own, NOW + 60) == int(tried)


# ── resume ────────────────────────────────────────────────────────────────────────────────────────


@OF_TRIED
def test_to_resume_tries_what_is_held_back(store: Store, reason: str) -> None:
    """At once, however long it would hold."""
    put(store, *numbered(3))
    store.controls.close(reason, "no", NOW, NOW + 3_600)

    assert store.controls.resume(NOW + 1)

    assert [hold.trial for hold in store.controls.gate(NOW + 1).holds] == [True]
    assert admitted(store, NOW + 1) == 1


def test_to_resume_ends_every_pause(store: Store) -> None:
    """Of all, and of each stage; a second time there is nothing to end."""
    store.controls.pause(NOW)
    for stage in Stage:
        store.controls.pause(NOW, stage=stage)
    assert held(store, NOW) == ["paused", "paused.music", "paused.voice"]

    assert store.controls.resume(NOW + 1)

    assert store.controls.gate(NOW + 1).open
    assert not store.controls.resume(NOW + 2)


def test_to_resume_a_stage_ends_nothing_else(store: Store) -> None:
    """Neither the other stage's pause, nor everybody's, nor an account that cannot pay."""
    store.controls.pause(NOW)
    for stage in Stage:
        store.controls.pause(NOW, stage=stage)
    store.controls.close("out_of_credits", "403", NOW)

    assert store.controls.resume(NOW + 1, stage=Stage.VOICE)

    assert held(store, NOW + 1) == ["out_of_credits", "paused", "paused.music"]
    assert not store.controls.gate(NOW + 1).holds[0].trial
    assert not store.controls.resume(NOW + 1, stage=Stage.VOICE)


def test_to_resume_ends_a_cooldown(store: Store) -> None:
    """Whatever upstream asked for: the operator knows better, and one more refusal costs nothing."""
    put(store, *numbered(3))
    store.controls.close("cooldown", "429", NOW, NOW + 300)

    assert store.controls.resume(NOW + 1)

    assert store.controls.gate(NOW + 1).open
    assert admitted(store, NOW + 1) == 3
    assert not store.controls.resume(NOW + 2)


def test_a_pause_says_whether_it_was_one_already(store: Store) -> None:
    """Of all, or of a stage."""
    for stage in (None, *Stage):
        assert store.controls.pause(NOW, stage=stage, by="Ana")
        assert not store.controls.pause(NOW, stage=stage, by="Bea")

    assert {hold.detail for hold in store.controls.gate(NOW).holds} == {"Bea"}


# ── trouble ───────────────────────────────────────────────────────────────────────────────────────


class Silence(NamedTuple):
    """Calls that upstream does not answer."""

    store: Store

    def at(self, now: float, about: str = "") -> bool:
        """One of them; whether it closed the gate."""
        [effect] = self.store.controls.trouble([Trouble(about, Reason.UPSTREAM_DOWN, "HTTP 502")], now, wait=5)
        return effect is Effect.CLOSED


@pytest.fixture
def trouble(store: Store) -> Silence:
    """Upstream is away."""
    return Silence(store)


def test_what_it_does_not_answer_of_one_thing_alone_closes_nothing(store: Store, trouble: Silence) -> None:
    """Neither a task that it cannot read out nor its account: however often, until it does not answer another."""
    assert not any(trouble.at(NOW + n, "job-1") for n in range(50))
    store.controls.recovered()
    assert not any(trouble.at(NOW + n, "balance") for n in range(50))

    assert trouble.at(NOW + 50, "job-1")


def test_five_in_a_row_close_the_gate(store: Store, trouble: Silence) -> None:
    """The fifth, and only it, is news."""
    assert [trouble.at(NOW + n) for n in range(7)] == [False, False, False, False, True, False, False]

    assert store.controls.gate(NOW + 7).holds == (Hold("upstream_down", "HTTP 502", NOW + 4, NOW + 9),)


def test_an_answer_ends_the_row(store: Store, trouble: Silence) -> None:
    """And an order that upstream takes, whoever sent it."""
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


def test_each_failed_trial_waits_twice_as_long(store: Store, trouble: Silence) -> None:
    """Up to a minute; no failed trial is news."""
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


def test_calls_that_had_left_before_it_closed_make_it_no_longer(store: Store, trouble: Silence) -> None:
    """They tell nothing new."""
    for _ in range(5):
        trouble.at(NOW)

    for n in range(20):
        assert not trouble.at(NOW + n / 5)

    [hold] = store.controls.gate(NOW + 4).holds
    assert hold.until == NOW + 5


def test_after_it_has_recovered_it_takes_five_again(store: Store, trouble: Silence) -> None:
    """And the wait is as short as at first."""
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


# ── everything at once ────────────────────────────────────────────────────────────────────────────


def test_behind_a_closed_gate_what_is_paid_goes_on_to_be_asked_about(store: Store) -> None:
    """Only charges are held back."""
    job = brought_to(store, State.PENDING, sung())
    store.controls.pause(NOW)

    [claim] = store.claim([job.id], Stage.VOICE, NOW + 30, lease=9)

    assert claim.job_id == job.id
    assert store.admit(NOW + 30) == Admitted({})
